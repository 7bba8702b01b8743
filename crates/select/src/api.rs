//! The rules of the C surface, once, for every backend and mode: sizes, alignments, errno, NULL.
//!
//! Each function is generic over a [`Source`]: the backend itself, or the tracking layer together with where the call
//! comes from. The mode is decided at the first allocation: until then [`MODE`] is [`UNDECIDED`] and calls take the slow
//! entry. It stays, unless the backend keeps tags: then `ak_track_set` may change it at any time. To either may come
//! [`ASKED`], at any time: requests may be refused (`limit`, `rehearse`), so every call goes by the source that asks.

use crate::Selected;
use crate::{heap, settings};
use allokit_core::{Backend, Known, MIN_ALIGN, Site, Stats, array_size, is_valid_align};
use allokit_platform::errno;
use allokit_report::{Format, Head, Tracking, write_json_stats, write_stats};
use core::ffi::{CStr, c_char};
use core::fmt;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// [`MODE`] before the first allocation.
pub const UNDECIDED: u8 = 0;
/// [`MODE`]: calls go to the backend.
pub const PLAIN: u8 = 1;
/// [`MODE`]: calls go through the tracking layer. From here on, all modes do.
pub const TRACKED: u8 = 2;
/// [`MODE`]: the same, and blocks have stacks.
pub const STACKS: u8 = 3;

/// [`MODE`]: added to one of these three when requests may be refused.
pub const ASKED: u8 = 4;

/// How the process allocates. Decided by the first allocation; see [`track_set`].
pub static MODE: AtomicU8 = AtomicU8::new(UNDECIDED);

/// Whether tracking was switched on after it was off.
static EVER_TRACKED: AtomicBool = AtomicBool::new(false);

/// Where a call comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// A macro use with a record of its own.
    Site(*mut Site),
    /// A file (zero-terminated, or null) and a line, handed over by a wrapper.
    At(*const c_char, u32),
    /// The address that the call returns to; 0 when unknown.
    Caller(usize),
}

/// The level of tracking: `ak_track_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Nothing is tracked.
    Off = 0,
    /// Each block knows its call site.
    Sites = 1,
    /// Each block knows its stack.
    Stacks = 2,
}

/// Whether the guarding layer is built in. It is on unless ALLOKIT_GUARD=0; [`TRACKED`] means guarded then.
pub const GUARD: bool = cfg!(feature = "guard");

/// What a block comes from and must go back by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `malloc`, `free`, and what is neither of the others.
    Malloc,
    /// `new`, `delete`
    New,
    /// `new[]`, `delete[]`
    NewArray,
    /// Either, when it is not known any more.
    AnyNew,
}

/// An allocator as the rules below see it.
///
/// # Safety
/// As [`Backend`].
pub unsafe trait Source: Copy {
    /// See [`Backend::alloc`].
    fn alloc(self, size: usize) -> *mut u8;
    /// See [`Backend::alloc_zeroed`].
    fn alloc_zeroed(self, size: usize) -> *mut u8;
    /// See [`Backend::alloc_aligned`].
    fn alloc_aligned(self, size: usize, align: usize) -> *mut u8;
    /// See [`Backend::alloc_aligned_zeroed`].
    fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8;
    /// See [`Backend::realloc`].
    ///
    /// # Safety
    /// As there.
    unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8;
    /// See [`Backend::realloc_aligned`].
    ///
    /// # Safety
    /// As there.
    unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8;
    /// See [`Backend::free`].
    ///
    /// # Safety
    /// As there.
    unsafe fn free(self, ptr: *mut u8);
    /// See [`Backend::free_sized`].
    ///
    /// # Safety
    /// As there.
    unsafe fn free_sized(self, ptr: *mut u8, size: usize);
    /// See [`Backend::usable_size`].
    ///
    /// # Safety
    /// As there.
    unsafe fn usable_size(self, ptr: *const u8) -> usize;
    /// A request for more than can be: null with ENOMEM.
    #[cold]
    fn impossible(self) -> *mut u8 {
        fail(errno::ENOMEM)
    }
}

