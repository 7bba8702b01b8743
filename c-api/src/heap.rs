//! What `include/allokit/heap.h` declares, one line each over `allokit_select::heap`.

use crate::arena::{at, fill, options};
use allokit_heap::Raw;
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
        heaps::realloc(heap, p.cast(), size, here).cast()
    }
    ak_heap_free ak_heap_free_at = |here, heap: *mut Raw, p: *mut c_void| { heaps::free(heap, p.cast(), here) }
}

plain! {
    ak_heap_alloc = |heap: *mut Raw, size: usize| -> *mut c_void { heaps::alloc(heap, size).cast() }
    ak_heap_calloc = |heap: *mut Raw, count: usize, size: usize| -> *mut c_void {
        heaps::calloc(heap, count, size).cast()
    }
    ak_heap_alloc_aligned = |heap: *mut Raw, size: usize, alignment: usize| -> *mut c_void {
        heaps::alloc_aligned(heap, size, alignment).cast()
    }
    ak_heap_strdup = |heap: *mut Raw, s: *const c_char| -> *mut c_char { heaps::text(heap, s, usize::MAX) }
    ak_heap_strndup = |heap: *mut Raw, s: *const c_char, n: usize| -> *mut c_char { heaps::text(heap, s, n) }
    ak_heap_memdup = |heap: *mut Raw, p: *const c_void, n: usize| -> *mut c_void {
        heaps::copy(heap, p.cast(), n, false).cast()
    }
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
    ak_lua_alloc = |heap: *mut c_void, ptr: *mut c_void, _osize: usize, nsize: usize| -> *mut c_void {
        if nsize == 0 {
            heaps::free(heap.cast(), ptr.cast(), Place::NONE);
            return core::ptr::null_mut();
        }
        heaps::realloc(heap.cast(), ptr.cast(), nsize, Place::NONE).cast()
    }
}
