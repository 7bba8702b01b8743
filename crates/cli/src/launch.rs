//! Starting a program with an Allokit library in the place of its malloc: where the library lies, whether the program will
//! take it, signals in, exit status and use of resources out. For `run`, and for whatever else starts programs.

use crate::data::Sample;
use anyhow::{Context, Result, bail};
use object::{Object, ObjectKind};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Why a program does not run.
#[derive(Debug)]
pub enum NoProgram {
    Missing(String),
    Refused(String),
}

impl fmt::Display for NoProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoProgram::Missing(text) | NoProgram::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for NoProgram {}

/// What stands in for malloc; `system` is the program's own.
pub const BACKENDS: [&str; 4] = ["native", "mimalloc", "jemalloc", "system"];

/// The library of a backend: in ALLOKIT_LIB_DIR, beside where this command is installed, or in the build tree.
pub fn library(backend: &str) -> Result<PathBuf> {
    let name = format!("liballokit_preload_{backend}.so");
    let mut folders: Vec<PathBuf> = Vec::new();
    match std::env::var_os("ALLOKIT_LIB_DIR").filter(|folder| !folder.is_empty()) {
        // Who says where it is does not want another one.
        Some(folder) => folders.push(folder.into()),
        None => {
            let here = std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok());
            let here = here.as_deref().and_then(Path::parent);
            folders.extend(here.map(|bin| bin.join("../lib")));
            for folder in here.into_iter().flat_map(Path::ancestors) {
                // As `cargo xtask lib` names them: native-guard.
                let place = backend.replace('_', "-");
                folders.push(folder.join("allokit").join(&place));
                folders.push(folder.join(place));
            }
        }
    }
    let found = folders.iter().map(|folder| folder.join(&name)).find(|path| path.is_file());
    let found = found.with_context(|| {
        format!(
            "the library {name} is missing: not in {}. Install it (cargo xtask install --prefix DIR), build it (cargo xtask \
             lib --backend {backend}), or set ALLOKIT_LIB_DIR to its folder",
            folders.first().map_or_else(|| "the usual places".into(), |folder| folder.display().to_string())
        )
    })?;
    Ok(found.canonicalize()?)
}

/// The file that a command's name means; an error when it cannot be run, or would run without the library.
pub fn program(name: &OsStr, preloads: bool) -> Result<PathBuf> {
    let refused = |text: String| Err(NoProgram::Refused(text).into());
    let shown = Path::new(name).display();
    let path = if name.as_encoded_bytes().contains(&b'/') {
        PathBuf::from(name)
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let files = std::env::split_paths(&folders).map(|folder| folder.join(name));
        let mut found =
            files.filter(|file| file.metadata().is_ok_and(|about| about.is_file() && about.mode() & 0o111 != 0));
        let Some(path) = found.next() else {
            let hint = if Path::new(name).is_file() {
                format!("; for the file in this folder: ./{shown}")
            } else {
                String::new()
            };
            return Err(NoProgram::Missing(format!("cannot find {shown} in PATH{hint}")).into());
        };
        path
    };
    let about = match path.metadata() {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(NoProgram::Missing(format!("there is no program {shown}")).into());
        }
        Err(error) => return refused(format!("cannot run {shown}: {error}")),
    };
    if !about.is_file() {
        return refused(format!("cannot run {shown}: it is no file"));
    }
    if about.mode() & 0o111 == 0 {
        return refused(format!("cannot run {shown}: it is not executable (chmod +x, or name its interpreter)"));
    }
    if preloads {
        takes_a_library(&path, &about, 0)?;
    }
    Ok(path)
}

/// Whether the loader will put a library before the program's own.
fn takes_a_library(path: &Path, about: &fs::Metadata, depth: u32) -> Result<()> {
    let shown = path.display();
    let refused = |text: String| Err(NoProgram::Refused(text).into());
    // SAFETY: no preconditions.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if about.mode() & libc::S_ISUID != 0 && about.uid() != user
        || about.mode() & libc::S_ISGID != 0 && about.gid() != group
    {
        return refused(format!(
            "{shown} is set-user-id or set-group-id: the loader takes no library for it from the environment. Run a copy \
             without that (cp), or as its owner"
        ));
    }
    // The head is enough for all but the table of program headers, which lies right behind it.
    let mut head = Vec::new();
    let opened = fs::File::open(path).and_then(|file| file.take(64 << 10).read_to_end(&mut head));
    if opened.is_err() {
        // May be run and not read.
        return Ok(());
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or(line)).into_owned();
        if let Some(interpreter) = line.split_whitespace().next().map(Path::new)
            && depth < 4
            && let Ok(about) = interpreter.metadata()
        {
            return takes_a_library(interpreter, &about, depth + 1);
        }
        return Ok(());
    }
    let Ok(whole) = fs::read(path) else { return Ok(()) };
    let Ok(file) = object::File::parse(&*whole) else { return Ok(()) };
    if !file.is_64() {
        return refused(format!("{shown} is a 32-bit program, and the libraries are of 64 bits"));
    }
    let ours = if cfg!(target_arch = "x86_64") { object::Architecture::X86_64 } else { object::Architecture::Aarch64 };
    if file.architecture() != ours {
        return refused(format!("{shown} is a program for another machine ({:?})", file.architecture()));
    }
    if !has_interpreter(&whole) {
        let kind = if file.kind() == ObjectKind::Dynamic { "linked statically (PIE)" } else { "linked statically" };
        return refused(format!(
            "{shown} is {kind}: no library can be put before its own. Link it with liballokit_<backend>.a and \
             alloc_override.h (docs/moving.md), or link it dynamically; `--backend system` runs it as it is"
        ));
    }
    Ok(())
}

