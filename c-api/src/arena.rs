//! What `include/allokit/arena.h` declares, one line each over `allokit_select::arena`: options are turned into the Rust
//! ones, figures into the C structs.

use allokit_arena::scratch::Stretch;
use allokit_arena::{Label, arena, pool, region, stack};
use allokit_platform::errno;
use allokit_platform::stderr::Stderr;
use allokit_platform::va::VaList;
use allokit_select::arena::{self as rules, Place, arenas, pools, regions, stacks};
use core::ffi::{c_char, c_void};
use core::mem::MaybeUninit;
use core::ptr;

/// `ak_arena_opts_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)] // arena.h says
pub struct ArenaOpts {
    pub struct_size: usize,
    pub name: *const c_char,
    pub first_chunk: usize,
    pub largest_chunk: usize,
    pub alignment: usize,
    pub limit: usize,
    pub parent: *mut arena::Raw,
    pub buffer: *mut c_void,
    pub buffer_size: usize,
    pub flags: u32,
    pub on_grow: Option<arena::OnGrow>,
    pub arg: *mut c_void,
    pub heap: *mut allokit_heap::Raw,
}

/// `ak_arena_stats_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct ArenaStats {
    pub struct_size: usize,
    pub used_bytes: usize,
    pub reserved_bytes: usize,
    pub waste_bytes: usize,
    pub peak_bytes: usize,
    pub chunk_count: usize,
}

/// `ak_region_stats_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RegionStats {
    pub struct_size: usize,
    pub capacity_bytes: usize,
    pub used_bytes: usize,
    pub free_bytes: usize,
    pub peak_bytes: usize,
    pub largest_free_bytes: usize,
    pub block_count: usize,
}

/// `ak_pool_opts_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct PoolOpts {
    pub struct_size: usize,
    pub name: *const c_char,
    pub alignment: usize,
    pub per_chunk: usize,
    pub limit: usize,
    pub buffer: *mut c_void,
    pub buffer_size: usize,
    pub flags: u32,
}

/// `ak_stack_opts_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StackOpts {
    pub struct_size: usize,
    pub name: *const c_char,
    pub alignment: usize,
    pub buffer: *mut c_void,
}

const FIXED: u32 = 1;
const GUARD: u32 = 2;

/// The caller's options, as many bytes of them as it knows; the rest is zero. `None` when they are too short to hold
/// their own size.
pub(crate) unsafe fn options<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: all options are plain numbers and pointers, for which zero bytes are a value; the caller's struct begins with
    // its size.
    unsafe {
        let mut all = MaybeUninit::<T>::zeroed();
        if !from.is_null() {
            let size = *from.cast::<usize>();
            if size < size_of::<usize>() {
                errno::set(errno::EINVAL);
                return None;
            }
            all.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast(), size.min(size_of::<T>()));
        }
        Some(all.assume_init())
    }
}

/// Fills at most as many bytes as the caller's struct has, by its first word, and sets that.
pub(crate) unsafe fn fill<T: Copy>(to: *mut T, figures: Option<T>) -> bool {
    // SAFETY: as above.
    unsafe {
        let Some(mut figures) = figures else { return false };
        let size = if to.is_null() { 0 } else { *to.cast::<usize>() };
        if size < size_of::<usize>() {
            errno::set(errno::EINVAL);
            return false;
        }
        let size = size.min(size_of::<T>());
        (&raw mut figures).cast::<usize>().write(size);
        to.cast::<u8>().copy_from_nonoverlapping((&raw const figures).cast(), size);
        true
    }
}

pub(crate) fn at(file: *const c_char, line: u32) -> Place {
    Place { file, line }
}

