//! The 16 bytes right before a tracked block's payload: whose block it is, how large, and a checksum.
//!
//! ```text
//! word 0:  site 32 | epoch 24 | log2 of the distance from the backend's block to the payload 8
//! word 1:  size asked for 48 | checksum 16, bound to the payload's address
//! ```
//! Written while the block is nobody else's, read while it is live and taken or pinned (see `live`): never a race.

use allokit_core::Tag;
use allokit_platform::clock;
#[cfg(feature = "guard")]
use core::sync::atomic::{AtomicPtr, AtomicUsize};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes before the payload.
pub const SIZE: usize = 16;
/// The largest size that the header can hold; more than any machine can map.
pub const MAX_SIZE: usize = (1 << 48) - 1;
/// The epoch wraps here: after 2^24 marks a very old block counts as new.
pub(crate) const EPOCH_MASK: u32 = (1 << 24) - 1;

static EPOCH: AtomicU32 = AtomicU32::new(0);
/// The stretch that [`mark`] has begun; later ones were begun by snapshots of growth.
static MARKED: AtomicU32 = AtomicU32::new(0);
/// When the last stretches began, in ms of the platform's clock.
static STARTS: [AtomicU64; STARTS_KEPT] = [const { AtomicU64::new(0) }; STARTS_KEPT];
const STARTS_KEPT: usize = 64;
/// The tag of a live block of now, without its site and size.
static LIVE: AtomicU64 = AtomicU64::new(Tag::live(0).0);

/// The stretch between two marks in which blocks are allocated now.
#[inline]
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed) & EPOCH_MASK
}

/// Begins a new epoch, and gives its number.
pub(crate) fn next_epoch() -> u32 {
    let epoch = EPOCH.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    STARTS[epoch as usize % STARTS_KEPT].store(clock::now_ms(), Ordering::Relaxed);
    LIVE.store(Tag::live(epoch).0, Ordering::Relaxed);
    epoch
}

/// Begins a new epoch, from which "since the mark" counts.
pub(crate) fn mark() {
    MARKED.store(next_epoch(), Ordering::Relaxed);
}

/// How many epochs have begun since the mark, that one not counted.
pub(crate) fn since_mark() -> u32 {
    EPOCH.load(Ordering::Relaxed).wrapping_sub(MARKED.load(Ordering::Relaxed))
}

/// How long ago, in ms, the epoch of this age ended: the least age of its blocks. `None` where that is forgotten.
pub(crate) fn ended_ms_ago(age: u32) -> Option<u64> {
    let now = EPOCH.load(Ordering::Relaxed);
    match age {
        0 => Some(0),
        age if age as usize > STARTS_KEPT || age > now => None,
        age => {
            let started = STARTS[now.wrapping_sub(age - 1) as usize % STARTS_KEPT].load(Ordering::Relaxed);
            Some(clock::now_ms().saturating_sub(started))
        }
    }
}

/// The tag of a block that is allocated now, without its site and size.
#[inline(always)]
pub(crate) fn live() -> Tag {
    Tag(LIVE.load(Ordering::Relaxed))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub site: u32,
    pub epoch: u32,
    /// From the backend's block to the payload, in bytes: a power of two, at least [`SIZE`].
    pub offset: usize,
    pub size: usize,
}

/// What the guarding layer adds: a secret in every checksum, and blocks whose header lies elsewhere.
#[cfg(feature = "guard")]
pub mod guard {
    use super::*;

    /// Mixed into every checksum; set before the first block.
    pub static KEY: AtomicU64 = AtomicU64::new(0);
    static START: AtomicUsize = AtomicUsize::new(0);
    static LENGTH: AtomicUsize = AtomicUsize::new(0);
    static WORDS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

    /// Where the two words of a block with this payload are.
    pub type Words = fn(usize) -> *mut u64;

    /// From now on `words` tells where the headers of the payloads in `start..start + length` are.
    pub fn keep_elsewhere(start: usize, length: usize, words: Words) {
        WORDS.store(words as *mut (), Ordering::Relaxed);
        START.store(start, Ordering::Relaxed);
        LENGTH.store(length, Ordering::Release);
    }

