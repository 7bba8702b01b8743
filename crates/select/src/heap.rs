//! The rules of the C surface for heaps, and the way from `ak_free` and its like to the heap of a block. The heaps
//! themselves are `allokit-heap`'s.
//!
//! Nobody pays for heaps until there is one. A backend that knows its own blocks (native) is asked first and hands on what
//! is none of them; before the others, and before the tracking layer, the map of heaps is asked from the first heap on.

use crate::Selected;
use crate::api::{self, Origin, Plain, Source as _};
use crate::arena::{Owner, Place, no_memory, report};
use allokit_arena::{Label, Source};
use allokit_core::{Backend, FaultKind, Known, MIN_ALIGN, Others, Stats};
use allokit_heap::{Error, Fault, Kind, Options, Raw};
use allokit_platform::{Lock, abort, errno, handler, stderr::Stderr};
use allokit_report::{Owners, fault};
use core::ffi::{CStr, c_char, c_void};
use core::fmt::Write;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

static EXIST: AtomicBool = AtomicBool::new(false);

/// Whether there has ever been a heap.
#[inline(always)]
pub(crate) fn exist() -> bool {
    EXIST.load(Ordering::Relaxed)
}

/// Whether a block may be a heap's without the backend's noticing.
#[inline(always)]
pub(crate) fn must_ask() -> bool {
    !Selected::HANDS_ON && exist()
}

/// Before the first heap.
#[cold]
fn begin() {
    static STARTING: Lock = Lock::new();
    api::mode();
    // The backend's fork handlers must be older than those of heaps.
    let block = Plain.alloc(1);
    if !block.is_null() {
        // SAFETY: just allocated.
        unsafe { Plain.free(block) };
    }
    let _guard = STARTING.lock();
    if !exist() {
        allokit_heap::register_fork();
        Selected::set_others(&OTHERS);
        EXIST.store(true, Ordering::Release);
    }
}

// ---- what ak_free and its like ask ----

static OTHERS: Others =
    Others { know_their_own: true, free: others_free, realloc: others_realloc, usable_size: others_usable_size };

/// What the backend itself says of a pointer that it does not know.
#[cold]
fn nobodys(ptr: *const u8, what: &str) -> ! {
    let mut out = Stderr::new();
    let _ = writeln!(out, "allokit: {what} of {:#x}, which is no live block of this allocator", ptr.addr());
    out.flush();
    abort()
}

unsafe fn others_free(ptr: *mut u8) {
    // SAFETY: the caller's promise.
    if unsafe { !free(ptr, Place::NONE) } {
        nobodys(ptr, "free");
    }
}

unsafe fn others_realloc(ptr: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { realloc(ptr, size, MIN_ALIGN, Place::NONE) }.unwrap_or_else(|| nobodys(ptr, "realloc"))
}

unsafe fn others_usable_size(ptr: *const u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { usable_size(ptr, Place::NONE) }.unwrap_or_else(|| nobodys(ptr, "usable size"))
}

/// Frees a heap's block; false when it is none. Keeps `errno`.
///
/// # Safety
/// The block is the caller's, who gives it up.
#[inline]
pub(crate) unsafe fn free(ptr: *mut u8, here: Place) -> bool {
    // SAFETY: the caller's promise.
    match unsafe { allokit_heap::free_any(ptr) } {
        None => false,
        Some((Ok(()), _)) => true,
        Some((Err(error), heap)) => {
            let _errno = errno::Saved::new();
            // SAFETY: the heap is null, or that of the memory.
            settle::<()>(Err(error), "free", || unsafe { owner(heap) }, here, 0);
            true
        }
    }
}