/// A function, and its form with a place.
macro_rules! placed {
    ($($name:ident $at:ident = |$here:ident $(, $arg:ident: $type:ty)*| $(-> $result:ty)? $body:block)*) => {$(
        #[doc = concat!("See `", stringify!($name), "` in its header.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            let $here = Place::NONE;
            // SAFETY: the C caller's promise.
            unsafe { $body }
        }

        #[doc = concat!("See `", stringify!($at), "` in its header.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $at($($arg: $type,)* file: *const c_char, line: u32) $(-> $result)? {
            let $here = at(file, line);
            // SAFETY: the C caller's promise.
            unsafe { $body }
        }
    )*};
}

macro_rules! plain {
    ($($name:ident = |$($arg:ident: $type:ty),*| $(-> $result:ty)? $body:block)*) => {$(
        #[doc = concat!("See `", stringify!($name), "` in its header.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the C caller's promise.
            unsafe { $body }
        }
    )*};
}

unsafe fn new_arena(parent: *mut arena::Raw, opts: *const ArenaOpts, here: Place) -> *mut arena::Raw {
    // SAFETY: the C caller's promise.
    unsafe {
        let Some(opts) = options(opts) else { return ptr::null_mut() };
        let fixed = opts.flags & FIXED != 0;
        if fixed && opts.buffer.is_null() || !parent.is_null() && !opts.parent.is_null() && parent != opts.parent {
            errno::set(errno::EINVAL);
            return ptr::null_mut();
        }
        let source = if opts.heap.is_null() {
            if fixed { rules::no_source() } else { rules::source(here) }
        } else {
            // One owner is enough: an arena in an arena in a heap is that heap's already.
            if fixed || !parent.is_null() || !opts.parent.is_null() {
                errno::set(errno::EINVAL);
                return ptr::null_mut();
            }
            let Some(source) = allokit_select::heap::source(opts.heap, here) else { return ptr::null_mut() };
            source
        };
        let options = arena::Options {
            label: Label { name: opts.name, file: here.file, line: here.line },
            first_chunk: opts.first_chunk,
            largest_chunk: opts.largest_chunk,
            alignment: opts.alignment,
            limit: opts.limit,
            buffer: opts.buffer.cast(),
            buffer_size: opts.buffer_size,
            guard: opts.flags & GUARD != 0 || rules::guards(),
            on_grow: opts.on_grow,
            argument: opts.arg,
            source,
        };
        arenas::new(if parent.is_null() { opts.parent } else { parent }, &options, here)
    }
}

