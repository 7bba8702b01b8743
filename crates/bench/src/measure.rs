//! One run of one program: what it took and what it said.
//!
//! CPU time and peak memory are the kernel's own account of the process and the children that it waited for. It is taken by
//! tests/bench/launch.c, which starts the program and is small itself.

use crate::plan::{Kind, Workload};
use crate::suite::Allocator;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A run that takes longer hangs, seconds.
const PATIENCE: &str = "120";
/// Operations between the marks of a single-stepped program.
const STEPPED: f64 = 32.0;

/// What runs need.
pub struct Runner {
    /// tests/bench/launch.c, compiled.
    pub launch: PathBuf,
    /// A folder for the outputs of one run at a time.
    pub scratch: PathBuf,
}

/// What one run took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds, user and system.
    pub cpu: f64,
    /// Seconds on the clock.
    pub wall: f64,
    pub peak_kib: u64,
    /// What the program itself reported.
    pub figures: BTreeMap<String, f64>,
}

/// A run and what must be the same in every run.
pub struct Run {
    pub sample: Sample,
    pub check: String,
}

/// Runs a workload once on an allocator. `extra` goes before the workload's own arguments.
pub fn run(workload: &Workload, allocator: &Allocator, extra: &[String], runner: &Runner) -> Result<Run> {
    let mut command = Command::new(&runner.launch);
    command.arg(PATIENCE).arg(allocator.library.as_deref().unwrap_or(Path::new("-"))).arg(runner.usage());
    command.arg(&workload.program).args(extra).args(&workload.arguments).current_dir(&workload.folder);
    clean(&mut command);
    let settings = workload.environment.iter().chain(&allocator.environment);
    command.envs(settings.map(|(name, value)| (name, value)));
    let (sample, stdout) = match &workload.kind {
        Kind::Server { socket, clients } => runner.serve(&mut command, socket, clients, &workload.folder)?,
        _ => {
            let child = runner.start(&mut command)?;
            runner.finish(child)?
        }
    };
    understand(workload, allocator, sample, &stdout)
}

/// Reads what the program wrote.
fn understand(workload: &Workload, allocator: &Allocator, mut sample: Sample, stdout: &str) -> Result<Run> {
    let check = match &workload.kind {
        Kind::Own => {
            let (mut check, mut served) = (None, None);
            for line in stdout.lines() {
                let mut words = line.split_whitespace();
                match (words.next(), words.next(), words.next()) {
                    (Some("result"), Some(name), Some(number)) => {
                        let number: f64 = number.parse().with_context(|| format!("no number in {line:?}"))?;
                        ensure!(number.is_finite(), "no finite number in {line:?}");
                        sample.figures.insert(name.to_string(), number);
                    }
                    (Some("check"), Some(word), None) => check = Some(word.to_string()),
                    (Some("served"), Some(file), None) => served = Some(file.to_string()),
                    _ => bail!("{} printed {line:?}", workload.name),
                }
            }
            let served = served.context("the program does not say which allocator served it")?;
            allocator.must_be(&served)?;
            check.context("the program printed no check")?
        }
        Kind::Steps(name) => {
            let steps: f64 = stdout.trim().parse().with_context(|| format!("count printed {stdout:?}"))?;
            sample.figures.insert(name.clone(), (steps / STEPPED).round());
            String::new()
        }
        Kind::Plain => {
            let mut hasher = DefaultHasher::new();
            stdout.hash(&mut hasher);
            format!("{:x}", hasher.finish())
        }
        Kind::Server { .. } => String::new(),
    };
    Ok(Run { sample, check })
}

/// Takes the caller's own settings out of a command's environment.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["ALLOKIT_", "MIMALLOC_", "MALLOC_", "LD_", "_RJEM_", "GLIBC_TUNABLES"]
            .iter()
            .any(|word| text.starts_with(word))
        {
            command.env_remove(&name);
        }
    }
    command.env("LC_ALL", "C");
}

impl Runner {
    fn usage(&self) -> PathBuf {
        self.scratch.join("usage.txt")
    }

    /// Starts the launcher in a process group of its own, the output in files.
    fn start(&self, command: &mut Command) -> Result<Child> {
        let _ = fs::remove_file(self.usage());
        let file = |name| File::create(self.scratch.join(name)).context("cannot write to the scratch folder");
        command.stdin(Stdio::null()).stdout(file("stdout.txt")?).stderr(file("stderr.txt")?).process_group(0);
        command.spawn().with_context(|| format!("cannot run {}", self.launch.display()))
    }