/// Whether the file asks for the loader.
fn has_interpreter(whole: &[u8]) -> bool {
    use object::read::elf::{FileHeader, ProgramHeader};
    let Ok(header) = object::elf::FileHeader64::<object::Endianness>::parse(whole) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let headers = header.program_headers(endian, whole).unwrap_or(&[]);
    headers.iter().any(|header| header.p_type(endian) == object::elf::PT_INTERP)
}

/// The library first, then what the user preloads already.
pub fn preload(library: &Path) -> OsString {
    let mut all = library.as_os_str().to_owned();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    all
}

/// How a program went.
#[derive(Debug)]
pub struct Done {
    pub pid: u32,
    pub status: ExitStatus,
    pub wall: Duration,
    /// User and system, of the program and of those that it has waited for.
    pub cpu: Duration,
    pub peak_resident: u64,
    pub samples: Vec<Sample>,
}

static CHILD: AtomicI32 = AtomicI32::new(0);
/// A signal that came while there was no program yet.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// A signal to this command that is meant for the program: one that was sent to this process. What comes from the terminal
/// has reached the program already.
extern "C" fn pass_on(signal: i32, about: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let child = CHILD.load(Ordering::Relaxed);
    // SAFETY: the kernel fills the struct; kill may be called in a handler.
    unsafe {
        if !about.is_null() && (*about).si_code <= 0 {
            if child > 0 {
                libc::kill(child, signal);
            } else {
                EARLY.store(signal, Ordering::Relaxed);
            }
        }
    }
}

fn pass_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: the struct is filled; a program that is started gets the default back, as for every handler.
        unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut old);
            if old.sa_sigaction == libc::SIG_IGN {
                // nohup: the program is to ignore it too.
                continue;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = pass_on as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Runs a program to its end. Its resident memory is looked at every few milliseconds when `sample` is said.
pub fn run(command: &mut Command, sample: bool) -> Result<Done> {
    pass_signals();
    let start = Instant::now();
    let child = command.spawn().map_err(|error| {
        let name = Path::new(command.get_program()).display();
        let text = format!("cannot run {name}: {error}");
        if error.kind() == ErrorKind::NotFound { NoProgram::Missing(text) } else { NoProgram::Refused(text) }
    })?;
    let pid = child.id();
    CHILD.store(pid.cast_signed(), Ordering::SeqCst);
    let early = EARLY.swap(0, Ordering::SeqCst);
    if early != 0 {
        // SAFETY: the child has not been waited for.
        unsafe { libc::kill(pid.cast_signed(), early) };
    }
    let stop = Arc::new(AtomicBool::new(false));
    let samples = Arc::new(Mutex::new(Vec::new()));
    let sampler = sample.then(|| {
        let (stop, samples) = (stop.clone(), samples.clone());
        std::thread::spawn(move || take_samples(pid, start, &stop, &samples))
    });
    let (mut status, mut usage) = (0, unsafe_zeroed_usage());
    loop {
        // SAFETY: both are ours; the child has not been waited for.
        let ended = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
        if ended == pid.cast_signed() {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            bail!("cannot wait for the program: {error}");
        }
    }
    let wall = start.elapsed();
    CHILD.store(0, Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    if let Some(sampler) = sampler {
        let _ = sampler.join();
    }
    let time =
        |time: libc::timeval| Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64);
    let samples = std::mem::take(&mut *samples.lock().unwrap_or_else(|poison| poison.into_inner()));
    Ok(Done {
        pid,
        status: ExitStatus::from_raw(status),
        wall,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_resident: usage.ru_maxrss as u64 * 1024,
        samples,
    })
}

fn unsafe_zeroed_usage() -> libc::rusage {
    // SAFETY: a struct of numbers.
    unsafe { std::mem::zeroed() }
}

/// At most so many samples: then every other goes, and the next ones come half as often.
const SAMPLES: usize = 1000;

fn take_samples(pid: u32, start: Instant, stop: &AtomicBool, samples: &Mutex<Vec<Sample>>) {
    let path = CString::new(format!("/proc/{pid}/statm")).unwrap_or_default();
    let path = path.to_str().unwrap_or("");
    // SAFETY: no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let mut pause = Duration::from_millis(2);
    while !stop.load(Ordering::Relaxed) {
        let resident = fs::read_to_string(path).ok();
        let pages = resident.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
        // A program that has ended has none.
        if let Some(pages) = pages.filter(|pages| *pages > 0) {
            let ms = start.elapsed().as_millis() as u64;
            let mut samples = samples.lock().unwrap_or_else(|poison| poison.into_inner());
            samples.push(Sample { ms, resident_bytes: Some(pages * page), ..Sample::default() });
            if samples.len() >= SAMPLES {
                let mut index = 0;
                samples.retain(|_| (index % 2 == 0, index += 1).0);
                pause *= 2;
            }
        }
        std::thread::sleep(pause);
    }
}

/// Ends as the program did: with its status, or by its signal.
pub fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // SAFETY: no core of this command; the signal's default action ends it.
        unsafe {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return ExitCode::from(128u8.wrapping_add(signal as u8));
    }
    ExitCode::from(status.code().unwrap_or(1) as u8)
}
