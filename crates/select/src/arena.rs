//! The rules of the C surface for arenas, scratch, regions, pools and stacks: NULL, errno, options, and what becomes of a
//! fault. The allocators themselves are `allokit-arena`'s.

use crate::api::{self, Plain, Source as _};
use crate::settings;
use allokit_arena::scratch::{Scratch, Stretch};
use allokit_arena::{Error, Fault, Kind, Label, Source, Tools, arena, pool, region, stack};
use allokit_core::FaultKind;
use allokit_platform::{errno, thread, tools};
use allokit_report::fault;
use core::ffi::{CStr, c_char, c_void};
use core::fmt::Write;
use core::ptr::{self, NonNull};

/// Where a call comes from: a file (zero-terminated, or null) and a line.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Null when it is not known.
    pub file: *const c_char,
    /// From 1.
    pub line: u32,
}

impl Place {
    /// Not known.
    pub const NONE: Place = Place { file: ptr::null(), line: 0 };
}

// SAFETY: they tell a tool, and change nothing.
static TOOLS: Tools = unsafe { Tools::new(tools::hide, tools::show, tools::reveal) };

unsafe fn take(context: *mut c_void, size: usize, align: usize) -> *mut u8 {
    match api::mode() {
        #[cfg(feature = "track")]
        api::TRACKED.. => crate::tracked::take(context.addr() as u32, size, align),
        _ => {
            let _ = context;
            api::alloc_aligned(Plain, size, align)
        }
    }
}

unsafe fn give(context: *mut c_void, ptr: *mut u8, size: usize) {
    // SAFETY: a block of `take`, whose mode is that of the process.
    unsafe {
        match api::mode() {
            #[cfg(feature = "track")]
            api::TRACKED.. => crate::tracked::give(context.addr() as u32, ptr, size),
            _ => {
                let _ = context;
                Plain.free_sized(ptr, size);
            }
        }
    }
}

/// The process's allocator, for what is made at `place`.
///
/// # Safety
/// The place's file is null or zero-terminated.
#[must_use]
pub unsafe fn source(place: Place) -> Source {
    #[cfg(feature = "track")]
    let number = match api::mode() {
        // SAFETY: the caller's promise.
        api::TRACKED.. => unsafe { crate::tracked::number_of(place.file, place.line) },
        _ => 0,
    };
    #[cfg(not(feature = "track"))]
    let number = {
        let _ = place;
        0
    };
    let tools = tools::watch().then_some(&TOOLS);
    // SAFETY: the process's allocator serves any thread at any time.
    unsafe { Source::new(take, give, ptr::without_provenance_mut(number as usize)) }.watched(tools)
}

/// No memory but a buffer's; a tool still watches it.
#[must_use]
pub fn no_source() -> Source {
    Source::NONE.watched(tools::watch().then_some(&TOOLS))
}

/// Whether free memory is filled and looked at.
#[must_use]
pub fn guards() -> bool {
    settings::guards()
}

/// What a fault's report names: the kind of owner, its name and where it was made.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub(crate) what: &'static str,
    pub(crate) label: Label,
}

struct Text(*const c_char);

impl core::fmt::Display for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // SAFETY: labels and places hold zero-terminated texts.
        let text = unsafe { CStr::from_ptr(self.0) };
        f.write_str(text.to_str().unwrap_or("(not UTF-8)"))
    }
}

/// A zero-terminated copy of a short text, for the program's handler.
fn terminated<const N: usize>(text: &str) -> [u8; N] {
    let mut copy = [0; N];
    let length = text.len().min(N - 1);
    copy[..length].copy_from_slice(&text.as_bytes()[..length]);
    copy
}

fn seen(place: Place) -> allokit_core::Place {
    allokit_core::Place { file: place.file, line: place.line, ..allokit_core::Place::UNKNOWN }
}

/// The fault as the program's handler sees it, with the texts of `operation` and of the owner's kind, which are to outlive
/// it.
fn facts(
    kind: FaultKind,
    operation: &[u8; 24],
    owner: Option<&Owner>,
    what: &[u8; 8],
    here: Place,
) -> allokit_core::Fault {
    let mut fault = allokit_core::Fault::new(kind);
    fault.operation = operation.as_ptr().cast();
    fault.now = seen(here);
    if let Some(owner) = owner {
        fault.owner = what.as_ptr().cast();
        fault.name = owner.label.name;
        fault.made = seen(Place { file: owner.label.file, line: owner.label.line });
    }
    fault
}

