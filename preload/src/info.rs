//! What glibc's malloc offers beside allocation: figures, trimming, settings.

use allokit_core::{Backend, Known};
use allokit_platform::{errno, stderr::Stderr};
use allokit_report::Format;
use allokit_select::{Selected, api};
use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write};

/// glibc's `struct mallinfo2`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Mallinfo2 {
    /// Memory held that is not in mappings of its own: all of it, here.
    pub arena: usize,
    /// Free chunks: not counted.
    pub ordblks: usize,
    /// Not counted.
    pub smblks: usize,
    /// Blocks with a mapping of their own: none.
    pub hblks: usize,
    /// Bytes in them.
    pub hblkhd: usize,
    /// The most memory held.
    pub usmblks: usize,
    /// Not counted.
    pub fsmblks: usize,
    /// Bytes in use; where the backend does not count them, the memory held.
    pub uordblks: usize,
    /// Bytes held and not in use, as far as that is known.
    pub fordblks: usize,
    /// Not counted.
    pub keepcost: usize,
}

/// glibc's older `struct mallinfo`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Mallinfo([c_int; 10]);

/// `mallinfo2`
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> Mallinfo2 {
    let stats = api::stats();
    let held = stats.committed_bytes as usize;
    let used = if stats.known.has(Known::CURRENT_BYTES) { stats.current_bytes as usize } else { held };
    Mallinfo2 {
        arena: held,
        usmblks: stats.mapped_peak_bytes as usize,
        uordblks: used,
        fordblks: held.saturating_sub(used),
        ..Mallinfo2::default()
    }
}

/// `mallinfo`: the same where an `int` can hold it, and the largest `int` where it cannot.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> Mallinfo {
    let i = mallinfo2();
    let all =
        [i.arena, i.ordblks, i.smblks, i.hblks, i.hblkhd, i.usmblks, i.fsmblks, i.uordblks, i.fordblks, i.keepcost];
    Mallinfo(all.map(|figure| c_int::try_from(figure).unwrap_or(c_int::MAX)))
}

/// `malloc_trim`: 1 when memory may have been given back. The pad is not kept.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(<Selected as Backend>::trim())
}

/// `mallopt`: accepted and without effect.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(_param: c_int, _value: c_int) -> c_int {
    1
}

/// `malloc_stats`: our statistics, as text on stderr.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    // Stderr never fails.
    let _ = api::stats_write(Format::Text, &mut Stderr::new());
}

unsafe extern "C" {
    fn fwrite(text: *const c_void, size: usize, count: usize, stream: *mut c_void) -> usize;
}

/// A C stream.
struct Stream(*mut c_void);

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the text is readable; the stream is the C caller's.
        let written = unsafe { fwrite(text.as_ptr().cast::<c_char>().cast(), 1, text.len(), self.0) };
        if written == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// `malloc_info`: a few figures as XML. -1 when the stream does not take them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    if options != 0 || stream.is_null() {
        return errno::EINVAL;
    }
    let stats = api::stats();
    let mut out = Stream(stream);
    let written = writeln!(
        out,
        "<malloc version=\"1\">\n<system type=\"current\" size=\"{}\"/>\n<system type=\"max\" size=\"{}\"/>\n</malloc>",
        stats.committed_bytes, stats.mapped_peak_bytes
    );
    if written.is_ok() { 0 } else { -1 }
}