/// The backend, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// [`Plain`], counted against the limit of the process where the backend does not do that itself.
#[cfg(all(feature = "track", not(feature = "native")))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted;
#[cfg(all(feature = "track", feature = "native"))]
pub(crate) use Plain as Counted;

macro_rules! plain_source {
    ($name:ident, $backend:ident) => {
        // SAFETY: each function is the backend's, or that of the heap whose block it is.
        unsafe impl Source for $name {
            #[inline(always)]
            fn alloc(self, size: usize) -> *mut u8 {
                $backend::alloc(size)
            }
            #[inline(always)]
            fn alloc_zeroed(self, size: usize) -> *mut u8 {
                $backend::alloc_zeroed(size)
            }
            #[inline(always)]
            fn alloc_aligned(self, size: usize, align: usize) -> *mut u8 {
                $backend::alloc_aligned(size, align)
            }
            #[inline(always)]
            fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8 {
                $backend::alloc_aligned_zeroed(size, align)
            }
            #[inline(always)]
            unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8 {
                // SAFETY: the caller's promise.
                unsafe {
                    if heap::must_ask() {
                        return heap::plain_realloc(ptr, size);
                    }
                    $backend::realloc(ptr, size)
                }
            }
            #[inline(always)]
            unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
                // SAFETY: the caller's promise.
                unsafe {
                    if heap::exist() {
                        return heap::plain_realloc_aligned(ptr, size, align);
                    }
                    $backend::realloc_aligned(ptr, size, align)
                }
            }
            #[inline(always)]
            unsafe fn free(self, ptr: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe {
                    if heap::must_ask() {
                        return heap::plain_free(ptr);
                    }
                    $backend::free(ptr)
                }
            }
            #[inline(always)]
            unsafe fn free_sized(self, ptr: *mut u8, size: usize) {
                // SAFETY: the caller's promise.
                unsafe {
                    if heap::must_ask() {
                        return heap::plain_free(ptr);
                    }
                    $backend::free_sized(ptr, size)
                }
            }
            #[inline(always)]
            unsafe fn usable_size(self, ptr: *const u8) -> usize {
                // SAFETY: the caller's promise.
                unsafe {
                    if heap::must_ask() {
                        return heap::plain_usable_size(ptr);
                    }
                    $backend::usable_size(ptr)
                }
            }
        }
    };
}

plain_source!(Plain, Selected);
#[cfg(all(feature = "track", not(feature = "native")))]
use crate::Base;
#[cfg(all(feature = "track", not(feature = "native")))]
plain_source!(Counted, Base);

#[cold]
fn fail(error: i32) -> *mut u8 {
    errno::set(error);
    ptr::null_mut()
}

/// `ak_alloc`
#[inline(always)]
pub fn alloc<S: Source>(source: S, size: usize) -> *mut u8 {
    source.alloc(size)
}

/// `ak_calloc`
#[inline(always)]
pub fn calloc<S: Source>(source: S, count: usize, size: usize) -> *mut u8 {
    match array_size(count, size) {
        Some(bytes) => source.alloc_zeroed(bytes),
        None => source.impossible(),
    }
}

/// `ak_alloc_aligned`
#[inline(always)]
pub fn alloc_aligned<S: Source>(source: S, size: usize, align: usize) -> *mut u8 {
    if !is_valid_align(align) {
        return fail(errno::EINVAL);
    }
    if align <= MIN_ALIGN { source.alloc(size) } else { source.alloc_aligned(size, align) }
}

/// `ak_calloc_aligned`
#[inline(always)]
pub fn calloc_aligned<S: Source>(source: S, count: usize, size: usize, align: usize) -> *mut u8 {
    if !is_valid_align(align) {
        return fail(errno::EINVAL);
    }
    match array_size(count, size) {
        Some(bytes) if align <= MIN_ALIGN => source.alloc_zeroed(bytes),
        Some(bytes) => source.alloc_aligned_zeroed(bytes, align),
        None => source.impossible(),
    }
}

