//! Numbers that nobody outside the process can guess.

/// 64 random bits, from the system; where it has none ready, from what differs between runs of a program.
#[must_use]
pub fn secret() -> u64 {
    let mut bits = 0u64;
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    // SAFETY: eight writable bytes; the flag keeps the call from waiting.
    let got = unsafe { libc::syscall(libc::SYS_getrandom, &raw mut bits, size_of::<u64>(), 1) } == 8;
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
    let got = false;
    if !got {
        bits = (crate::clock::unix_ns() as u64) ^ (&raw const bits).addr() as u64;
        #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
        {
            // SAFETY: the kernel gives the address of 16 random bytes, or 0.
            let random = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize;
            if random != 0 {
                // SAFETY: as above.
                bits ^= unsafe { core::ptr::with_exposed_provenance::<u64>(random).read_unaligned() };
            }
        }
    }
    // SplitMix64's finish, so that few bits that differ become many.
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(not(miri))]
    fn no_two_are_alike() {
        assert_ne!(super::secret(), super::secret());
    }
}
