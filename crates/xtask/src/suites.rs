//! What the suites of arenas and of heaps have in common: the runner of the conformance suite with other sources, and a
//! program that reads too late, under AddressSanitizer and valgrind.

use crate::build;
use crate::case::LeftOut;
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A suite of `tests/<name>`.
pub struct Suite {
    pub name: &'static str,
    /// Its sources beside the runner.
    pub sources: &'static [&'static str],
    /// The settings of each run.
    pub runs: &'static [&'static [(&'static str, &'static str)]],
    /// The program with a late read, its line marked by `/* LATE */`, and the arguments with which it makes one.
    pub late: (&'static str, &'static [&'static str]),
}

impl Suite {
    fn source(&self, file: &str) -> PathBuf {
        build::root().join("tests").join(self.name).join(file)
    }

    /// Compiles it against a backend's library and runs it with each of the settings.
    pub fn run(&self, backend: &'static str, shared: bool) -> Result<()> {
        tools::need(&["g++", "clang"])?;
        let built = build::build(backend, true, None)?;
        let library = if shared { &built.shared_lib } else { &built.static_lib };
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("suite");
        // C with call sites against the static library, C++ without against the shared one; the compilers take turns.
        let mut command = Command::new(match (shared, backend) {
            (false, "native" | "jemalloc") => "gcc",
            (false, _) => "clang",
            (true, "native" | "jemalloc") => "clang++",
            (true, _) => "g++",
        });
        command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-pthread"]);
        command.args(if shared { &["-x", "c++", "-std=c++11"][..] } else { &["-std=c99", "-DAK_TRACK"][..] });
        command.arg("-I").arg(build::root().join("include")).arg(format!("-DCHECK_VERSION=\"{}\"", build::VERSION));
        command.arg(build::root().join("tests/conformance/main.c"));
        command.args(self.sources.iter().map(|file| self.source(file)));
        if shared {
            command.args(["-x", "none"]);
        }
        link(&mut command, library, &program)?;
        for settings in self.runs {
            let mut command = Command::new(&program);
            let done = tools::attempt(command.env("CHECK_BACKEND", backend).envs(settings.iter().copied()))?;
            if !done.success {
                let kept: Vec<&str> = done.stdout.lines().filter(|line| !line.starts_with("ok")).collect();
                bail!("{settings:?}: {}\n{}\n{}", done.ending, kept.join("\n"), done.stderr);
            }
        }
        Ok(())
    }

    /// The suite with LeakSanitizer, on the system's allocator: at the end of each test's process nothing is lost. And that the tool looks
    /// is shown by a program that loses something.
    pub fn leaks(&self, lost: &str) -> Result<()> {
        tools::need(&["gcc"])?;
        let built = build::build("system", true, None)?;
        let folder = tempfile::tempdir()?;
        let compile = |name: &str, sources: &[PathBuf]| -> Result<PathBuf> {
            let program = folder.path().join(name);
            let mut command = Command::new("gcc");
            command.args(["-std=c99", "-g", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror", "-fsanitize=leak"]);
            command.arg("-I").arg(build::root().join("include")).arg(format!("-DCHECK_VERSION=\"{}\"", build::VERSION));
            command.args(sources);
            link(&mut command, &built.static_lib, &program)?;
            Ok(program)
        };
        let text = folder.path().join("lost.c");
        std::fs::write(&text, format!("#include <alloc.h>\nint main(void) {{ {lost} return 0; }}\n"))?;
        let red = tools::attempt(&mut Command::new(compile("lost", &[text])?))?;
        ensure!(
            red.stderr.contains("detected memory leaks"),
            "what is lost is not seen: {}\n{}",
            red.ending,
            red.all()
        );
        let mut sources = vec![build::root().join("tests/conformance/main.c")];
        sources.extend(self.sources.iter().map(|file| self.source(file)));
        let mut command = Command::new(compile("suite", &sources)?);
        let done = tools::attempt(
            command.env("CHECK_BACKEND", "system").env("LSAN_OPTIONS", "exitcode=23:allocator_may_return_null=1"),
        )?;
        let said = done.stderr.contains("detected memory leaks");
        ensure!(done.success && !said, "{}\n{}", done.ending, done.all());
        Ok(())
    }

    /// The late read as AddressSanitizer sees it.
    pub fn sanitizer(&self, backend: &str) -> Result<()> {
        tools::need(&["gcc"])?;
        let folder = tempfile::tempdir()?;
        let program = self.late_program(backend, &["-fsanitize=address"], folder.path())?;
        self.look(|| Command::new(&program), "use-after-poison")
    }

    /// And as valgrind does.
    pub fn valgrind(&self, backend: &str) -> Result<()> {
        let Some(valgrind) = tools::in_path("valgrind") else {
            return Err(LeftOut::because("valgrind is missing; on Debian: apt-get install valgrind"));
        };
        let folder = tempfile::tempdir()?;
        let program = self.late_program(backend, &[], folder.path())?;
        let run = || {
            let mut command = Command::new(&valgrind);
            command.args(["--quiet", "--error-exitcode=9"]).arg(&program);
            command
        };
        self.look(run, "Invalid read")
    }

    fn late_program(&self, backend: &str, flags: &[&str], folder: &Path) -> Result<PathBuf> {
        let built = build::build(backend, true, None)?;
        let program = folder.join("late");
        let mut command = Command::new("gcc");
        command.args(["-std=c99", "-g", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]).args(flags);
        command.arg("-I").arg(build::root().join("include")).arg(self.source(self.late.0));
        link(&mut command, &built.static_lib, &program)?;
        Ok(program)
    }

    /// Nothing is said without a bug; each late read is named at its line.
    fn look(&self, run: impl Fn() -> Command, words: &str) -> Result<()> {
        let (file, whens) = self.late;
        let text = std::fs::read_to_string(self.source(file))?;
        let at = text.lines().position(|line| line.contains("/* LATE */"));
        let line = format!("{file}:{}", at.with_context(|| format!("{file} lost its mark"))? + 1);
        let clean = tools::attempt(&mut run())?;
        ensure!(clean.success, "without a bug: {}\n{}", clean.ending, clean.all());
        for when in whens {
            let late = tools::attempt(run().arg(when))?;
            let named = late.stderr.contains(words) && late.stderr.contains(&line);
            ensure!(!late.success && named, "{when}: no report of {line}: {}\n{}", late.ending, late.all());
        }
        Ok(())
    }
}

/// Links a program with a library of ours.
pub fn link(command: &mut Command, library: &Path, program: &Path) -> Result<()> {
    let folder = library.parent().context("a library lies in a folder")?;
    command.arg(library).arg(format!("-Wl,-rpath,{}", folder.display()));
    command.args(["-rdynamic", "-ldl", "-lm", "-o"]).arg(program);
    tools::output(command).map(drop)
}