/// What C calls it. `operation`: see [`raise`].
fn kind_of(kind: Kind, operation: &str, owner: Option<&Owner>) -> FaultKind {
    match kind {
        // The owner of a region's block is found by the block: without one it is nobody's.
        Kind::Foreign if owner.is_none() && matches!(operation, "free" | "usable size") => FaultKind::InvalidFree,
        Kind::Foreign => FaultKind::AllocatorMismatch,
        Kind::StaleMark => FaultKind::UseAfterReset,
        Kind::DoubleFree => FaultKind::DoubleFree,
        Kind::OutOfOrder => FaultKind::OutOfOrder,
        Kind::WriteAfterReset => FaultKind::WriteAfterFree,
        Kind::Ended => FaultKind::UseAfterDestroy,
        // Corrupt, and what is new.
        _ => FaultKind::CorruptedArena,
    }
}

/// Counts a fault, and deals with it by policy. `operation`: a verb, as "rewind".
#[cold]
pub fn raise(operation: &str, owner: Option<Owner>, found: Fault, here: Place) {
    let kind = kind_of(found.kind, operation, owner.as_ref());
    report(kind, operation, owner, found.address, found.kind.text(), here);
}

/// As [`raise`], for what another crate has found.
#[cold]
pub(crate) fn report(kind: FaultKind, operation: &str, owner: Option<Owner>, address: usize, text: &str, here: Place) {
    let texts = (terminated(operation), terminated(owner.map_or("", |owner| owner.what)));
    let mut facts = facts(kind, &texts.0, owner.as_ref(), &texts.1, here);
    facts.block = ptr::without_provenance(address);
    fault::raise(&facts, |out| {
        write!(out, "allokit: {operation}")?;
        if address != 0 {
            write!(out, " of {address:#x}")?;
        }
        if let Some(owner) = owner {
            write!(out, " in {}", owner.what)?;
            if !owner.label.name.is_null() {
                write!(out, " \"{}\"", Text(owner.label.name))?;
            }
        }
        writeln!(out, ": {text}")?;
        if let Some(owner) = owner
            && !owner.label.file.is_null()
        {
            writeln!(out, "  {} made at {}:{}", owner.what, Text(owner.label.file), owner.label.line)?;
        }
        if here.file.is_null() {
            return Ok(());
        }
        writeln!(out, "  {operation} at {}:{}", Text(here.file), here.line)
    });
    errno::set(errno::EINVAL);
}

/// Tells the program's handler of a request of `size` bytes that failed; ENOMEM.
#[cold]
pub(crate) fn no_memory(operation: &str, owner: Option<Owner>, here: Place, size: usize) {
    let texts = (terminated(operation), terminated(owner.map_or("", |owner| owner.what)));
    let mut facts = facts(FaultKind::OutOfMemory, &texts.0, owner.as_ref(), &texts.1, here);
    facts.size = size;
    fault::tell(&facts);
    errno::set(errno::ENOMEM);
}

/// The result, or `errno` and what else belongs to an error. `size`: what was asked for, 0 where nothing was.
fn settle<T>(
    result: Result<T, Error>,
    operation: &str,
    owner: impl FnOnce() -> Option<Owner>,
    here: Place,
    size: usize,
) -> Option<T> {
    match result {
        Ok(value) => return Some(value),
        Err(Error::Fault(found)) => raise(operation, owner(), found, here),
        Err(Error::NoMemory) => no_memory(operation, owner(), here, size),
        Err(Error::Invalid) => errno::set(errno::EINVAL),
        Err(Error::Busy) => errno::set(errno::EBUSY),
    }
    None
}

/// The pointer of a block, or null with `errno`.
macro_rules! block {
    ($result:expr) => {
        $result.map_or(ptr::null_mut(), |block| block.as_ptr())
    };
}

/// Whether an owner lives. NULL is an argument that is none (EINVAL); one that has ended is a fault.
macro_rules! alive {
    ($($name:ident $module:ident $what:literal;)*) => {$(
        #[inline]
        unsafe fn $name(one: *mut $module::Raw, operation: &str, here: Place) -> bool {
            // SAFETY: the caller's promise, as far as it goes.
            if unsafe { $module::Raw::is_alive(one) } {
                return true;
            }
            refuse(one.cast(), $what, operation, here);
            false
        }
    )*};
}

