//! A careful look at memory that may not be there, and at where libc's own heap is.

/// The two words at `addr`, or `None` when they cannot be read.
#[must_use]
pub fn words(addr: usize) -> Option<[usize; 2]> {
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    {
        let mut found = [0usize; 2];
        let length = size_of_val(&found);
        let here = libc::iovec { iov_base: found.as_mut_ptr().cast(), iov_len: length };
        let there = libc::iovec { iov_base: core::ptr::without_provenance_mut(addr), iov_len: length };
        // SAFETY: the kernel looks, and says so when there is nothing; what it writes to is ours.
        let got = unsafe { libc::process_vm_readv(libc::getpid(), &raw const here, 1, &raw const there, 1, 0) };
        (got == length as isize).then_some(found)
    }
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
    {
        let _ = addr;
        None
    }
}

/// Where the program's break is: libc's first heap ends there.
#[must_use]
pub fn program_break() -> usize {
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    // SAFETY: asks, and changes nothing.
    return unsafe { libc::sbrk(0) }.addr();
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
    0
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn what_is_not_there_is_none() {
        let words = [7usize, 8];
        assert_eq!(super::words(words.as_ptr().addr()), Some([7, 8]));
        assert_eq!(super::words(16), None);
    }
}
