//! The rules of the C surface, over the backend and over the tracking layer: the same results for the same calls.

use allokit_core::{MAX_ALIGN, MAX_SIZE, Stats};
use allokit_platform::errno;
use allokit_select::api::{self, Plain, Source};
use std::ffi::CStr;
use std::ptr;

fn both(check: fn(&str, &dyn Calls)) {
    // What the first allocation of a program does.
    api::mode();
    check("plain", &Plain);
    #[cfg(feature = "track")]
    {
        use api::Origin;
        check("at", &Origin::At(c"rules.rs".as_ptr(), line!()));
        check("caller", &Origin::Caller(both as *const () as usize));
    }
}

/// The calls, without the type of the source.
trait Calls {
    fn alloc(&self, size: usize) -> *mut u8;
    fn calloc(&self, count: usize, size: usize) -> *mut u8;
    fn alloc_aligned(&self, size: usize, align: usize) -> *mut u8;
    fn calloc_aligned(&self, count: usize, size: usize, align: usize) -> *mut u8;
    fn realloc(&self, block: *mut u8, size: usize) -> *mut u8;
    fn reallocarray(&self, block: *mut u8, count: usize, size: usize) -> *mut u8;
    fn reallocarray_aligned(&self, block: *mut u8, count: usize, size: usize, align: usize) -> *mut u8;
    fn free(&self, block: *mut u8);
    fn free_sized(&self, block: *mut u8, size: usize);
    fn usable_size(&self, block: *mut u8) -> usize;
    fn strdup(&self, text: Option<&CStr>) -> *mut u8;
    fn strndup(&self, text: Option<&CStr>, most: usize) -> *mut u8;
    fn memdup(&self, bytes: Option<&[u8]>, size: usize) -> *mut u8;
}

// SAFETY (all below): the tests hand over live blocks of the same source, and valid texts.
impl<S: Source> Calls for S {
    fn alloc(&self, size: usize) -> *mut u8 {
        api::alloc(*self, size)
    }
    fn calloc(&self, count: usize, size: usize) -> *mut u8 {
        api::calloc(*self, count, size)
    }
    fn alloc_aligned(&self, size: usize, align: usize) -> *mut u8 {
        api::alloc_aligned(*self, size, align)
    }
    fn calloc_aligned(&self, count: usize, size: usize, align: usize) -> *mut u8 {
        api::calloc_aligned(*self, count, size, align)
    }
    fn realloc(&self, block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { api::realloc(*self, block, size) }
    }
    fn reallocarray(&self, block: *mut u8, count: usize, size: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { api::reallocarray(*self, block, count, size) }
    }
    fn reallocarray_aligned(&self, block: *mut u8, count: usize, size: usize, align: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { api::reallocarray_aligned(*self, block, count, size, align) }
    }
    fn free(&self, block: *mut u8) {
        // SAFETY: see above.
        unsafe { api::free(*self, block) }
    }
    fn free_sized(&self, block: *mut u8, size: usize) {
        // SAFETY: see above.
        unsafe { api::free_sized(*self, block, size) }
    }
    fn usable_size(&self, block: *mut u8) -> usize {
        // SAFETY: see above.
        unsafe { api::usable_size(*self, block) }
    }
    fn strdup(&self, text: Option<&CStr>) -> *mut u8 {
        // SAFETY: see above.
        unsafe { api::strdup(*self, text.map_or(ptr::null(), CStr::as_ptr)).cast() }
    }
    fn strndup(&self, text: Option<&CStr>, most: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { api::strndup(*self, text.map_or(ptr::null(), CStr::as_ptr), most).cast() }
    }
    fn memdup(&self, bytes: Option<&[u8]>, size: usize) -> *mut u8 {
        // SAFETY: see above.
        unsafe { api::memdup(*self, bytes.map_or(ptr::null(), <[u8]>::as_ptr), size) }
    }
}

/// The call gave null with this error.
fn refused(what: &str, block: *mut u8, error: i32) {
    assert!(block.is_null() && errno::get() == error, "{what}: {block:?}, errno {}", errno::get());
    errno::set(0);
}

fn good(what: &str, block: *mut u8, align: usize) -> *mut u8 {
    assert!(!block.is_null() && block.addr().is_multiple_of(align.max(16)), "{what}: {block:?}");
    block
}

fn read(block: *mut u8, size: usize) -> Vec<u8> {
    // SAFETY: the tests read initialised bytes of live blocks.
    unsafe { std::slice::from_raw_parts(block, size).to_vec() }
}

#[test]
fn sizes_and_products() {
    both(|what, calls| {
        errno::set(0);
        let (a, b) = (good(what, calls.alloc(0), 16), good(what, calls.calloc(0, 8), 16));
        assert_ne!(a, b);
        calls.free(a);
        calls.free(b);
        for size in [MAX_SIZE + 1, usize::MAX] {
            refused(what, calls.alloc(size), errno::ENOMEM);
            refused(what, calls.calloc(1, size), errno::ENOMEM);
            refused(what, calls.alloc_aligned(size, 64), errno::ENOMEM);
            refused(what, calls.memdup(Some(b"x"), size), errno::ENOMEM);
        }
        refused(what, calls.calloc(1 << 33, 1 << 33), errno::ENOMEM);
        refused(what, calls.calloc(usize::MAX / 2 + 2, 2), errno::ENOMEM);
        refused(what, calls.calloc_aligned(1 << 33, 1 << 33, 64), errno::ENOMEM);
        let block = good(what, calls.calloc(10, 100), 16);
        assert!(read(block, 1000).iter().all(|&byte| byte == 0));
        assert!(calls.usable_size(block) >= 1000);
        calls.free_sized(block, 1000);
        assert_eq!(calls.usable_size(ptr::null_mut()), 0);
    });
}