#[cold]
#[inline(never)]
fn refuse(one: *mut c_void, what: &'static str, operation: &str, here: Place) {
    if one.is_null() {
        errno::set(errno::EINVAL);
        return;
    }
    raise(operation, Some(Owner { what, label: Label::NONE }), Fault { kind: Kind::Ended, address: one.addr() }, here);
}

alive! {
    arena_lives arena "arena";
    region_lives region "region";
    pool_lives pool "pool";
    stack_lives stack "stack";
}

// ---- arenas ----

/// The functions below are what alloc.h says of the C functions of the same names.
///
/// # Safety of all functions here
/// As alloc.h says.
#[allow(clippy::missing_safety_doc)]
pub mod arenas {
    use super::*;

    unsafe fn owner(a: *mut arena::Raw) -> Option<Owner> {
        // SAFETY: it lives.
        Some(Owner { what: "arena", label: unsafe { arena::Raw::label(a) } })
    }

    /// What was noticed on the way.
    #[inline]
    unsafe fn noticed(a: *mut arena::Raw, operation: &str, here: Place) {
        // SAFETY: it lives.
        unsafe {
            if let Some(found) = arena::Raw::take_fault(a) {
                let _errno = errno::Saved::new();
                raise(operation, owner(a), found, here);
            }
        }
    }

    /// `ak_arena_new`, and `ak_arena_child` with a parent
    pub unsafe fn new(parent: *mut arena::Raw, options: &arena::Options, here: Place) -> *mut arena::Raw {
        // SAFETY: the caller's promise.
        unsafe {
            let made = if parent.is_null() {
                arena::Raw::create(options)
            } else {
                if !arena_lives(parent, "making a child", here) {
                    return ptr::null_mut();
                }
                let of = arena::Raw::options(parent);
                let source = match of.source.exists() {
                    // What is in a heap stays in it.
                    true if crate::heap::is_source(&of.source) => of.source,
                    true => options.source,
                    false => Source::NONE.watched(of.source.tools()),
                };
                let guard = options.guard || of.guard;
                arena::Raw::child(parent, &arena::Options { source, guard, ..*options })
            };
            block!(settle(made, "making an arena", || None, here, options.first_chunk))
        }
    }