/// Resizes a heap's block; `None` when it is none.
///
/// # Safety
/// The block is the caller's, and is replaced by the result unless that is null.
#[cold]
pub(crate) unsafe fn realloc(ptr: *mut u8, size: usize, align: usize, here: Place) -> Option<*mut u8> {
    let heap = allokit_heap::find(ptr)?;
    // SAFETY: the heap is null, or that of the memory; the rest is the caller's promise.
    unsafe {
        let resized = if heap.is_null() { gone(ptr) } else { Raw::realloc_aligned(heap, ptr, size, align) };
        Some(pointer(settle(resized, "realloc", || owner(heap), here, size)))
    }
}

/// The usable size of a heap's block; `None` when it is none.
///
/// # Safety
/// The block is the caller's.
#[cold]
pub(crate) unsafe fn usable_size(ptr: *const u8, here: Place) -> Option<usize> {
    let heap = allokit_heap::find(ptr)?;
    // SAFETY: as above.
    unsafe {
        let size = if heap.is_null() { gone(ptr.cast_mut()) } else { Raw::usable(heap, ptr.cast_mut()) };
        Some(settle(size, "usable size", || owner(heap), here, 0).unwrap_or(0))
    }
}

fn gone<T>(ptr: *mut u8) -> Result<T, Error> {
    Err(Error::Fault(Fault { kind: Kind::Gone, address: ptr.addr() }))
}

/// A heap's block, or the backend's.
///
/// # Safety
/// As [`Backend::free`].
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn plain_free(ptr: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if !free(ptr, Place::NONE) {
            crate::Base::free(ptr);
        }
    }
}

/// # Safety
/// As [`Backend::realloc`].
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn plain_realloc(ptr: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { realloc(ptr, size, MIN_ALIGN, Place::NONE).unwrap_or_else(|| crate::Base::realloc(ptr, size)) }
}

/// # Safety
/// As [`Backend::realloc_aligned`].
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn plain_realloc_aligned(ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { realloc(ptr, size, align, Place::NONE).unwrap_or_else(|| crate::Base::realloc_aligned(ptr, size, align)) }
}

/// # Safety
/// As [`Backend::usable_size`].
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn plain_usable_size(ptr: *const u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { usable_size(ptr, Place::NONE).unwrap_or_else(|| crate::Base::usable_size(ptr)) }
}

/// Adds what heaps have taken from the system to what the backend has, where that is known.
pub(crate) fn add_figures(stats: &mut Stats) {
    if !exist() {
        return;
    }
    let figures = allokit_heap::figures();
    if stats.known.has(Known::RESERVED_BYTES) {
        stats.reserved_bytes += figures.reserved as u64;
    }
    if stats.known.has(Known::COMMITTED_BYTES) {
        stats.committed_bytes += figures.committed as u64;
        if stats.known.has(Known::MAPPED_PEAK_BYTES) {
            stats.mapped_peak_bytes = stats.mapped_peak_bytes.max(stats.committed_bytes);
        }
    }
}

/// What heaps, arenas and the like have, for the statistics.
pub(crate) fn owners() -> [Owners; 5] {
    use allokit_arena::census;
    let heaps = allokit_heap::census();
    let of = |kind, from: &census::Census| {
        let figures = from.figures();
        let (live, reserved, peak) = (figures.live as u64, figures.reserved as u64, figures.peak as u64);
        Owners { kind, live, reserved, used: None, peak }
    };
    [
        Owners {
            kind: "heap",
            live: heaps.live as u64,
            reserved: heaps.reserved as u64,
            used: Some(heaps.used as u64),
            peak: heaps.peak as u64,
        },
        of("arena", &census::ARENAS),
        of("region", &census::REGIONS),
        of("pool", &census::POOLS),
        of("stack", &census::STACKS),
    ]
}

