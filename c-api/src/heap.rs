//! What `include/allokit/heap.h` declares, one line each over `allokit_select::heap`.

use crate::arena::{at, fill, options};
use allokit_heap::Raw;
use allokit_select::api::Origin;
use allokit_select::arena::Place;
use allokit_select::heap::heaps;
use core::ffi::{c_char, c_void};

/// `ak_heap_opts_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)] // heap.h says
pub struct HeapOpts {
    pub struct_size: usize,
    pub name: *const c_char,
    pub limit: usize,
    pub parent: *mut Raw,
}

/// `ak_heap_stats_t`
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct HeapStats {
    pub struct_size: usize,
    pub current_bytes: usize,
    pub peak_bytes: usize,
    pub reserved_bytes: usize,
    pub total_bytes: usize,
    pub limit_bytes: usize,
    pub block_count: usize,
    pub child_count: usize,
    pub alloc_count: u64,
    pub free_count: u64,
    pub failed_count: u64,
}

placed! {
    ak_heap_new ak_heap_new_at = |here, opts: *const HeapOpts| -> *mut Raw {
        match options(opts) {
            Some(opts) => heaps::new(opts.parent, opts.name, opts.limit, here),
            None => core::ptr::null_mut(),
        }
    }
    ak_heap_destroy ak_heap_destroy_at = |here, heap: *mut Raw| -> bool { heaps::destroy(heap, here) }
    ak_heap_reset ak_heap_reset_at = |here, heap: *mut Raw| -> bool { heaps::reset(heap, here) }
    ak_heap_realloc ak_heap_realloc_at = |here, heap: *mut Raw, p: *mut c_void, size: usize| -> *mut c_void {
        heaps::realloc(heap, p.cast(), size, here, 0).cast()
    }
    ak_heap_free ak_heap_free_at = |here, heap: *mut Raw, p: *mut c_void| { heaps::free(heap, p.cast(), here) }
}

plain! {
    ak_heap_owns = |heap: *mut Raw, p: *const c_void| -> bool { heaps::owns(heap, p.cast()) }
    ak_heap_stats = |heap: *mut Raw, st: *mut HeapStats| -> bool {
        fill(st, heaps::stats(heap).map(|stats| HeapStats {
            struct_size: 0,
            current_bytes: stats.current,
            peak_bytes: stats.peak,
            reserved_bytes: stats.reserved,
            total_bytes: stats.total,
            limit_bytes: stats.limit,
            block_count: stats.blocks,
            child_count: stats.children,
            alloc_count: stats.allocs,
            free_count: stats.frees,
            failed_count: stats.failed,
        }))
    }
    ak_heap_assert_balanced = |heap: *mut Raw, context: *const c_char| -> bool {
        heaps::assert_balanced(heap, context)
    }
    ak_heap_check = |heap: *mut Raw| -> usize { heaps::check(heap) }
}

/// Functions that know the address that they return to; `heap_alloc`'s body is entered where nothing is at hand.
macro_rules! called {
    ($($count:tt $name:ident = |$origin:ident, $($arg:ident: $type:ty),*| $(try $quick:block)? -> $result:ty $body:block)*) => {$(
        #[doc(hidden)]
        pub mod $name {
            use super::*;

            #[inline(never)]
            unsafe extern "C" fn slow($($arg: $type,)* caller: usize) -> $result {
                let $origin = Origin::Caller(caller);
                // SAFETY: the C caller's promise.
                unsafe { $body }
            }

            allokit_platform::slow_entry! { $count, fn long_way($($arg: $type),*) -> $result; slow = slow; }

            #[doc = concat!("See `", stringify!($name), "` in its header.")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> $result {
                // SAFETY: the C caller's promise.
                unsafe {
                    $(
                        let block: $result = $quick;
                        if !block.is_null() {
                            return block;
                        }
                    )?
                    long_way($($arg),*)
                }
            }
        }
        pub use $name::$name;
    )*};
}

called! {
    2 ak_heap_alloc = |origin, heap: *mut Raw, size: usize| try { Raw::alloc_quick(heap, size).cast() } -> *mut c_void {
        heaps::alloc_slow(heap, size, origin).cast()
    }
    3 ak_heap_calloc = |origin, heap: *mut Raw, count: usize, size: usize| -> *mut c_void {
        heaps::calloc(heap, count, size, origin).cast()
    }
    3 ak_heap_alloc_aligned = |origin, heap: *mut Raw, size: usize, alignment: usize| -> *mut c_void {
        heaps::alloc_aligned(heap, size, alignment, origin).cast()
    }
    2 ak_heap_strdup = |origin, heap: *mut Raw, s: *const c_char| -> *mut c_char {
        heaps::text(heap, s, usize::MAX, origin)
    }
    3 ak_heap_strndup = |origin, heap: *mut Raw, s: *const c_char, n: usize| -> *mut c_char {
        heaps::text(heap, s, n, origin)
    }
    3 ak_heap_memdup = |origin, heap: *mut Raw, p: *const c_void, n: usize| -> *mut c_void {
        heaps::copy(heap, p.cast(), n, false, origin).cast()
    }
    4 ak_lua_alloc = |origin, heap: *mut c_void, ptr: *mut c_void, osize: usize, nsize: usize| -> *mut c_void {
        let (_, Origin::Caller(caller)) = (osize, origin) else { return core::ptr::null_mut() };
        if nsize == 0 {
            heaps::free(heap.cast(), ptr.cast(), Place::NONE);
            return core::ptr::null_mut();
        }
        heaps::realloc(heap.cast(), ptr.cast(), nsize, Place::NONE, caller).cast()
    }
}