    /// Waits for the end; what it took and what it wrote. Any other ending than 0 is an error.
    fn finish(&self, mut child: Child) -> Result<(Sample, String)> {
        let launched = child.wait().context("cannot wait")?;
        ensure!(launched.signal() != Some(9), "still running after {PATIENCE} s");
        ensure!(launched.success(), "the launcher failed: {launched}");
        let usage = fs::read_to_string(self.usage()).context("the launcher wrote nothing")?;
        let numbers: Vec<u64> = usage.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [status, user, system, peak_kib, wall] = numbers[..] else { bail!("the launcher wrote {usage:?}") };
        let ending = ExitStatus::from_raw(status as i32);
        if !ending.success() {
            let words = fs::read_to_string(self.scratch.join("stderr.txt")).unwrap_or_default();
            let last: Vec<&str> = words.lines().rev().take(3).collect();
            bail!("{ending}: {}", last.join(" | "));
        }
        let cpu = (user + system) as f64 / 1e6;
        let sample = Sample { cpu, wall: wall as f64 / 1e9, peak_kib, figures: BTreeMap::new() };
        let stdout = fs::read(self.scratch.join("stdout.txt")).context("no output")?;
        Ok((sample, String::from_utf8_lossy(&stdout).into_owned()))
    }

    /// Starts a server, asks it, and takes what the server alone took. The last client must end it.
    fn serve(
        &self,
        command: &mut Command,
        socket: &Path,
        clients: &[Vec<String>],
        folder: &Path,
    ) -> Result<(Sample, String)> {
        let _ = fs::remove_file(socket);
        let from = Instant::now();
        let mut child = self.start(command)?;
        let asked = (|| -> Result<()> {
            while !socket.exists() {
                ensure!(from.elapsed() < Duration::from_secs(20), "the server does not come up");
                ensure!(child.try_wait()?.is_none(), "the server ended at once");
                std::thread::sleep(Duration::from_millis(5));
            }
            for client in clients {
                let mut command = Command::new(&client[0]);
                command.args(&client[1..]).current_dir(folder).stdin(Stdio::null());
                clean(&mut command);
                let done = command.output().with_context(|| format!("cannot run {}", client[0]))?;
                ensure!(done.status.success(), "{} failed: {}", client[0], String::from_utf8_lossy(&done.stderr));
            }
            Ok(())
        })();
        if let Err(error) = asked {
            // SAFETY: the group is the launcher's own, made in start(), and the launcher is not reaped before wait().
            unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
            let _ = child.wait();
            return Err(error);
        }
        self.finish(child)
    }
}

/// Runs a program once with the dynamic linker telling what it binds: every allocation function must come from the
/// allocator. For programs that do not check it themselves.
pub fn who_serves(workload: &Workload, allocator: &Allocator, runner: &Runner) -> Result<()> {
    let scratch = &runner.scratch;
    let prefix = scratch.join("bindings");
    let old = || -> Result<Vec<_>> {
        let files = scratch.read_dir()?.flatten().map(|entry| entry.path());
        Ok(files
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("bindings.")))
            .collect())
    };
    for file in old()? {
        fs::remove_file(file)?;
    }
    let mut traced = workload.clone();
    traced.environment.push(("LD_DEBUG".into(), "bindings".into()));
    traced.environment.push(("LD_DEBUG_OUTPUT".into(), prefix.display().to_string()));
    run(&traced, allocator, &[], runner)?;
    let mut seen = 0;
    for file in old()? {
        let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
        let bindings: Vec<Binding> = text.lines().filter_map(bound).collect();
        // The launcher itself runs on the C library.
        if bindings.iter().any(|one| Path::new(one.from) == runner.launch) {
            fs::remove_file(file)?;
            continue;
        }
        let bindings = || bindings.iter().filter(|one| ["malloc", "free", "calloc", "realloc"].contains(&one.symbol));
        for one in bindings() {
            // A program that takes a function's address owns that address (its jump to the function): then it is the
            // program's own binding that counts.
            let jump =
                || bindings().any(|b| b.from == one.to && b.symbol == one.symbol && allocator.must_be(b.to).is_ok());
            if !jump() {
                allocator.must_be(one.to).with_context(|| format!("{} in {}", one.symbol, one.from))?;
            }
            seen += 1;
        }
        fs::remove_file(file)?;
    }
    ensure!(seen > 0, "{} binds no malloc: is it linked statically?", workload.name);
    Ok(())
}

/// A line of the dynamic linker: the calls of `symbol` in `from` go to `to`.
#[derive(Debug, PartialEq)]
struct Binding<'a> {
    from: &'a str,
    to: &'a str,
    symbol: &'a str,
}

/// Reads `binding file A [0] to B [0]: normal symbol `malloc' [GLIBC_2.2.5]`.
fn bound(line: &str) -> Option<Binding<'_>> {
    let (_, rest) = line.split_once("binding file ")?;
    let (from, rest) = rest.split_once(" [0] to ")?;
    let (to, rest) = rest.split_once(" [")?;
    let (_, rest) = rest.split_once("symbol `")?;
    Some(Binding { from, to, symbol: rest.split_once('\'')?.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_read() {
        let line = "   7:\tbinding file /usr/bin/x [0] to /lib/libc.so.6 [0]: normal symbol `malloc' [GLIBC_2.2.5]";
        let right = Binding { from: "/usr/bin/x", to: "/lib/libc.so.6", symbol: "malloc" };
        assert_eq!(bound(line), Some(right));
        assert_eq!(bound("   7:\tcalling init: x"), None);
    }
}