placed! {
    ak_arena_new ak_arena_new_at = |here, opts: *const ArenaOpts| -> *mut arena::Raw {
        new_arena(ptr::null_mut(), opts, here)
    }
    ak_arena_child ak_arena_child_at = |here, a: *mut arena::Raw, opts: *const ArenaOpts| -> *mut arena::Raw {
        if a.is_null() {
            errno::set(errno::EINVAL);
            return ptr::null_mut();
        }
        new_arena(a, opts, here)
    }
    ak_arena_destroy ak_arena_destroy_at = |here, a: *mut arena::Raw| { arenas::destroy(a, here) }
    ak_arena_realloc ak_arena_realloc_at
        = |here, a: *mut arena::Raw, p: *mut c_void, old_size: usize, new_size: usize| -> *mut c_void {
            arenas::realloc(a, p.cast(), old_size, new_size, here).cast()
        }
    ak_arena_rewind ak_arena_rewind_at = |here, a: *mut arena::Raw, mark: arena::Mark| -> bool {
        arenas::rewind(a, &mark, here)
    }
    ak_scratch_end ak_scratch_end_at = |here, s: Stretch| { rules::scratch_end(&s, here) }
    ak_region_from_buffer ak_region_from_buffer_at = |here, mem: *mut c_void, size: usize| -> *mut region::Raw {
        regions::from_buffer(mem.cast(), size, here)
    }
    ak_region_new ak_region_new_at = |here, size: usize| -> *mut region::Raw { regions::new(size, here) }
    ak_region_child ak_region_child_at = |here, r: *mut region::Raw, size: usize| -> *mut region::Raw {
        regions::child(r, size, here)
    }
    ak_region_destroy ak_region_destroy_at = |here, r: *mut region::Raw| { regions::destroy(r, here) }
    ak_region_realloc ak_region_realloc_at
        = |here, r: *mut region::Raw, p: *mut c_void, size: usize| -> *mut c_void {
            regions::realloc(r, p.cast(), size, here).cast()
        }
    ak_region_free ak_region_free_at = |here, p: *mut c_void| { regions::free(p.cast(), here) }
    ak_pool_new ak_pool_new_at = |here, object_size: usize, opts: *const PoolOpts| -> *mut pool::Raw {
        let Some(opts) = options(opts) else { return ptr::null_mut() };
        let fixed = opts.flags & FIXED != 0;
        if fixed && opts.buffer.is_null() {
            errno::set(errno::EINVAL);
            return ptr::null_mut();
        }
        let options = pool::Options {
            label: Label { name: opts.name, file: here.file, line: here.line },
            alignment: opts.alignment,
            per_chunk: opts.per_chunk,
            limit: opts.limit,
            buffer: opts.buffer.cast(),
            buffer_size: opts.buffer_size,
            guard: opts.flags & GUARD != 0 || rules::guards(),
            source: if fixed { rules::no_source() } else { rules::source(here) },
        };
        pools::new(object_size, &options, here)
    }
    ak_pool_destroy ak_pool_destroy_at = |here, p: *mut pool::Raw| { pools::destroy(p, here) }
    ak_stack_new ak_stack_new_at = |here, size: usize, opts: *const StackOpts| -> *mut stack::Raw {
        let Some(opts) = options(opts) else { return ptr::null_mut() };
        let options = stack::Options {
            label: Label { name: opts.name, file: here.file, line: here.line },
            alignment: opts.alignment,
            buffer: opts.buffer.cast(),
            source: rules::source(here),
        };
        stacks::new(size, &options, here)
    }
    ak_stack_destroy ak_stack_destroy_at = |here, s: *mut stack::Raw| { stacks::destroy(s, here) }
    ak_stack_pop ak_stack_pop_at = |here, s: *mut stack::Raw, p: *mut c_void| -> bool { stacks::pop(s, p.cast(), here) }
    ak_stack_release ak_stack_release_at = |here, s: *mut stack::Raw, mark: stack::Mark| -> bool {
        stacks::release(s, &mark, here)
    }
}