/// `ak_realloc`
///
/// # Safety
/// `ptr` is null or a live block.
#[inline(always)]
pub unsafe fn realloc<S: Source>(source: S, ptr: *mut u8, size: usize) -> *mut u8 {
    if ptr.is_null() {
        return source.alloc(size);
    }
    // SAFETY: the caller's promise.
    unsafe {
        if size == 0 {
            source.free(ptr);
            return ptr::null_mut();
        }
        source.realloc(ptr, size)
    }
}

/// `ak_reallocarray`
///
/// # Safety
/// As [`realloc`].
#[inline(always)]
pub unsafe fn reallocarray<S: Source>(source: S, ptr: *mut u8, count: usize, size: usize) -> *mut u8 {
    match array_size(count, size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(source, ptr, bytes) },
        None => source.impossible(),
    }
}

/// `ak_reallocarray_aligned`
///
/// # Safety
/// As [`realloc`].
#[inline(always)]
pub unsafe fn reallocarray_aligned<S: Source>(
    source: S,
    ptr: *mut u8,
    count: usize,
    size: usize,
    align: usize,
) -> *mut u8 {
    if !is_valid_align(align) {
        return fail(errno::EINVAL);
    }
    let Some(bytes) = array_size(count, size) else { return source.impossible() };
    if ptr.is_null() {
        return alloc_aligned(source, bytes, align);
    }
    // SAFETY: the caller's promise.
    unsafe {
        if bytes == 0 {
            source.free(ptr);
            ptr::null_mut()
        } else if align <= MIN_ALIGN {
            source.realloc(ptr, bytes)
        } else {
            source.realloc_aligned(ptr, bytes, align)
        }
    }
}

/// `ak_free`
///
/// # Safety
/// As [`realloc`]; the block is given up.
#[inline(always)]
pub unsafe fn free<S: Source>(source: S, ptr: *mut u8) {
    if !ptr.is_null() {
        // SAFETY: the caller's promise.
        unsafe { source.free(ptr) }
    }
}

/// `ak_free_sized`
///
/// # Safety
/// As [`free`], and `size` is what was asked for.
#[inline(always)]
pub unsafe fn free_sized<S: Source>(source: S, ptr: *mut u8, size: usize) {
    if !ptr.is_null() {
        // SAFETY: the caller's promise.
        unsafe { source.free_sized(ptr, size) }
    }
}

/// `ak_usable_size`
///
/// # Safety
/// As [`realloc`].
#[inline(always)]
pub unsafe fn usable_size<S: Source>(source: S, ptr: *const u8) -> usize {
    // SAFETY: the caller's promise.
    if ptr.is_null() { 0 } else { unsafe { source.usable_size(ptr) } }
}

/// `ak_strdup`
///
/// # Safety
/// `text` is null or zero-terminated.
#[inline(always)]
pub unsafe fn strdup<S: Source>(source: S, text: *const c_char) -> *mut c_char {
    if text.is_null() {
        return fail(errno::EINVAL).cast();
    }
    // SAFETY: the caller's promise.
    let length = unsafe { CStr::from_ptr(text) }.count_bytes();
    // SAFETY: `length` bytes are readable.
    unsafe { copy_text(source, text, length) }
}

/// `ak_strndup`
///
/// # Safety
/// `text` is null, or zero-terminated or `most` bytes long.
#[inline(always)]
pub unsafe fn strndup<S: Source>(source: S, text: *const c_char, most: usize) -> *mut c_char {
    if text.is_null() {
        return fail(errno::EINVAL).cast();
    }
    let mut length = 0;
    // SAFETY: bytes are read one by one up to the first zero or `most`.
    unsafe {
        while length < most && *text.add(length) != 0 {
            length += 1;
        }
        copy_text(source, text, length)
    }
}