/// The member `heaps` of a JSON object: each heap that lives, with its number and its parent's.
pub(crate) fn write_json(out: &mut dyn Write) -> core::fmt::Result {
    out.write_str("\"heaps\":[")?;
    let mut done = Ok(());
    let mut first = true;
    allokit_heap::for_each(|heap, parent, label, stats| {
        let comma = if core::mem::take(&mut first) { "" } else { "," };
        let one = |out: &mut dyn Write| {
            write!(out, "{comma}\n{{\"id\":\"{heap:x}\",\"parent\":\"{parent:x}\",\"name\":")?;
            let name = core::ffi::CStr::from_bytes_until_nul(&label.name).unwrap_or_default();
            allokit_report::write_json_text(name.to_bytes(), out)?;
            if !label.file.is_null() {
                // SAFETY: a label's file is zero-terminated and for good.
                let file = unsafe { core::ffi::CStr::from_ptr(label.file) };
                out.write_str(",\"file\":")?;
                allokit_report::write_json_text(file.to_bytes(), out)?;
                write!(out, ",\"line\":{}", label.line)?;
            }
            write!(out, ",\"bytes\":{},\"blocks\":{},\"reserved\":{}", stats.current, stats.blocks, stats.reserved)?;
            write!(out, ",\"peak\":{},\"limit\":{},\"failed\":{}}}", stats.peak, stats.limit, stats.failed)
        };
        if done.is_ok() {
            done = one(out);
        }
    });
    done?;
    out.write_str("]")
}

// ---- faults ----

/// Who is named in a report.
struct Named {
    label: allokit_heap::Label,
}

unsafe fn owner(h: *mut Raw) -> Option<Named> {
    // SAFETY: null, or a heap's record, which is always readable.
    if h.is_null() { None } else { Some(Named { label: unsafe { Raw::label(h) } }) }
}

fn settle<T>(
    result: Result<T, Error>,
    operation: &str,
    owner: impl FnOnce() -> Option<Named>,
    here: Place,
    size: usize,
) -> Option<T> {
    match result {
        Ok(value) => return Some(value),
        Err(Error::Fault(found)) => raise(operation, owner(), found, here),
        Err(Error::NoMemory) => {
            let owner = owner();
            no_memory(operation, owner.as_ref().map(named), here, size);
        }
        Err(Error::Invalid) => errno::set(errno::EINVAL),
    }
    None
}

#[cold]
#[inline(never)]
fn raise(operation: &str, owner: Option<Named>, found: Fault, here: Place) {
    let owner = owner.as_ref().map(named);
    report(kind_of(found.kind), operation, owner, found.address, found.kind.text(), here);
}

/// What a report says of a heap, while its texts are there.
fn named(named: &Named) -> Owner {
    let name = &named.label.name;
    let name = if name[0] == 0 { ptr::null() } else { name.as_ptr().cast() };
    Owner { what: "heap", label: Label { name, file: named.label.file, line: named.label.line } }
}

/// What C calls it.
fn kind_of(kind: Kind) -> FaultKind {
    match kind {
        Kind::Foreign => FaultKind::AllocatorMismatch,
        Kind::DoubleFree => FaultKind::DoubleFree,
        Kind::Inside => FaultKind::InvalidFree,
        Kind::Gone => FaultKind::UseAfterReset,
        Kind::Ended => FaultKind::UseAfterDestroy,
        // Children or arenas that live, and what is new.
        _ => FaultKind::OutOfOrder,
    }
}

