//! Whether each check is on. In a product build all are, and this is nothing; a build with the feature `mutants` reads
//! ALLOKIT_MUTE, so that a test can show that without the check its bug is missed.

/// The checks that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Check {
    /// Canaries.
    Overflow,
    /// Headers, and what lies before blocks.
    Underflow,
    /// Double and invalid frees.
    InvalidFree,
    /// The quarantine is clear.
    WriteAfterFree,
    /// Sized frees.
    Size,
    /// malloc, new, new[].
    Mismatch,
    /// Blocks of no bytes lie where nothing can be read.
    Zero,
    /// The functions of `checked`.
    Copy,
    /// Large blocks have pages of their own.
    Pages,
}

#[cfg(feature = "mutants")]
static MUTED: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

impl Check {
    /// Whether it is on.
    #[inline(always)]
    #[must_use]
    pub fn is_on(self) -> bool {
        #[cfg(feature = "mutants")]
        {
            MUTED.load(core::sync::atomic::Ordering::Relaxed) & 1 << self as u8 == 0
        }
        #[cfg(not(feature = "mutants"))]
        true
    }
}

/// Reads what is to be switched off.
pub(crate) fn read() {
    #[cfg(feature = "mutants")]
    if let Some(value) = allokit_platform::env::var(c"ALLOKIT_MUTE") {
        const NAMES: [&[u8]; 9] = [
            b"overflow",
            b"underflow",
            b"invalid-free",
            b"write-after-free",
            b"size",
            b"mismatch",
            b"zero",
            b"copy",
            b"pages",
        ];
        for word in value.to_bytes().split(|byte| *byte == b',') {
            if let Some(number) = NAMES.iter().position(|name| *name == word) {
                MUTED.fetch_or(1 << number, core::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}