unsafe fn copy_text<S: Source>(source: S, text: *const c_char, length: usize) -> *mut c_char {
    let copy = source.alloc(length + 1).cast::<c_char>();
    if !copy.is_null() {
        // SAFETY: the block is fresh and has `length + 1` bytes.
        unsafe {
            copy.copy_from_nonoverlapping(text, length);
            *copy.add(length) = 0;
        }
    }
    copy
}

/// `ak_memdup`
///
/// # Safety
/// `from` has `size` readable bytes.
#[inline(always)]
pub unsafe fn memdup<S: Source>(source: S, from: *const u8, size: usize) -> *mut u8 {
    if from.is_null() && size != 0 {
        return fail(errno::EINVAL);
    }
    let copy = source.alloc(size);
    if !copy.is_null() && size != 0 {
        // SAFETY: the block is fresh and has `size` bytes.
        unsafe { copy.copy_from_nonoverlapping(from, size) };
    }
    copy
}

/// The mode, decided now if it is not yet: by `ak_track_set`, else by the environment. [`PLAIN`], [`TRACKED`] or [`STACKS`].
#[inline]
pub fn mode() -> u8 {
    way() & !ASKED
}

/// [`mode`], perhaps with [`ASKED`].
#[inline]
pub fn way() -> u8 {
    match MODE.load(Ordering::Acquire) {
        UNDECIDED => decide(),
        mode => mode,
    }
}

/// Whether requests may be refused.
#[inline(always)]
#[cfg(feature = "track")]
pub(crate) fn is_asked() -> bool {
    MODE.load(Ordering::Relaxed) & ASKED != 0
}

/// Whether calls go to the backend; false also while that is undecided.
#[inline(always)]
pub fn is_plain() -> bool {
    MODE.load(Ordering::Relaxed) == PLAIN
}

/// Whether calls go through the tracking layer, blocks have no stacks, and nothing refuses requests; false also while that
/// is undecided.
#[inline(always)]
#[must_use]
pub fn is_tracked() -> bool {
    MODE.load(Ordering::Relaxed) == TRACKED
}

/// Whether calls go through the tracking layer, blocks have stacks, and nothing refuses requests; false also while that is
/// undecided.
#[inline(always)]
#[must_use]
pub fn has_stacks() -> bool {
    MODE.load(Ordering::Relaxed) == STACKS
}

/// Whether calls go through the tracking layer, and nothing refuses requests; false also while that is undecided.
#[inline(always)]
#[must_use]
pub fn is_direct() -> bool {
    const _: () = assert!(STACKS == TRACKED + 1);
    MODE.load(Ordering::Relaxed).wrapping_sub(TRACKED) <= STACKS - TRACKED
}

/// Whether blocks get stacks; false also while that is undecided.
#[inline(always)]
#[must_use]
#[cfg(feature = "track")]
pub(crate) fn wants_stacks() -> bool {
    MODE.load(Ordering::Relaxed) & !ASKED == STACKS
}

/// Whether calls go through the tracking layer; false also while that is undecided.
#[inline(always)]
#[must_use]
pub fn is_on() -> bool {
    MODE.load(Ordering::Relaxed) & TRACKED != 0
}

/// What [`MODE`] is at a level.
fn mode_of(level: Level) -> u8 {
    match level {
        Level::Off => PLAIN,
        Level::Sites => TRACKED,
        Level::Stacks => STACKS,
    }
}

#[cold]
#[inline(never)]
fn decide() -> u8 {
    let wanted = mode_of(prepare());
    #[cfg(feature = "track")]
    let wanted = if asks() {
        allokit_heap::close(true);
        wanted | ASKED
    } else {
        wanted
    };
    match MODE.compare_exchange(UNDECIDED, wanted, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            if wanted == PLAIN {
                Selected::open();
            }
            wanted
        }
        Err(other) => other,
    }
}

