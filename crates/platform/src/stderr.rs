//! Text for a person, on stderr, without the allocator: buffered on the stack, written at once.

use core::fmt;

/// A buffered writer to stderr. Text of up to 4 KiB leaves in one `write`, so that threads' lines do not mix. Keeps
/// `errno`. Flushed when dropped.
#[derive(Debug)]
pub struct Stderr {
    fd: i32,
    buffer: [u8; 4096],
    used: usize,
}

impl Stderr {
    /// An empty buffer.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Stderr {
        Stderr::to(libc::STDERR_FILENO)
    }

    /// The same, to another file that stays open meanwhile.
    #[must_use]
    pub fn to(fd: i32) -> Stderr {
        Stderr { fd, buffer: [0; 4096], used: 0 }
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) {
        write_all(self.fd, &self.buffer[..self.used]);
        self.used = 0;
    }
}

impl fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.used == self.buffer.len() {
                self.flush();
            }
            let taken = rest.len().min(self.buffer.len() - self.used);
            self.buffer[self.used..self.used + taken].copy_from_slice(&rest[..taken]);
            self.used += taken;
            rest = &rest[taken..];
        }
        Ok(())
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes all of `bytes` to a file descriptor, as far as it takes them; false when it does not. Keeps `errno`.
pub fn write_all(fd: i32, bytes: &[u8]) -> bool {
    try_write_all(fd, bytes).is_ok()
}

/// The same, with the system's reason.
pub(crate) fn try_write_all(fd: i32, bytes: &[u8]) -> Result<(), i32> {
    let _errno = crate::errno::Saved::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the pointer and length are those of a slice.
        let written = unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) };
        if written > 0 {
            rest = &rest[written as usize..];
        } else if written == 0 {
            return Err(libc::EIO);
        } else if crate::errno::get() != libc::EINTR {
            return Err(crate::errno::get());
        }
    }
    Ok(())
}
