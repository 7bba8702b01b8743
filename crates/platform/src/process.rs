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

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    #[test]
    fn the_process_is_this_one() {
        assert_eq!(super::id(), std::process::id());
        let mut buffer = [0; 4096];
        let here = std::env::current_exe().unwrap();
        assert_eq!(super::program(&mut buffer), here.as_os_str().as_encoded_bytes());
        assert_eq!(super::program(&mut [0; 4]), &here.as_os_str().as_encoded_bytes()[..4]);
    }
}