/// Makes ready what the level wanted so far needs, and gives that level. Called when the library is loaded, by the first
/// allocation, and in between by `ak_track_set`.
pub fn prepare() -> Level {
    crate::init_backend();
    settings::read_environment();
    let level = settings::wanted_level();
    #[cfg(feature = "track")]
    if level != Level::Off {
        crate::tracked::start();
    }
    // Without tracking there is nothing to decide.
    #[cfg(not(feature = "track"))]
    Selected::open();
    level
}

/// `ak_track_set`
pub fn track_set(level: u32) -> bool {
    let level = match level {
        0 => Level::Off,
        1 => Level::Sites,
        2 => Level::Stacks,
        _ => {
            errno::set(errno::EINVAL);
            return false;
        }
    };
    if level != Level::Off && !cfg!(feature = "track") {
        errno::set(errno::ENOTSUP);
        return false;
    }
    if MODE.load(Ordering::Acquire) == UNDECIDED {
        settings::ask_for(level);
        prepare();
    }
    #[cfg(feature = "track")]
    switch(level);
    // Another thread may have allocated meanwhile: what is in force is the answer.
    if track_get() != level {
        errno::set(errno::EBUSY);
        return false;
    }
    true
}

#[cfg(feature = "track")]
static SWITCHING: allokit_platform::Lock = allokit_platform::Lock::new();

/// From here on no call passes by the mode. Under [`SWITCHING`].
#[cfg(feature = "track")]
fn close() {
    static CLOSED: AtomicBool = AtomicBool::new(false);
    if !CLOSED.swap(true, Ordering::Relaxed) {
        Selected::close();
    }
}

/// Changes the mode while the program runs. Between off and on that needs a backend that can tell blocks of both kinds; from
/// sites to stacks and back, blocks are of one kind.
#[cfg(feature = "track")]
fn switch(level: Level) {
    let _guard = SWITCHING.lock();
    const CAN: bool = Selected::TAGS && !GUARD;
    let asked = MODE.load(Ordering::Acquire) & ASKED;
    match (MODE.load(Ordering::Acquire) & !ASKED, mode_of(level)) {
        (PLAIN, wanted @ TRACKED..) if CAN => {
            crate::tracked::start();
            close();
            EVER_TRACKED.store(true, Ordering::Relaxed);
            MODE.store(wanted | asked, Ordering::Release);
        }
        (TRACKED.., PLAIN) if CAN => {
            EVER_TRACKED.store(true, Ordering::Relaxed);
            MODE.store(PLAIN | asked, Ordering::Release);
        }
        (TRACKED.., wanted @ TRACKED..) => MODE.store(wanted | asked, Ordering::Release),
        // Undecided: whoever allocates first decides.
        _ => {}
    }
}

/// Whether something may refuse requests.
#[cfg(feature = "track")]
fn asks() -> bool {
    crate::rehearse::is_wanted() || crate::limit::counts()
}

/// Has every call go by the source that asks, as long as something may refuse requests.
#[cfg(feature = "track")]
pub(crate) fn ask() {
    way();
    let _guard = SWITCHING.lock();
    let asks = asks();
    if asks {
        close();
        MODE.fetch_or(ASKED, Ordering::AcqRel);
    } else {
        MODE.fetch_and(!ASKED, Ordering::AcqRel);
    }
    allokit_heap::close(asks);
}

/// `ak_track_sample_set`
pub fn sample_set(bytes: usize) -> bool {
    #[cfg(feature = "track")]
    {
        // What the environment says is not to be read over it later.
        settings::read_environment();
        allokit_track::stacks::set_interval(bytes);
        true
    }
    #[cfg(not(feature = "track"))]
    {
        let _ = bytes;
        errno::set(errno::ENOTSUP);
        false
    }
}

/// `ak_track_sample_get`
pub fn sample() -> usize {
    #[cfg(feature = "track")]
    {
        settings::read_environment();
        allokit_track::stacks::interval()
    }
    #[cfg(not(feature = "track"))]
    0
}

/// Whether something is known of live blocks: tracking is on, or was on.
pub fn was_tracked() -> bool {
    EVER_TRACKED.load(Ordering::Relaxed) || track_get() != Level::Off
}

