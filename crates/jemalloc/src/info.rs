//! jemalloc's figures, by `mallctl`.

use core::ffi::CStr;
use tikv_jemalloc_sys as je;

/// Bytes, over all arenas.
pub(crate) struct Info {
    /// In live blocks.
    pub(crate) allocated: u64,
    /// In memory that may be touched: live, cached, metadata.
    pub(crate) committed: u64,
    /// Mapped, memory that was given back included.
    pub(crate) reserved: u64,
}

/// The figures of now. `None` in a jemalloc built without statistics.
pub(crate) fn read() -> Option<Info> {
    let mut epoch = 1u64;
    // The figures are a snapshot, renewed by writing to the epoch.
    // SAFETY: "epoch" reads and writes a u64.
    let error = unsafe {
        let size = size_of::<u64>();
        je::mallctl(c"epoch".as_ptr(), core::ptr::null_mut(), core::ptr::null_mut(), (&raw mut epoch).cast(), size)
    };
    if error != 0 {
        return None;
    }
    let committed = bytes(c"stats.resident")?;
    Some(Info {
        allocated: bytes(c"stats.allocated")?,
        committed,
        reserved: bytes(c"stats.mapped")? + bytes(c"stats.retained")?,
    })
}

fn bytes(name: &CStr) -> Option<u64> {
    let mut value = 0usize;
    let mut size = size_of::<usize>();
    // SAFETY: the names used above stand for a size_t.
    let error = unsafe { je::mallctl(name.as_ptr(), (&raw mut value).cast(), &raw mut size, core::ptr::null_mut(), 0) };
    (error == 0).then_some(value as u64)
}
