//! A file to write a report to, without the allocator.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

/// A new or emptied file. What is written leaves at once; closed when dropped.
#[derive(Debug)]
pub struct File {
    fd: i32,
}

impl File {
    /// Creates the file or empties it; `None` when the system refuses (`errno` says why).
    #[must_use]
    pub fn create(path: &CStr) -> Option<File> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: the path is zero-terminated.
        let fd = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
        if fd < 0 { None } else { Some(File { fd }) }
    }

    /// Opens the file to add to it, made if there is none; `None` when the system refuses (`errno` says why).
    #[must_use]
    pub fn append(path: &CStr) -> Option<File> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: the path is zero-terminated.
        let fd = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
        if fd < 0 { None } else { Some(File { fd }) }
    }

    /// Its descriptor, which stays open as long as this lives.
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.fd
    }
}

impl fmt::Write for File {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if crate::stderr::write_all(self.fd, text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(self.fd) };
    }
}

/// The first `bytes` of a file that is there and has as many, in memory that the file follows, also when the process is
/// killed; null when that cannot be. For good.
#[must_use]
pub fn map_shared(path: &CStr, bytes: usize) -> *mut u8 {
    if cfg!(miri) {
        return core::ptr::null_mut();
    }
    // SAFETY: the path is zero-terminated; the struct is filled before it is read; a fresh mapping replaces nothing.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if fd < 0 {
            return core::ptr::null_mut();
        }
        let mut about = MaybeUninit::<libc::stat>::uninit();
        let long_enough = libc::fstat(fd, about.as_mut_ptr()) == 0
            && usize::try_from(about.assume_init().st_size).is_ok_and(|size| size >= bytes);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let start = if long_enough {
            libc::mmap(core::ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0)
        } else {
            libc::MAP_FAILED
        };
        libc::close(fd);
        if start == libc::MAP_FAILED { core::ptr::null_mut() } else { start.cast() }
    }
}

/// A report on its way to a file: it is written beside it and takes its name when it is whole, so that a full disk, or the
/// end of the process, leaves no half file under that name. A path that names no ordinary file (`/dev/stderr`, a pipe, a
/// link) is written to as it is. Buffered.
#[derive(Debug)]
pub struct Draft<'a> {
    file: File,
    path: &'a CStr,
    /// The name that it has until then; none when it is written in place.
    beside: Option<[u8; PATH_MOST]>,
    buffer: [u8; 2048],
    used: usize,
    /// The first failure's `errno`, else 0.
    failure: i32,
}

const PATH_MOST: usize = 4096;

/// A path that is put together; its last byte stays 0.
struct Name {
    bytes: [u8; PATH_MOST],
    used: usize,
}

impl Name {
    fn add(&mut self, bytes: &[u8]) -> fmt::Result {
        if self.used + bytes.len() >= PATH_MOST {
            return Err(fmt::Error);
        }
        self.bytes[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
        Ok(())
    }
}

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes())
    }
}

impl Draft<'_> {
    /// Begins a report; `None` when the system refuses (`errno` says why).
    #[must_use]
    pub fn begin(path: &CStr) -> Option<Draft<'_>> {
        let bytes = path.to_bytes();
        let mut beside = None;
        if is_ordinary(path) {
            let mut name = Name { bytes: [0; PATH_MOST], used: 0 };
            // Of its own: the processes of one program, and threads, may all report to one path; the last one stays.
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            // SAFETY: getpid cannot fail.
            let process = unsafe { libc::getpid() };
            if name.add(bytes).is_err() || write!(name, ".{process}.{count}.part").is_err() {
                crate::errno::set(libc::ENAMETOOLONG);
                return None;
            }
            beside = Some(name.bytes);
        }
        let file = match &beside {
            // Ends with a zero byte: so much room is left.
            Some(name) => File::create(CStr::from_bytes_until_nul(name).ok()?)?,
            None => File::create(path)?,
        };
        Some(Draft { file, path, beside, buffer: [0; 2048], used: 0, failure: 0 })
    }

    /// Adds bytes; whether all went well is told at the end.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.used == self.buffer.len() {
                self.flush();
            }
            let taken = rest.len().min(self.buffer.len() - self.used);
            self.buffer[self.used..self.used + taken].copy_from_slice(&rest[..taken]);
            self.used += taken;
            rest = &rest[taken..];
        }
    }

    fn flush(&mut self) {
        if let Err(why) = crate::stderr::try_write_all(self.file.fd, &self.buffer[..self.used])
            && self.failure == 0
        {
            self.failure = why;
        }
        self.used = 0;
    }

    /// Gives the report its name. False, with `errno`, when something could not be written: then what was there before
    /// stays.
    #[must_use]
    pub fn finish(mut self) -> bool {
        self.flush();
        if self.failure != 0 {
            crate::errno::set(self.failure);
            return false;
        }
        if let Some(name) = &self.beside {
            // SAFETY: both are zero-terminated.
            if unsafe { libc::rename(name.as_ptr().cast::<c_char>(), self.path.as_ptr()) } != 0 {
                return false;
            }
            self.beside = None;
        }
        true
    }
}

impl fmt::Write for Draft<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.beside {
            let _errno = crate::errno::Saved::new();
            // SAFETY: zero-terminated.
            unsafe { libc::unlink(name.as_ptr().cast::<c_char>()) };
        }
    }
}

/// Whether a path names an ordinary file (a link to one is to stay a link), or nothing yet.
fn is_ordinary(path: &CStr) -> bool {
    let mut about = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is zero-terminated; the struct is read only when it was filled.
    unsafe {
        libc::lstat(path.as_ptr(), about.as_mut_ptr()) != 0
            || about.assume_init().st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_report_takes_its_name_when_it_is_whole() {
        let path = std::env::temp_dir().join(format!("allokit-draft-{}", std::process::id()));
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let part = |draft: &Draft<'_>| {
            let bytes = draft.beside.unwrap();
            std::path::PathBuf::from(CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap())
        };
        std::fs::write(&path, "before").unwrap();
        let mut draft = Draft::begin(&name).unwrap();
        let mut other = Draft::begin(&name).unwrap();
        let (of_draft, of_other) = (part(&draft), part(&other));
        let long = "x".repeat(5000);
        draft.write_str(&long).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert!(of_draft.exists() && of_other.exists());
        drop(draft);
        assert!(!of_draft.exists());
        other.add(long.as_bytes());
        assert!(other.finish());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), long);
        assert!(!of_other.exists());
        std::fs::remove_file(&path).unwrap();
        let mut full = Draft::begin(c"/dev/full").unwrap();
        full.add(b"text");
        assert!(!full.finish());
        assert_eq!(crate::errno::get(), libc::ENOSPC);
        assert!(Draft::begin(c"/nonexistent/directory/file").is_none());
    }
    use std::ffi::CString;
    use std::format;

    #[test]
    fn writes_and_empties() {
        let path = std::env::temp_dir().join(format!("allokit-file-{}", std::process::id()));
        let name = CString::new(path.to_str().unwrap()).unwrap();
        for text in ["first, longer", "second"] {
            File::create(&name).unwrap().write_str(text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(File::create(c"/nonexistent/directory/file").is_none());
    }
}