    /// `ak_arena_destroy`
    pub unsafe fn destroy(a: *mut arena::Raw, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if !a.is_null() && arena_lives(a, "destroy", here) {
                arena::Raw::destroy(a);
            }
        }
    }

    /// `ak_arena_alloc`; what the inline form calls
    pub unsafe fn alloc(a: *mut arena::Raw, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !arena_lives(a, "alloc", Place::NONE) {
                return ptr::null_mut();
            }
            let result = block!(settle(arena::Raw::alloc(a, size), "alloc", || owner(a), Place::NONE, size));
            noticed(a, "alloc", Place::NONE);
            result
        }
    }

    /// `ak_arena_alloc_aligned`
    pub unsafe fn alloc_aligned(a: *mut arena::Raw, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !arena_lives(a, "alloc", Place::NONE) {
                return ptr::null_mut();
            }
            let result =
                block!(settle(arena::Raw::alloc_aligned(a, size, align), "alloc", || owner(a), Place::NONE, size));
            noticed(a, "alloc", Place::NONE);
            result
        }
    }

    /// `ak_arena_calloc`
    pub unsafe fn calloc(a: *mut arena::Raw, count: usize, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; the block is fresh.
        unsafe {
            // Too much for any arena.
            let bytes = allokit_core::array_size(count, size).unwrap_or(usize::MAX);
            let block = alloc(a, bytes);
            if !block.is_null() {
                block.write_bytes(0, bytes);
            }
            block
        }
    }

    /// `ak_arena_realloc`
    pub unsafe fn realloc(a: *mut arena::Raw, block: *mut u8, old: usize, new: usize, here: Place) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !arena_lives(a, "realloc", here) {
                return ptr::null_mut();
            }
            let resized = settle(arena::Raw::realloc(a, block, old, new), "realloc", || owner(a), here, new).flatten();
            noticed(a, "realloc", here);
            block!(resized)
        }
    }

    /// `ak_arena_memdup`, `ak_arena_strndup`: a copy of `size` bytes, and a zero byte when it is a text
    pub unsafe fn copy(a: *mut arena::Raw, from: *const u8, size: usize, text: bool) -> *mut u8 {
        // SAFETY: the caller's promise; the block is fresh.
        unsafe {
            if from.is_null() && (size != 0 || text) {
                errno::set(errno::EINVAL);
                return ptr::null_mut();
            }
            let copy = alloc(a, size.saturating_add(usize::from(text)));
            if !copy.is_null() {
                copy.copy_from_nonoverlapping(from, size);
                if text {
                    copy.add(size).write(0);
                }
            }
            copy
        }
    }

    /// `ak_arena_strdup`, `ak_arena_strndup`
    pub unsafe fn text(a: *mut arena::Raw, from: *const c_char, most: usize) -> *mut c_char {
        let mut length = 0;
        // SAFETY: bytes are read one by one up to the first zero or `most`.
        unsafe {
            while !from.is_null() && length < most && *from.add(length) != 0 {
                length += 1;
            }
            copy(a, from.cast(), length, true).cast()
        }
    }

    /// `ak_arena_vsprintf`
    pub unsafe fn vsprintf(
        a: *mut arena::Raw,
        format: *const c_char,
        arguments: *mut allokit_platform::va::VaList,
    ) -> *mut c_char {
        use allokit_platform::va;
        // SAFETY: the caller's promise; the tail of the arena is free memory, and the block has the measured length.
        unsafe {
            if !arena_lives(a, "sprintf", Place::NONE) {
                return ptr::null_mut();
            }
            if format.is_null() {
                errno::set(errno::EINVAL);
                return ptr::null_mut();
            }
            let (place, room) = arena::Raw::tail(a);
            let place = if room == 0 { ptr::null_mut() } else { place.cast() };
            let length = va::format(place, room, format, arguments);
            // Negative: errno says why.
            let Ok(length) = usize::try_from(length) else { return ptr::null_mut() };
            if length < room {
                return block!(settle(
                    arena::Raw::commit(a, length + 1),
                    "sprintf",
                    || owner(a),
                    Place::NONE,
                    length + 1
                ))
                .cast();
            }
            let text = alloc(a, length + 1).cast::<c_char>();
            if !text.is_null() {
                va::format(text, length + 1, format, arguments);
            }
            text
        }
    }

    /// `ak_arena_mark`; a null arena gives a mark of none
    pub unsafe fn mark(a: *mut arena::Raw) -> Option<arena::Mark> {
        // SAFETY: the caller's promise.
        unsafe { arena_lives(a, "mark", Place::NONE).then(|| arena::Raw::mark(a)) }
    }

    /// `ak_arena_rewind`
    pub unsafe fn rewind(a: *mut arena::Raw, mark: &arena::Mark, here: Place) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            arena_lives(a, "rewind", here)
                && settle(arena::Raw::rewind(a, mark), "rewind", || owner(a), here, 0).is_some()
        }
    }

    /// `ak_arena_reset`
    pub unsafe fn reset(a: *mut arena::Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            if arena_lives(a, "reset", Place::NONE) {
                arena::Raw::reset(a);
            }
        }
    }

    /// `ak_arena_clear`
    pub unsafe fn clear(a: *mut arena::Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            if arena_lives(a, "clear", Place::NONE) {
                arena::Raw::clear(a);
            }
        }
    }

    /// `ak_arena_trim`
    pub unsafe fn trim(a: *mut arena::Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if arena_lives(a, "trim", Place::NONE) { arena::Raw::trim(a) } else { 0 } }
    }

    /// `ak_arena_owns`
    pub unsafe fn owns(a: *mut arena::Raw, address: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { arena_lives(a, "owns", Place::NONE) && arena::Raw::owns(a, address) }
    }

    /// `ak_arena_stats`
    pub unsafe fn stats(a: *mut arena::Raw) -> Option<arena::Stats> {
        // SAFETY: the caller's promise.
        unsafe { arena_lives(a, "stats", Place::NONE).then(|| arena::Raw::stats(a)) }
    }

    /// `ak_arena_check`
    pub unsafe fn check(a: *mut arena::Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if arena_lives(a, "check", Place::NONE) { arena::Raw::check(a) } else { 1 } }
    }
}

// ---- scratch ----

/// Where a thread's cell points before it has a set: compared, and never used.
static NOBODY: u64 = 0;

allokit_platform::thread_cell! { pub(crate) static SCRATCH: *mut u64 = NOBODY; }

static AT_THREAD_END: thread::Key = thread::Key::new(end_thread);