plain! {
    ak_arena_alloc = |a: *mut arena::Raw, size: usize| -> *mut c_void { arenas::alloc(a, size).cast() }
    ak_arena_more_2 = |a: *mut arena::Raw, size: usize| -> *mut c_void { arenas::alloc(a, size).cast() }
    ak_arena_alloc_aligned = |a: *mut arena::Raw, size: usize, alignment: usize| -> *mut c_void {
        arenas::alloc_aligned(a, size, alignment).cast()
    }
    ak_arena_calloc = |a: *mut arena::Raw, count: usize, size: usize| -> *mut c_void {
        arenas::calloc(a, count, size).cast()
    }
    ak_arena_strdup = |a: *mut arena::Raw, s: *const c_char| -> *mut c_char { arenas::text(a, s, usize::MAX) }
    ak_arena_strndup = |a: *mut arena::Raw, s: *const c_char, n: usize| -> *mut c_char { arenas::text(a, s, n) }
    ak_arena_memdup = |a: *mut arena::Raw, p: *const c_void, n: usize| -> *mut c_void {
        arenas::copy(a, p.cast(), n, false).cast()
    }
    ak_arena_vsprintf = |a: *mut arena::Raw, format: *const c_char, arguments: *mut VaList| -> *mut c_char {
        arenas::vsprintf(a, format, arguments)
    }
    ak_arena_mark = |a: *mut arena::Raw| -> arena::Mark { arenas::mark(a).unwrap_or(arena::Mark::NONE) }
    ak_arena_reset = |a: *mut arena::Raw| { arenas::reset(a) }
    ak_arena_clear = |a: *mut arena::Raw| { arenas::clear(a) }
    ak_arena_trim = |a: *mut arena::Raw| -> usize { arenas::trim(a) }
    ak_arena_owns = |a: *mut arena::Raw, p: *const c_void| -> bool { arenas::owns(a, p.cast()) }
    ak_arena_stats = |a: *mut arena::Raw, st: *mut ArenaStats| -> bool {
        fill(st, arenas::stats(a).map(|stats| ArenaStats {
            struct_size: 0,
            used_bytes: stats.used,
            reserved_bytes: stats.reserved,
            waste_bytes: stats.waste,
            peak_bytes: stats.peak,
            chunk_count: stats.chunks,
        }))
    }
    ak_arena_check = |a: *mut arena::Raw| -> usize { arenas::check(a) }

    ak_region_alloc = |r: *mut region::Raw, size: usize| -> *mut c_void { regions::alloc(r, size).cast() }
    ak_region_alloc_aligned = |r: *mut region::Raw, size: usize, alignment: usize| -> *mut c_void {
        regions::alloc_aligned(r, size, alignment).cast()
    }
    ak_region_calloc = |r: *mut region::Raw, count: usize, size: usize| -> *mut c_void {
        regions::calloc(r, count, size).cast()
    }
    ak_region_usable_size = |p: *mut c_void| -> usize { regions::usable_size(p.cast()) }
    ak_region_scratch = |r: *mut region::Raw, size: usize| -> *mut c_void { regions::scratch(r, size).cast() }
    ak_region_reset = |r: *mut region::Raw| { regions::reset(r, false) }
    ak_region_reset_zero = |r: *mut region::Raw| { regions::reset(r, true) }
    ak_region_owns = |r: *mut region::Raw, p: *const c_void| -> bool { regions::owns(r, p.cast()) }
    ak_region_check = |r: *mut region::Raw| -> usize { regions::check(r) }
    ak_region_stats = |r: *mut region::Raw, st: *mut RegionStats| -> bool {
        fill(st, regions::stats(r).map(|stats| RegionStats {
            struct_size: 0,
            capacity_bytes: stats.capacity,
            used_bytes: stats.used,
            free_bytes: stats.free,
            peak_bytes: stats.peak,
            largest_free_bytes: stats.largest_free,
            block_count: stats.blocks,
        }))
    }
    ak_region_print = |r: *mut region::Raw| { regions::print(r, &mut Stderr::new()); }
    ak_region_write = |r: *mut region::Raw, write: crate::WriteFn, arg: *mut c_void| -> bool {
        match write {
            Some(write) => regions::print(r, &mut crate::Writer { write, arg }),
            None => crate::invalid(),
        }
    }

    ak_pool_take = |p: *mut pool::Raw| -> *mut c_void { pools::take(p).cast() }
    ak_pool_take_2 = |p: *mut pool::Raw| -> *mut c_void { pools::take(p).cast() }
    ak_pool_give = |p: *mut pool::Raw, object: *mut c_void| { pools::give(p, object.cast(), Place::NONE) }
    ak_pool_give_1 = |p: *mut pool::Raw, object: *mut c_void, file: *const c_char, line: u32| {
        pools::give(p, object.cast(), at(file, line))
    }
    ak_pool_reset = |p: *mut pool::Raw| { pools::reset(p) }
    ak_pool_check = |p: *mut pool::Raw| -> usize { pools::check(p) }

    ak_stack_push = |s: *mut stack::Raw, size: usize| -> *mut c_void { stacks::push(s, size).cast() }
    ak_stack_mark = |s: *mut stack::Raw| -> stack::Mark { stacks::mark(s).unwrap_or(stack::Mark::NONE) }
    ak_stack_check = |s: *mut stack::Raw| -> usize { stacks::check(s) }
}

/// See `ak_scratch_begin` in arena.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_scratch_begin() -> Stretch {
    rules::scratch_begin()
}