    /// Whether the header of this payload lies elsewhere.
    #[inline(always)]
    pub fn is_elsewhere(payload: usize) -> bool {
        payload.wrapping_sub(START.load(Ordering::Relaxed)) < LENGTH.load(Ordering::Acquire)
    }

    #[cold]
    pub(super) fn words(payload: usize) -> *const u64 {
        // SAFETY: set to a function of this type before the length.
        let words: Words = unsafe { core::mem::transmute(WORDS.load(Ordering::Relaxed)) };
        words(payload)
    }

    /// The checksum of the two words, for who writes them.
    #[inline(always)]
    #[must_use]
    pub fn checksum(payload: *const u8, word: u64, size: u64) -> u64 {
        super::checksum(payload, word, size)
    }
}

#[cfg(feature = "guard")]
#[inline(always)]
fn key() -> u64 {
    guard::KEY.load(Ordering::Relaxed)
}

#[cfg(not(feature = "guard"))]
#[inline(always)]
fn key() -> u64 {
    0
}

/// Where the header of a live block is.
#[inline(always)]
fn words(payload: *const u8) -> *const u64 {
    #[cfg(feature = "guard")]
    if guard::is_elsewhere(payload.addr()) {
        return guard::words(payload.addr());
    }
    payload.wrapping_sub(SIZE).cast()
}

/// 16 bits that change, with all but certainty, when either word does or when the header is moved elsewhere.
#[inline]
fn checksum(payload: *const u8, word: u64, size: u64) -> u64 {
    let mixed =
        (word ^ key() ^ (payload.addr() as u64 >> 4)).wrapping_add(size.rotate_left(33)) ^ 0x5851_f42d_4c95_7f2d;
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48
}

/// # Safety
/// The 16 bytes before `payload` (16-aligned) belong to the caller.
#[inline]
pub(crate) unsafe fn write(payload: *mut u8, header: Header) {
    let word = u64::from(header.site) | u64::from(header.epoch) << 32 | u64::from(header.offset.trailing_zeros()) << 56;
    let size = header.size as u64;
    // SAFETY: the caller's promise.
    unsafe {
        let words = payload.sub(SIZE).cast::<u64>();
        words.write(word);
        words.add(1).write(size | checksum(payload, word, size) << 48);
    }
}

/// The header, or `None` when it is not what was written.
///
/// # Safety
/// `payload` is a tracked block that nobody else frees, resizes or writes a header for meanwhile.
#[inline]
pub unsafe fn read(payload: *const u8) -> Option<Header> {
    // SAFETY: the caller's promise.
    let (word, second) = unsafe {
        let words = words(payload);
        (words.read(), words.add(1).read())
    };
    let size = second & MAX_SIZE as u64;
    if second >> 48 != checksum(payload, word, size) {
        return None;
    }
    let offset = 1usize.wrapping_shl((word >> 56) as u32);
    Some(Header { site: word as u32, epoch: (word >> 32) as u32 & EPOCH_MASK, offset, size: size as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        #[repr(align(16))]
        struct Block([u8; 48]);
        let mut block = Block([0; 48]);
        // SAFETY: 16 bytes into the block.
        let payload = unsafe { block.0.as_mut_ptr().add(SIZE) };
        let header = Header { site: 0x89ab_cdef, epoch: 0xff_fffe, offset: 1 << 30, size: MAX_SIZE - 5 };
        // SAFETY: the block is ours.
        unsafe {
            for header in [header, Header { site: 0, epoch: 0, offset: SIZE, size: 0 }] {
                write(payload, header);
                assert_eq!(read(payload), Some(header));
                for bit in 0..128 {
                    let byte = payload.sub(SIZE).add(bit / 8);
                    *byte ^= 1 << (bit % 8);
                    assert_eq!(read(payload), None, "bit {bit}");
                    *byte ^= 1 << (bit % 8);
                }
                // The same header at another address is wrong too.
                payload.copy_from(payload.sub(SIZE), SIZE);
                assert_eq!(read(payload.add(SIZE)), None);
            }
        }
    }
}