unsafe extern "C" fn end_thread(set: *mut c_void) {
    SCRATCH::set((&raw const NOBODY).cast_mut());
    // SAFETY: the thread's own set, made below; nobody uses it any more.
    unsafe {
        set.cast::<Scratch>().drop_in_place();
        give(ptr::null_mut(), set.cast(), size_of::<Scratch>());
    }
}

/// This thread's set, made now if it has none; null when there is no memory.
fn scratch_set() -> *mut Scratch {
    let set = SCRATCH::get();
    if !ptr::eq(set, &raw const NOBODY) {
        return set.cast();
    }
    // SAFETY: the memory is the set's.
    unsafe {
        let made = take(ptr::null_mut(), size_of::<Scratch>(), allokit_core::MIN_ALIGN).cast::<Scratch>();
        if !made.is_null() {
            made.write(Scratch::new(source(Place::NONE)));
            SCRATCH::set(made.cast());
            // Without a key left the set stays when the thread ends.
            AT_THREAD_END.set(made.cast());
        }
        made
    }
}

/// `ak_scratch_begin`
#[must_use]
pub fn scratch_begin() -> Stretch {
    // SAFETY: this thread's set.
    let Some(set) = (unsafe { scratch_set().as_mut() }) else { return Stretch::NONE };
    // SAFETY: no place.
    let from = unsafe { source(Place::NONE) };
    let name = Label { name: c"scratch".as_ptr(), ..Label::NONE };
    let options = arena::Options { label: name, guard: guards(), ..arena::Options::new(from) };
    // SAFETY: the options name no buffer and no callback.
    settle(unsafe { set.begin(&options) }, "scratch begin", || None, Place::NONE, 0).unwrap_or(Stretch::NONE)
}

/// `ak_scratch_end`
///
/// # Safety
/// As alloc.h says.
pub unsafe fn scratch_end(stretch: &Stretch, here: Place) {
    if stretch.arena.is_null() {
        return;
    }
    let set = SCRATCH::get();
    let ended = if ptr::eq(set, &raw const NOBODY) {
        Err(Error::Fault(Fault { kind: Kind::Foreign, address: stretch.arena.addr() }))
    } else {
        // SAFETY: this thread's set.
        unsafe { (*set.cast::<Scratch>()).end(stretch) }
    };
    settle(ended, "scratch end", || None, here, 0);
}

// ---- regions ----

/// As [`arenas`].
#[allow(clippy::missing_safety_doc)]
pub mod regions {
    use super::*;

    unsafe fn owner(r: *mut region::Raw) -> Option<Owner> {
        // SAFETY: it lives.
        Some(Owner { what: "region", label: unsafe { region::Raw::label(r) } })
    }

    /// The owner of a block, if it can be told.
    unsafe fn owner_of(block: *mut u8) -> Option<Owner> {
        // SAFETY: the pointer was a block's, by the caller's word.
        unsafe { region::Raw::of(block).and_then(|r| owner(r.as_ptr())) }
    }

    fn label(here: Place) -> Label {
        Label { name: ptr::null(), file: here.file, line: here.line }
    }

    /// `ak_region_from_buffer`
    pub unsafe fn from_buffer(buffer: *mut u8, size: usize, here: Place) -> *mut region::Raw {
        // SAFETY: the caller's promise.
        unsafe {
            block!(settle(region::Raw::in_buffer(buffer, size, label(here)), "making a region", || None, here, size))
        }
    }

    /// `ak_region_new`
    pub unsafe fn new(size: usize, here: Place) -> *mut region::Raw {
        // SAFETY: the caller's promise.
        unsafe {
            block!(settle(region::Raw::create(size, source(here), label(here)), "making a region", || None, here, size))
        }
    }

    /// `ak_region_child`
    pub unsafe fn child(r: *mut region::Raw, size: usize, here: Place) -> *mut region::Raw {
        // SAFETY: the caller's promise.
        unsafe {
            if !region_lives(r, "making a child", here) {
                return ptr::null_mut();
            }
            block!(settle(region::Raw::child(r, size, label(here)), "making a region", || owner(r), here, size))
        }
    }

