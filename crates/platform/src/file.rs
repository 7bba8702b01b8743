//! A file to write a report to, without the allocator.

use core::ffi::CStr;
use core::fmt;

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

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::ffi::CString;
    use std::format;

    #[test]
    #[cfg(not(miri))]
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