#[test]
fn alignments() {
    both(|what, calls| {
        errno::set(0);
        for align in [0, 3, 24, MAX_ALIGN * 2, usize::MAX] {
            refused(what, calls.alloc_aligned(10, align), errno::EINVAL);
            refused(what, calls.calloc_aligned(1, 10, align), errno::EINVAL);
            refused(what, calls.reallocarray_aligned(ptr::null_mut(), 1, 10, align), errno::EINVAL);
        }
        for align in [1, 8, 16, 64, 4096, MAX_ALIGN] {
            for block in [calls.alloc_aligned(10, align), calls.calloc_aligned(2, 5, align)] {
                calls.free(good(what, block, align));
            }
        }
    });
}

#[test]
fn realloc() {
    both(|what, calls| {
        errno::set(0);
        let block = good(what, calls.realloc(ptr::null_mut(), 5), 16);
        // SAFETY: the block is live.
        unsafe { block.copy_from_nonoverlapping(b"abcde".as_ptr(), 5) };
        refused(what, calls.realloc(block, usize::MAX), errno::ENOMEM);
        refused(what, calls.reallocarray(block, 1 << 33, 1 << 33), errno::ENOMEM);
        refused(what, calls.reallocarray_aligned(block, 1 << 33, 1 << 33, 64), errno::ENOMEM);
        refused(what, calls.reallocarray_aligned(block, 1, 10, 48), errno::EINVAL);
        let block = good(what, calls.reallocarray(block, 100, 100), 16);
        let block = good(what, calls.reallocarray_aligned(block, 20, 1000, 256), 256);
        assert_eq!(read(block, 5), b"abcde");
        errno::set(7);
        assert!(calls.realloc(block, 0).is_null());
        let block = good(what, calls.alloc(10), 16);
        errno::set(7);
        assert!(calls.reallocarray(block, 0, 10).is_null());
        let block = good(what, calls.reallocarray_aligned(ptr::null_mut(), 0, 10, 64), 64);
        errno::set(7);
        assert!(calls.reallocarray_aligned(block, 0, 10, 64).is_null());
        assert_eq!(errno::get(), 7, "{what}");
    });
}

#[test]
fn free_keeps_errno() {
    both(|what, calls| {
        errno::set(0);
        calls.free(ptr::null_mut());
        calls.free_sized(ptr::null_mut(), 9);
        for size in [1, 5000, 100 << 20] {
            let block = good(what, calls.alloc(size), 16);
            errno::set(99);
            calls.free(block);
            assert_eq!(errno::get(), 99, "{what}");
        }
    });
}

#[test]
fn copies() {
    both(|what, calls| {
        errno::set(0);
        refused(what, calls.strdup(None), errno::EINVAL);
        refused(what, calls.strndup(None, 3), errno::EINVAL);
        refused(what, calls.memdup(None, 3), errno::EINVAL);
        let text = Some(c"hello");
        let cases = [
            (calls.strdup(text), &b"hello\0"[..]),
            (calls.strdup(Some(c"")), b"\0"),
            (calls.strndup(text, 3), b"hel\0"),
            (calls.strndup(text, 5), b"hello\0"),
            (calls.strndup(text, usize::MAX), b"hello\0"),
            (calls.strndup(text, 0), b"\0"),
            (calls.memdup(Some(b"a\0b"), 3), b"a\0b"),
            (calls.memdup(Some(b"abc"), 0), b""),
            (calls.memdup(None, 0), b""),
        ];
        for (copy, expected) in cases {
            assert_eq!(read(good(what, copy, 16), expected.len()), expected, "{what}");
            calls.free(copy);
        }
    });
}

#[test]
fn statistics_fill_what_fits() {
    let whole = size_of::<Stats>();
    let mut stats = Stats::new();
    // SAFETY: each call gets a struct as large as it says.
    unsafe {
        assert!(api::stats_get(&raw mut stats));
        assert_eq!(stats.struct_size, whole);
        // A newer caller: what this version does not have is left alone.
        #[repr(C)]
        struct Newer(Stats, [u64; 4]);
        let mut newer = Newer(Stats { struct_size: whole + 32, ..Stats::new() }, [9; 4]);
        assert!(api::stats_get((&raw mut newer).cast()));
        assert_eq!((newer.0.struct_size, newer.1), (whole, [9; 4]));
        assert_eq!(newer.0.known, stats.known);
        // Older callers: whole fields as far as they go, nothing behind them.
        for room in 16..whole {
            let mut words = [u64::MAX; 12];
            words[0] = room as u64;
            assert!(api::stats_get(words.as_mut_ptr().cast()));
            let filled = room / 8;
            assert_eq!(words[0], filled as u64 * 8);
            assert!(words[filled..].iter().all(|&word| word == u64::MAX), "{room}");
            assert!(words[1] < 1 << (filled - 2));
            assert_eq!(words[1], stats.known.0 & ((1 << (filled - 2)) - 1));
        }
        for room in [0, 8, 15] {
            let mut words = [u64::MAX; 12];
            words[0] = room;
            errno::set(0);
            assert!(!api::stats_get(words.as_mut_ptr().cast()));
            assert_eq!((errno::get(), words[1]), (errno::EINVAL, u64::MAX));
        }
        assert!(!api::stats_get(ptr::null_mut()));
    }
}