    /// `ak_region_destroy`
    pub unsafe fn destroy(r: *mut region::Raw, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if !r.is_null() && region_lives(r, "destroy", here) {
                settle(region::Raw::destroy(r), "destroy", || None, here, 0);
            }
        }
    }

    /// `ak_region_alloc`
    #[inline]
    pub unsafe fn alloc(r: *mut region::Raw, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if region::Raw::is_alive(r)
                && let Some(block) = region::Raw::alloc_waiting(r, size)
            {
                return block.as_ptr();
            }
            alloc_fit(r, size)
        }
    }

    #[inline(never)]
    unsafe fn alloc_fit(r: *mut region::Raw, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !region_lives(r, "alloc", Place::NONE) {
                return ptr::null_mut();
            }
            block!(settle(region::Raw::alloc_fit(r, size), "alloc", || owner(r), Place::NONE, size))
        }
    }

    /// `ak_region_alloc_aligned`
    pub unsafe fn alloc_aligned(r: *mut region::Raw, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !region_lives(r, "alloc", Place::NONE) {
                return ptr::null_mut();
            }
            block!(settle(region::Raw::alloc_aligned(r, size, align), "alloc", || owner(r), Place::NONE, size))
        }
    }

    /// `ak_region_calloc`
    pub unsafe fn calloc(r: *mut region::Raw, count: usize, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !region_lives(r, "alloc", Place::NONE) {
                return ptr::null_mut();
            }
            block!(settle(
                region::Raw::calloc(r, count, size),
                "alloc",
                || owner(r),
                Place::NONE,
                count.saturating_mul(size)
            ))
        }
    }

    /// `ak_region_realloc`
    pub unsafe fn realloc(r: *mut region::Raw, block: *mut u8, size: usize, here: Place) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !region_lives(r, "realloc", here) {
                return ptr::null_mut();
            }
            block!(settle(region::Raw::realloc(r, block, size), "realloc", || owner(r), here, size).flatten())
        }
    }

    /// `ak_region_free`
    #[inline]
    pub unsafe fn free(block: *mut u8, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if !block.is_null() && !region::Raw::free_to_wait(block) {
                free_now(block, here);
            }
        }
    }

    #[inline(never)]
    unsafe fn free_now(block: *mut u8, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Err(error) = region::Raw::free_now(block) {
                let _errno = errno::Saved::new();
                settle::<()>(Err(error), "free", || owner_of(block), here, 0);
            }
        }
    }

    /// `ak_region_usable_size`
    pub unsafe fn usable_size(block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        // SAFETY: the caller's promise.
        unsafe { settle(region::Raw::usable(block), "usable size", || owner_of(block), Place::NONE, 0).unwrap_or(0) }
    }

    /// `ak_region_scratch`
    pub unsafe fn scratch(r: *mut region::Raw, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !region_lives(r, "scratch", Place::NONE) {
                return ptr::null_mut();
            }
            block!(settle(region::Raw::scratch(r, size), "scratch", || owner(r), Place::NONE, size))
        }
    }

    /// `ak_region_reset`, `ak_region_reset_zero`
    pub unsafe fn reset(r: *mut region::Raw, zero: bool) {
        // SAFETY: the caller's promise.
        unsafe {
            if region_lives(r, "reset", Place::NONE) {
                if zero { region::Raw::reset_zero(r) } else { region::Raw::reset(r) }
            }
        }
    }

    /// `ak_region_owns`
    pub unsafe fn owns(r: *mut region::Raw, address: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { region_lives(r, "owns", Place::NONE) && region::Raw::owns(r, address) }
    }

    /// `ak_region_check`
    pub unsafe fn check(r: *mut region::Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if region_lives(r, "check", Place::NONE) { region::Raw::check(r) } else { 1 } }
    }

    /// `ak_region_stats`
    pub unsafe fn stats(r: *mut region::Raw) -> Option<region::Stats> {
        // SAFETY: the caller's promise.
        unsafe { region_lives(r, "stats", Place::NONE).then(|| region::Raw::stats(r)) }
    }

    /// `ak_region_print`, `ak_region_write`
    pub unsafe fn print(r: *mut region::Raw, out: &mut dyn Write) -> bool {
        // SAFETY: the caller's promise.
        unsafe { region_lives(r, "print", Place::NONE) && region::Raw::print(r, out).is_ok() }
    }
}

// ---- pools ----

/// As [`arenas`].
#[allow(clippy::missing_safety_doc)]
pub mod pools {
    use super::*;

    unsafe fn owner(p: *mut pool::Raw) -> Option<Owner> {
        // SAFETY: it lives.
        Some(Owner { what: "pool", label: unsafe { pool::Raw::label(p) } })
    }

