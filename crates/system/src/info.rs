//! What libc tells about its heap: `mallinfo2` where it has it (glibc 2.33), nothing elsewhere.

use core::{fmt, mem};

/// glibc's `struct mallinfo2`.
#[repr(C)]
pub(crate) struct Info {
    /// Bytes taken by `brk` and, for threads' arenas, `mmap`.
    arena: usize,
    free_chunks: usize,
    fast_chunks: usize,
    mapped_blocks: usize,
    mapped_bytes: usize,
    _max: usize,
    fast_bytes: usize,
    allocated_bytes: usize,
    free_bytes: usize,
    releasable_bytes: usize,
}

/// The figures of now. `None` where libc has none.
pub(crate) fn read() -> Option<Info> {
    // SAFETY: the name is zero-terminated.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: glibc's mallinfo2 takes nothing and returns the struct above by value; no other libc has the name.
    unsafe {
        let function = mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> Info>(function);
        Some(function())
    }
}

impl Info {
    pub(crate) fn allocated(&self) -> u64 {
        (self.allocated_bytes + self.mapped_bytes) as u64
    }

    pub(crate) fn held(&self) -> u64 {
        (self.arena + self.mapped_bytes) as u64
    }

    pub(crate) fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "  heap          {:>14} bytes, {} of them in live blocks", self.arena, self.allocated_bytes)?;
        writeln!(out, "  mapped        {:>14} bytes in {} blocks", self.mapped_bytes, self.mapped_blocks)?;
        writeln!(out, "  free          {:>14} bytes in {} chunks", self.free_bytes, self.free_chunks)?;
        writeln!(out, "  fast bins     {:>14} bytes in {} chunks", self.fast_bytes, self.fast_chunks)?;
        writeln!(out, "  releasable    {:>14} bytes", self.releasable_bytes)
    }
}

cfg_if::cfg_if! {
    if #[cfg(target_vendor = "apple")] {
        /// # Safety
        /// `ptr` is a live block of malloc's.
        pub(crate) unsafe fn usable_size(block: *const u8) -> usize {
            // SAFETY: the caller's promise.
            unsafe { libc::malloc_size(block.cast()) }
        }
    } else {
        /// # Safety
        /// `ptr` is a live block of malloc's.
        pub(crate) unsafe fn usable_size(block: *const u8) -> usize {
            // SAFETY: the caller's promise; the function only reads.
            unsafe { libc::malloc_usable_size(block.cast_mut().cast()) }
        }
    }
}
