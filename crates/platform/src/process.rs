//! What a report says of the process it is about.

/// The number of this process.
#[must_use]
pub fn id() -> u32 {
    // SAFETY: getpid cannot fail.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// The path of the program, as far as it fits; empty where the system does not tell. Does not allocate.
pub fn program(buffer: &mut [u8]) -> &[u8] {
    if cfg!(miri) || !cfg!(any(target_os = "linux", target_os = "android")) {
        return &[];
    }
    let _errno = crate::errno::Saved::new();
    // SAFETY: the path is zero-terminated, the buffer as long as said; readlink writes no zero byte.
    let length = unsafe { libc::readlink(c"/proc/self/exe".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    &buffer[..usize::try_from(length).unwrap_or(0)]
}

/// Resident memory in bytes, where the system tells it. Does not allocate.
#[must_use]
pub fn resident() -> Option<u64> {
    if cfg!(miri) || !cfg!(any(target_os = "linux", target_os = "android")) {
        return None;
    }
    let _errno = crate::errno::Saved::new();
    let mut text = [0u8; 128];
    // SAFETY: the path is zero-terminated, the buffer as long as said, the descriptor ours.
    let length = unsafe {
        let fd = libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let length = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        usize::try_from(length).ok()?
    };
    // In pages: the size of the program, and what of it is resident.
    let pages: u64 = core::str::from_utf8(&text[..length]).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * crate::pages::os_page() as u64)
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    #[test]
    fn the_process_is_this_one() {
        assert!(super::resident().unwrap() > 100_000);
        assert_eq!(super::id(), std::process::id());
        let mut buffer = [0; 4096];
        let here = std::env::current_exe().unwrap();
        assert_eq!(super::program(&mut buffer), here.as_os_str().as_encoded_bytes());
        assert_eq!(super::program(&mut [0; 4]), &here.as_os_str().as_encoded_bytes()[..4]);
    }
}