    /// `ak_pool_new`
    pub unsafe fn new(size: usize, options: &pool::Options, here: Place) -> *mut pool::Raw {
        // SAFETY: the caller's promise.
        unsafe { block!(settle(pool::Raw::create(size, options), "making a pool", || None, here, size)) }
    }

    /// `ak_pool_destroy`
    pub unsafe fn destroy(p: *mut pool::Raw, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if !p.is_null() && pool_lives(p, "destroy", here) {
                pool::Raw::destroy(p);
            }
        }
    }

    /// `ak_pool_take`
    pub unsafe fn take(p: *mut pool::Raw) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !pool_lives(p, "take", Place::NONE) {
                return ptr::null_mut();
            }
            match pool::Raw::take(p) {
                // The list behind a damaged object is lost; the next one is carved.
                Err(Error::Fault(found)) => {
                    raise("take", owner(p), found, Place::NONE);
                    block!(settle(pool::Raw::take(p), "take", || owner(p), Place::NONE, pool::Raw::stride(p)))
                }
                result => block!(settle(result, "take", || owner(p), Place::NONE, pool::Raw::stride(p))),
            }
        }
    }

    /// `ak_pool_give`
    pub unsafe fn give(p: *mut pool::Raw, object: *mut u8, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if pool_lives(p, "give", here) {
                settle(pool::Raw::give(p, object), "give", || owner(p), here, 0);
            }
        }
    }

    /// `ak_pool_reset`
    pub unsafe fn reset(p: *mut pool::Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            if pool_lives(p, "reset", Place::NONE) {
                pool::Raw::reset(p);
            }
        }
    }

    /// `ak_pool_check`
    pub unsafe fn check(p: *mut pool::Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if pool_lives(p, "check", Place::NONE) { pool::Raw::check(p) } else { 1 } }
    }
}

// ---- stacks ----

/// As [`arenas`].
#[allow(clippy::missing_safety_doc)]
pub mod stacks {
    use super::*;

    unsafe fn owner(s: *mut stack::Raw) -> Option<Owner> {
        // SAFETY: it lives.
        Some(Owner { what: "stack", label: unsafe { stack::Raw::label(s) } })
    }

    /// `ak_stack_new`
    pub unsafe fn new(size: usize, options: &stack::Options, here: Place) -> *mut stack::Raw {
        // SAFETY: the caller's promise.
        unsafe { block!(settle(stack::Raw::create(size, options), "making a stack", || None, here, size)) }
    }

    /// `ak_stack_destroy`
    pub unsafe fn destroy(s: *mut stack::Raw, here: Place) {
        // SAFETY: the caller's promise.
        unsafe {
            if !s.is_null() && stack_lives(s, "destroy", here) {
                stack::Raw::destroy(s);
            }
        }
    }

    /// `ak_stack_push`
    pub unsafe fn push(s: *mut stack::Raw, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if !stack_lives(s, "push", Place::NONE) {
                return ptr::null_mut();
            }
            block!(settle(stack::Raw::push(s, size), "push", || owner(s), Place::NONE, size))
        }
    }

    /// `ak_stack_pop`
    pub unsafe fn pop(s: *mut stack::Raw, block: *mut u8, here: Place) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            stack_lives(s, "pop", here) && settle(stack::Raw::pop(s, block), "pop", || owner(s), here, 0).is_some()
        }
    }

    /// `ak_stack_mark`
    pub unsafe fn mark(s: *mut stack::Raw) -> Option<stack::Mark> {
        // SAFETY: the caller's promise.
        unsafe {
            if stack_lives(s, "mark", Place::NONE) {
                settle(stack::Raw::mark(s), "mark", || owner(s), Place::NONE, 0)
            } else {
                None
            }
        }
    }

    /// `ak_stack_release`
    pub unsafe fn release(s: *mut stack::Raw, mark: &stack::Mark, here: Place) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            stack_lives(s, "release", here)
                && settle(stack::Raw::release(s, mark), "release", || owner(s), here, 0).is_some()
        }
    }

    /// `ak_stack_check`
    pub unsafe fn check(s: *mut stack::Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if stack_lives(s, "check", Place::NONE) { stack::Raw::check(s) } else { 1 } }
    }
}

/// A null pointer's block, for the C layer.
#[must_use]
pub fn pointer(block: Option<NonNull<u8>>) -> *mut u8 {
    block!(block)
}