/// `ak_track_get`
pub fn track_get() -> Level {
    match MODE.load(Ordering::Acquire) {
        UNDECIDED => settings::wanted_level(),
        mode if mode & !ASKED == TRACKED => Level::Sites,
        mode if mode & !ASKED == STACKS => Level::Stacks,
        _ => Level::Off,
    }
}

fn tracking() -> Tracking {
    match track_get() {
        _ if !cfg!(feature = "track") => Tracking::None,
        Level::Off => Tracking::Off,
        Level::Sites => Tracking::Sites,
        Level::Stacks => Tracking::Stacks,
    }
}

/// `ak_check`: the number of faults among the live blocks, as far as the mode can tell. `caller` is where it is asked.
pub fn check(caller: usize) -> usize {
    #[cfg(feature = "track")]
    if mode() >= TRACKED {
        return crate::tracked::check(Origin::Caller(caller));
    }
    let _ = caller;
    0
}

/// What the mode wants done at the end of the process.
pub fn at_exit() {
    #[cfg(feature = "guard")]
    if is_on() {
        allokit_guard::at_exit();
    }
    #[cfg(feature = "track")]
    crate::rehearse::at_exit();
}

/// The statistics of now.
pub fn stats() -> Stats {
    let mut stats = Stats::new();
    #[cfg(feature = "track")]
    if track_get() != Level::Off {
        crate::tracked::stats(&mut stats);
        heap::add_figures(&mut stats);
        return stats;
    }
    Selected::stats(&mut stats);
    heap::add_figures(&mut stats);
    stats
}

/// `ak_stats_get`: fills as much as the caller's struct holds.
///
/// # Safety
/// `out` is null, or points at a `size_t` and as many bytes in all as it says.
pub unsafe fn stats_get(out: *mut Stats) -> bool {
    const LEAST: usize = offset_of!(Stats, known) + size_of::<Known>();
    // SAFETY: the caller's promise.
    unsafe {
        if out.is_null() || (&raw const (*out).struct_size).read() < LEAST {
            errno::set(errno::EINVAL);
            return false;
        }
        let room = (&raw const (*out).struct_size).read();
        let mut stats = stats();
        // Whole fields only; what does not fit is not known to the caller either. The fields follow `known` in the order
        // of its bits.
        stats.struct_size = room.min(size_of::<Stats>()) / size_of::<u64>() * size_of::<u64>();
        let fields = (stats.struct_size - LEAST) / size_of::<u64>();
        stats.known.0 &= (1 << fields) - 1;
        (&raw const stats).cast::<u8>().copy_to_nonoverlapping(out.cast::<u8>(), stats.struct_size);
    }
    true
}

/// The statistics in a format; in text, the backend's own follow.
///
/// # Errors
/// Those of the writer.
pub fn stats_write(format: Format, out: &mut dyn fmt::Write) -> fmt::Result {
    let head = Head { version: allokit_core::VERSION, backend: Selected::NAME, tracking: tracking() };
    write_stats(format, &head, &stats(), &crate::heap::owners(), out)?;
    if format == Format::Text {
        let mut own = Heading { out, backend: Selected::NAME, written: false };
        Selected::write_own_stats(&mut own)?;
    }
    Ok(())
}

/// The statistics as members of a JSON object.
pub(crate) fn stats_json(out: &mut dyn fmt::Write) -> fmt::Result {
    let head = Head { version: allokit_core::VERSION, backend: Selected::NAME, tracking: tracking() };
    write_json_stats(&head, &stats(), &crate::heap::owners(), out)
}

/// Writes a heading before the first text.
struct Heading<'a> {
    out: &'a mut dyn fmt::Write,
    backend: &'static str,
    written: bool,
}

impl fmt::Write for Heading<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.written && !text.is_empty() {
            self.written = true;
            writeln!(self.out, "{}'s own statistics:", self.backend)?;
        }
        self.out.write_str(text)
    }
}
