//! Where and when a measurement was taken.

use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::fs;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub libc: String,
    /// UTC.
    pub date: String,
    /// With `-dirty` when the working tree differs from it.
    pub commit: String,
    /// Over one minute, before the first run: above a few tenths the machine was not quiet.
    pub load_before: f64,
}

impl Machine {
    /// This machine, now; `root` is the repository.
    pub fn here(root: &Path) -> Machine {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        let unknown = || "unknown".to_string();
        let memory = after(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
        // SAFETY: returns a static string.
        let libc = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
        Machine {
            cpu: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
            libc: format!("glibc {}", libc.to_string_lossy()),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"], root).unwrap_or_else(unknown),
            commit: said("git", &["describe", "--always", "--dirty", "--exclude=*"], root).unwrap_or_else(unknown),
            load_before: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

fn said(program: &str, arguments: &[&str], folder: &Path) -> Option<String> {
    let done = Command::new(program).args(arguments).current_dir(folder).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_string())
}
