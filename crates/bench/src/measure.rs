//! One run of one program: what it took and what it said.
//!
//! CPU time and peak memory are the kernel's own account of the process and the children that it waited for (wait4).

use crate::plan::{Kind, Workload};
use crate::suite::Allocator;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Operations between the marks of a single-stepped program.
const STEPPED: f64 = 32.0;

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
pub fn run(workload: &Workload, allocator: &Allocator, extra: &[String], scratch: &Path) -> Result<Run> {
    let mut command = Command::new(&workload.program);
    command.args(extra).args(&workload.arguments).current_dir(&workload.folder);
    clean(&mut command);
    command.envs(workload.environment.iter().map(|(name, value)| (name, value)));
    allocator.preload(&mut command);
    let (sample, stdout) = match &workload.kind {
        Kind::Server { socket, clients } => serve(&mut command, socket, clients, &workload.folder, scratch)?,
        _ => timed(&mut command, scratch)?,
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
        Kind::Plain => stdout.to_string(),
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

/// Starts a program in a process group of its own, its output in files.
fn start(command: &mut Command, scratch: &Path) -> Result<Child> {
    let (stdout, stderr) = (scratch.join("stdout.txt"), scratch.join("stderr.txt"));
    command.stdin(Stdio::null()).stdout(File::create(stdout)?).stderr(File::create(stderr)?).process_group(0);
    command.spawn().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))
}

/// Runs a program to its end; what it took and what it wrote. Any other ending than 0 is an error.
fn timed(command: &mut Command, scratch: &Path) -> Result<(Sample, String)> {
    let from = Instant::now();
    let child = start(command, scratch)?;
    finish(child, from, scratch)
}

/// Waits for a program's end.
fn finish(child: Child, from: Instant, scratch: &Path) -> Result<(Sample, String)> {
    let pid = child.id() as libc::pid_t;
    let in_time = ends_in_time(pid);
    if !in_time {
        // SAFETY: the group is the child's own, made in start(), and the child is not reaped yet.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage, a struct of plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of this frame; the child is ours, and std has not waited for it.
        if unsafe { libc::wait4(pid, &mut status, 0, &mut usage) } >= 0 {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("wait4");
        }
    }
    let wall = from.elapsed().as_secs_f64();
    ensure!(in_time, "still running after {} s", PATIENCE.as_secs());
    let ending = ExitStatus::from_raw(status);
    if !ending.success() {
        let words = fs::read_to_string(scratch.join("stderr.txt")).unwrap_or_default();
        bail!("{ending}: {}", words.lines().rev().take(3).collect::<Vec<_>>().join(" | "));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let sample = Sample {
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        wall,
        peak_kib: usage.ru_maxrss as u64,
        figures: BTreeMap::new(),
    };
    let stdout = fs::read(scratch.join("stdout.txt")).context("no output")?;
    Ok((sample, String::from_utf8_lossy(&stdout).into_owned()))
}

/// Waits, without using the processor, until the child ends or the patience does.
fn ends_in_time(pid: libc::pid_t) -> bool {
    // SAFETY: takes a process id and no pointer; returns a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int;
    if fd < 0 {
        // A kernel before 5.3: wait4 alone, without a limit.
        return true;
    }
    let until = Instant::now() + PATIENCE;
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let ended = loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis() as libc::c_int;
        // SAFETY: one pollfd of this frame.
        match unsafe { libc::poll(&mut poll, 1, left) } {
            0 => break false,
            ready if ready > 0 => break true,
            _ => {}
        }
    };
    // SAFETY: the descriptor is ours and closed once.
    unsafe { libc::close(fd) };
    ended
}

/// Starts a server, asks it, and takes what the server alone took. The last client must end it.
fn serve(
    command: &mut Command,
    socket: &Path,
    clients: &[Vec<String>],
    folder: &Path,
    scratch: &Path,
) -> Result<(Sample, String)> {
    let _ = fs::remove_file(socket);
    let from = Instant::now();
    let mut child = start(command, scratch)?;
    let asked = (|| -> Result<()> {
        while !socket.exists() {
            ensure!(from.elapsed() < Duration::from_secs(10), "the server does not come up");
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
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    finish(child, from, scratch)
}

/// Runs a program once with the dynamic linker telling what it binds: every allocation function must come from the
/// allocator. For programs that do not check it themselves.
pub fn who_serves(workload: &Workload, allocator: &Allocator, scratch: &Path) -> Result<()> {
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
    run(&traced, allocator, &[], scratch)?;
    let mut seen = 0;
    for file in old()? {
        let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
        for (symbol, from) in text.lines().filter_map(bound) {
            if ["malloc", "free", "calloc", "realloc"].contains(&symbol) {
                allocator.must_be(from).with_context(|| format!("{symbol} of a process of {}", workload.name))?;
                seen += 1;
            }
        }
        fs::remove_file(file)?;
    }
    ensure!(seen > 0, "{} binds no malloc: is it linked statically?", workload.name);
    Ok(())
}

/// The symbol and the file of a line `binding file A [0] to B [0]: normal symbol `malloc' [GLIBC_2.2.5]`.
fn bound(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("binding file ")?;
    let (_, rest) = rest.split_once(" to ")?;
    let (file, rest) = rest.split_once(" [")?;
    let (_, rest) = rest.split_once("symbol `")?;
    Some((rest.split_once('\'')?.0, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_read() {
        let line = "   7:\tbinding file /usr/bin/x [0] to /lib/libc.so.6 [0]: normal symbol `malloc' [GLIBC_2.2.5]";
        assert_eq!(bound(line), Some(("malloc", "/lib/libc.so.6")));
        assert_eq!(bound("   7:\tcalling init: x"), None);
    }
}
