//! A short text that may be compared while it is changed.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const ROOM: usize = 256;

/// Up to 256 bytes; the empty text stands for any.
pub(super) struct Text {
    length: AtomicUsize,
    bytes: [AtomicU8; ROOM],
}

impl Text {
    pub(super) const fn new() -> Text {
        Text { length: AtomicUsize::new(0), bytes: [const { AtomicU8::new(0) }; ROOM] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length.load(Ordering::Relaxed) == 0
    }

    pub(super) fn clear(&self) {
        self.length.store(0, Ordering::Relaxed);
    }

    /// False for a text that is too long.
    pub(super) fn set_bytes(&self, text: &[u8]) -> bool {
        if text.len() > ROOM {
            return false;
        }
        for (byte, slot) in text.iter().zip(&self.bytes) {
            slot.store(*byte, Ordering::Relaxed);
        }
        self.length.store(text.len(), Ordering::Relaxed);
        true
    }

    /// # Safety
    /// `text` is null (which clears) or zero-terminated.
    pub(super) unsafe fn set(&self, text: *const c_char) -> bool {
        if text.is_null() {
            self.clear();
            return true;
        }
        // SAFETY: the caller's promise.
        self.set_bytes(unsafe { CStr::from_ptr(text) }.to_bytes())
    }

    fn equals(&self, text: &[u8]) -> bool {
        text.len() == self.length.load(Ordering::Relaxed)
            && text.iter().zip(&self.bytes).all(|(byte, slot)| *byte == slot.load(Ordering::Relaxed))
    }

    /// Whether this is any text, or that one.
    ///
    /// # Safety
    /// `text` is null or zero-terminated.
    pub(super) unsafe fn is(&self, text: *const c_char) -> bool {
        // SAFETY: the caller's promise.
        self.is_empty() || !text.is_null() && self.equals(unsafe { CStr::from_ptr(text) }.to_bytes())
    }

    /// As [`Text::is`], also when whole folders stand before it there.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn is_end_of_path(&self, path: *const c_char) -> bool {
        if self.is_empty() || path.is_null() {
            return self.is_empty();
        }
        // SAFETY: the caller's promise.
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        let Some(start) = path.len().checked_sub(self.length.load(Ordering::Relaxed)) else { return false };
        self.equals(&path[start..]) && (start == 0 || path[start - 1] == b'/')
    }
}