fn pointer(block: Option<NonNull<u8>>) -> *mut u8 {
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// Whether a heap lives. NULL is an argument that is none (EINVAL); one that has ended is a fault.
#[inline]
unsafe fn lives(h: *mut Raw, operation: &str, here: Place) -> bool {
    // SAFETY: the caller's promise, as far as it goes.
    if unsafe { Raw::is_alive(h) } {
        return true;
    }
    refuse(h, operation, here);
    false
}

#[cold]
#[inline(never)]
fn refuse(h: *mut Raw, operation: &str, here: Place) {
    if h.is_null() {
        errno::set(errno::EINVAL);
        return;
    }
    let owner = Owner { what: "heap", label: Label::NONE };
    report(FaultKind::UseAfterDestroy, operation, Some(owner), h.addr(), Kind::Ended.text(), here);
}

/// Whether a rehearsal refuses a request of a heap that lives; ENOMEM then.
#[inline(always)]
unsafe fn is_refused(h: *mut Raw, size: usize, origin: Origin) -> bool {
    #[cfg(feature = "track")]
    if api::is_asked() {
        // SAFETY: the caller's promise.
        return unsafe { ask(h, size, origin) };
    }
    let _ = (h, size, origin);
    false
}

#[cfg(feature = "track")]
#[cold]
#[inline(never)]
unsafe fn ask(h: *mut Raw, size: usize, origin: Origin) -> bool {
    use crate::rehearse::{From, refuses};
    if !refuses(From::origin(origin), h, size) {
        return false;
    }
    let here = if let Origin::At(file, line) = origin { Place { file, line } } else { Place::NONE };
    // SAFETY: the caller's promise.
    let owner = unsafe { owner(h) };
    no_memory("alloc", owner.as_ref().map(named), here, size);
    true
}

// ---- a heap as the source of an arena ----

unsafe fn take(context: *mut c_void, size: usize, align: usize) -> *mut u8 {
    // SAFETY: as below.
    if unsafe { is_refused(context.cast(), size, Origin::Caller(0)) } {
        return ptr::null_mut();
    }
    // SAFETY: the heap cannot end while the arena has its memory in it.
    pointer(unsafe { Raw::alloc_pinned(context.cast(), size, align) }.ok())
}

unsafe fn give(context: *mut c_void, block: *mut u8, _size: usize) {
    // SAFETY: a block of `take`, which the arena uses no more.
    unsafe {
        let done = Raw::free_pinned(context.cast(), block);
        settle(done, "free", || owner(context.cast()), Place::NONE, 0);
    }
}

/// A heap's memory, for an arena in it; `None` when the heap has ended.
///
/// # Safety
/// As alloc.h says.
pub unsafe fn source(h: *mut Raw, here: Place) -> Option<Source> {
    // SAFETY: the caller's promise.
    if unsafe { !lives(h, "making an arena", here) } {
        return None;
    }
    let tools = crate::arena::no_source().tools();
    // SAFETY: a heap serves any thread, and cannot end while an arena has its memory in it.
    Some(unsafe { Source::new(take, give, h.cast()) }.watched(tools))
}

/// Whether a source is a heap's.
pub(crate) fn is_source(source: &Source) -> bool {
    source.takes_by(take)
}

/// The functions below are what alloc.h says of the C functions of the same names.
///
/// # Safety of all functions here
/// As alloc.h says.
#[allow(clippy::missing_safety_doc)]
pub mod heaps {
    use super::*;

    /// `ak_heap_new`
    pub unsafe fn new(parent: *mut Raw, name: *const c_char, limit: usize, here: Place) -> *mut Raw {
        if !exist() {
            begin();
        }
        // SAFETY: the caller's promise.
        unsafe {
            if !parent.is_null() && !lives(parent, "making a child", here) {
                return ptr::null_mut();
            }
            let name = if name.is_null() { &[][..] } else { core::ffi::CStr::from_ptr(name).to_bytes() };
            let label = allokit_heap::Label { file: here.file, line: here.line, ..allokit_heap::Label::named(name) };
            let made = Raw::create(parent, &Options { label, limit });
            let h = settle(made, "making a heap", || None, here, 0).map_or(ptr::null_mut(), NonNull::as_ptr);
            #[cfg(feature = "track")]
            if !h.is_null() && api::mode() >= api::TRACKED {
                // A block that lives as long as the heap, so that one that is not destroyed is found as a leak of the place
                // that made it.
                let number = crate::tracked::number_of(here.file, here.line);
                let token = crate::tracked::take(number, TOKEN, MIN_ALIGN);
                if token.is_null() {
                    let _ = Raw::destroy(h);
                    errno::set(errno::ENOMEM);
                    return ptr::null_mut();
                }
                token.cast::<u32>().write(number);
                Raw::set_tag(h, token.cast());
            }
            h
        }
    }

    /// The size of the block that stands for a heap in the tracker: its record's.
    #[cfg(feature = "track")]
    const TOKEN: usize = size_of::<Raw>();

    /// `ak_heap_destroy`
    pub unsafe fn destroy(h: *mut Raw, here: Place) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if h.is_null() {
                return true;
            }
            if !lives(h, "destroy", here) {
                return false;
            }
            let _token = Raw::tag(h).cast::<u8>();
            let done = settle(Raw::destroy(h), "destroy", || owner(h), here, 0).is_some();
            #[cfg(feature = "track")]
            if done && !_token.is_null() {
                crate::tracked::give(_token.cast::<u32>().read(), _token, TOKEN);
            }
            done
        }
    }

    /// `ak_heap_reset`
    pub unsafe fn reset(h: *mut Raw, here: Place) -> bool {
        // SAFETY: the caller's promise.
        unsafe { lives(h, "reset", here) && settle(Raw::reset(h), "reset", || owner(h), here, 0).is_some() }
    }

    /// `ak_heap_alloc`
    #[inline]
    pub unsafe fn alloc(h: *mut Raw, size: usize, origin: Origin) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            let block = Raw::alloc_quick(h, size);
            if block.is_null() { alloc_slow(h, size, origin) } else { block }
        }
    }

    /// `ak_heap_alloc`, where the heap has nothing at hand.
    #[cold]
    #[inline(never)]
    pub unsafe fn alloc_slow(h: *mut Raw, size: usize, origin: Origin) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !lives(h, "alloc", Place::NONE) || is_refused(h, size, origin) {
                return ptr::null_mut();
            }
            pointer(settle(Raw::alloc_slow(h, size), "alloc", || owner(h), Place::NONE, size))
        }
    }

    /// `ak_heap_calloc`
    pub unsafe fn calloc(h: *mut Raw, count: usize, size: usize, origin: Origin) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !lives(h, "alloc", Place::NONE) || is_refused(h, count.saturating_mul(size), origin) {
                return ptr::null_mut();
            }
            pointer(settle(Raw::calloc(h, count, size), "alloc", || owner(h), Place::NONE, count.saturating_mul(size)))
        }
    }

    /// `ak_heap_alloc_aligned`
    pub unsafe fn alloc_aligned(h: *mut Raw, size: usize, align: usize, origin: Origin) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !lives(h, "alloc", Place::NONE) || is_refused(h, size, origin) {
                return ptr::null_mut();
            }
            pointer(settle(Raw::alloc_aligned(h, size, align), "alloc", || owner(h), Place::NONE, size))
        }
    }

    /// `ak_heap_realloc`, `ak_lua_alloc`
    pub unsafe fn realloc(h: *mut Raw, block: *mut u8, size: usize, here: Place, caller: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            let origin = if here.file.is_null() { Origin::Caller(caller) } else { Origin::At(here.file, here.line) };
            if block.is_null() {
                return alloc(h, size, origin);
            }
            if size == 0 {
                free(h, block, here);
                return ptr::null_mut();
            }
            if !lives(h, "realloc", here) || is_refused(h, size, origin) {
                return ptr::null_mut();
            }
            pointer(settle(Raw::realloc(h, block, size), "realloc", || owner(h), here, size))
        }
    }

    /// `ak_heap_free`
    #[inline]
    pub unsafe fn free(h: *mut Raw, block: *mut u8, here: Place) {
        // SAFETY: the caller's promise; null is in no chunk.
        unsafe {
            if !Raw::free_quick(h, block) {
                free_slow(h, block, here);
            }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn free_slow(h: *mut Raw, block: *mut u8, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if !block.is_null()
                && lives(h, "free", here)
                && let Err(error) = Raw::free_slow(h, block)
            {
                let _errno = errno::Saved::new();
                settle::<()>(Err(error), "free", || owner(h), here, 0);
            }
        }
    }

    /// `ak_heap_memdup`, `ak_heap_strndup`: a copy of `size` bytes, and a zero byte when it is a text
    pub unsafe fn copy(h: *mut Raw, from: *const u8, size: usize, text: bool, origin: Origin) -> *mut u8 {
        // SAFETY: the caller's promise; the block is fresh.
        unsafe {
            if from.is_null() && (size != 0 || text) {
                errno::set(errno::EINVAL);
                return ptr::null_mut();
            }
            let copy = alloc(h, size.saturating_add(usize::from(text)), origin);
            if !copy.is_null() {
                if size != 0 {
                    copy.copy_from_nonoverlapping(from, size);
                }
                if text {
                    copy.add(size).write(0);
                }
            }
            copy
        }
    }

    /// `ak_heap_strdup`, `ak_heap_strndup`
    pub unsafe fn text(h: *mut Raw, from: *const c_char, most: usize, origin: Origin) -> *mut c_char {
        let mut length = 0;
        // SAFETY: bytes are read one by one up to the first zero or `most`.
        unsafe {
            while !from.is_null() && length < most && *from.add(length) != 0 {
                length += 1;
            }
            copy(h, from.cast(), length, true, origin).cast()
        }
    }

    /// `ak_heap_owns`
    pub unsafe fn owns(h: *mut Raw, address: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { lives(h, "owns", Place::NONE) && Raw::owns(h, address) }
    }

    /// `ak_heap_stats`
    pub unsafe fn stats(h: *mut Raw) -> Option<allokit_heap::Stats> {
        // SAFETY: the caller's promise.
        unsafe { lives(h, "stats", Place::NONE).then(|| Raw::stats(h)) }
    }

    /// `ak_heap_assert_balanced`
    pub unsafe fn assert_balanced(h: *mut Raw, context: *const c_char) -> bool {
        // SAFETY: the caller's promise; the label's texts are zero-terminated.
        let (stats, label) = unsafe {
            if !lives(h, "assert_balanced", Place::NONE) {
                return false;
            }
            (Raw::stats(h), Raw::label(h))
        };
        if stats.blocks == 0 {
            return true;
        }
        // SAFETY: as above.
        let context = if context.is_null() { c"assert_balanced" } else { unsafe { CStr::from_ptr(context) } };
        let name = CStr::from_bytes_until_nul(&label.name).unwrap_or_default();
        let (line, file) = (label.line, label.file);
        let tell = |policy| {
            handler::call(&allokit_core::Fault {
                policy: policy as u32,
                size: stats.current,
                count: stats.blocks as u64,
                owner: c"heap".as_ptr(),
                name: if name.is_empty() { ptr::null() } else { name.as_ptr() },
                made: allokit_core::Place { file, line, ..allokit_core::Place::UNKNOWN },
                context: context.as_ptr(),
                ..allokit_core::Fault::new(FaultKind::Leak)
            });
        };
        fault::act(tell, |out| {
            fn text(text: &CStr) -> &str {
                text.to_str().unwrap_or("(not UTF-8)")
            }
            write!(out, "allokit: {}: {} blocks, {} bytes, live in heap ", text(context), stats.blocks, stats.current)?;
            match name.is_empty() {
                true => write!(out, "{h:p}")?,
                false => write!(out, "\"{}\"", text(name))?,
            }
            if !file.is_null() {
                // SAFETY: a label's file is zero-terminated and for good.
                write!(out, ", made at {}:{line}", text(unsafe { CStr::from_ptr(file) }))?;
            }
            writeln!(out)
        });
        false
    }

    /// `ak_heap_check`
    pub unsafe fn check(h: *mut Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if lives(h, "check", Place::NONE) { Raw::check(h) } else { 1 } }
    }
}
