//! What the model puts in the place of the parts that it does not model.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many times the model has begun anew. What belongs to an earlier round is made again at its first use.
static ROUND: AtomicU32 = AtomicU32::new(0);

/// One of loom's objects that can be a static, or lie in zeroed memory: made at its first use in a round.
pub struct Lazy<T> {
    round: Cell<u32>,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: loom runs all threads of a model on one thread.
unsafe impl<T> Sync for Lazy<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Lazy<T> {}

impl<T> Lazy<T> {
    pub const fn new() -> Lazy<T> {
        Lazy { round: Cell::new(0), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    pub fn get(&self, make: impl FnOnce() -> T) -> &T {
        let round = ROUND.load(Ordering::Relaxed);
        if self.round.get() != round {
            let value = make();
            // SAFETY: nobody uses the value of an earlier round.
            unsafe { (*self.value.get()).write(value) };
            self.round.set(round);
        }
        // SAFETY: made in this round.
        unsafe { (*self.value.get()).assume_init_ref() }
    }
}

impl<T> std::fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lazy")
    }
}

/// Everything as at the start of the process.
pub fn begin_anew() {
    ROUND.fetch_add(1, Ordering::Relaxed);
    sync::begin_anew();
    platform::meta::begin_anew();
    runs::begin_anew();
}

pub mod sync {
    use super::Lazy;
    pub use super::platform::Lock;
    use loom::sync::atomic as model;
    use std::cell::RefCell;
    use std::sync::Arc;
    /// Hints, or written only under a lock: each is one value that all threads see.
    pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

    /// Counters: as above, and anew in each round.
    pub struct AtomicUsize(usize, Lazy<std::sync::atomic::AtomicUsize>);

    impl AtomicUsize {
        pub const fn new(first: usize) -> AtomicUsize {
            AtomicUsize(first, Lazy::new())
        }
    }

    impl std::ops::Deref for AtomicUsize {
        type Target = std::sync::atomic::AtomicUsize;
        fn deref(&self) -> &Self::Target {
            self.1.get(|| std::sync::atomic::AtomicUsize::new(self.0))
        }
    }

    pub fn compiler_fence(_order: Ordering) {}

    /// loom's atomics are made before the threads are, so that no thread is seen to make one while another uses it.
    const POOL: usize = 48;

    /// An atomic, and one that every load of it changes. loom remembers the last access to an object alone: where a
    /// thread loads and then stores, it would not see that the store comes too late for an earlier load of another
    /// thread, and leave out the other order. So loads of one object are in an order, too.
    #[derive(Debug, Default)]
    struct Atomic {
        value: model::AtomicUsize,
        loads: model::AtomicUsize,
    }

    impl Atomic {
        fn load(&self, order: Ordering) -> usize {
            self.loads.fetch_add(1, Ordering::Relaxed);
            self.value.load(order)
        }
    }

    thread_local! {
        static FRESH: RefCell<(Vec<Arc<Atomic>>, usize)> = const { RefCell::new((Vec::new(), 0)) };
    }

    pub fn begin_anew() {
        FRESH.set(((0..POOL).map(|_| Arc::default()).collect(), 0));
    }

    fn fresh() -> Arc<Atomic> {
        FRESH.with_borrow_mut(|(pool, used)| {
            *used += 1;
            pool[*used - 1].clone()
        })
    }

    macro_rules! atomic {
        ($name:ident$(<$t:ident>)?, $value:ty, $to:expr, $from:expr) => {
            pub struct $name$(<$t>)?(Lazy<Arc<Atomic>>, std::marker::PhantomData<$value>);

            impl$(<$t>)? std::fmt::Debug for $name$(<$t>)? {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(stringify!($name))
                }
            }

            // SAFETY: loom runs all threads of a model on one thread.
            unsafe impl$(<$t>)? Sync for $name$(<$t>)? {}

            impl$(<$t>)? $name$(<$t>)? {
                /// The first value is always 0, false or null.
                pub const fn new(_first: $value) -> Self {
                    $name(Lazy::new(), std::marker::PhantomData)
                }
                fn get(&self) -> &Atomic {
                    self.0.get(fresh)
                }
                pub fn load(&self, order: Ordering) -> $value {
                    // The table's place never changes here.
                    if std::any::type_name::<Self>().contains("AtomicU64") {
                        return $from(0);
                    }
                    $from(self.get().load(order))
                }
                pub fn store(&self, value: $value, order: Ordering) {
                    self.get().value.store($to(value), order)
                }
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    $from(self.get().value.swap($to(value), order))
                }
                pub fn compare_exchange(
                    &self, old: $value, new: $value, order: Ordering, failed: Ordering,
                ) -> Result<$value, $value> {
                    self.get().value.compare_exchange($to(old), $to(new), order, failed).map($from).map_err($from)
                }
                pub fn compare_exchange_weak(
                    &self, old: $value, new: $value, order: Ordering, failed: Ordering,
                ) -> Result<$value, $value> {
                    self.compare_exchange(old, new, order, failed)
                }
            }
        };
    }

    atomic!(AtomicBool, bool, |value| value as usize, |value| value != 0);
    atomic!(AtomicU32, u32, |value| value as usize, |value| value as u32);
    atomic!(
        AtomicPtr<T>,
        *mut T,
        |value: *mut T| value.expose_provenance(),
        std::ptr::with_exposed_provenance_mut::<T>
    );
}

/// `allokit_platform`.
pub mod platform {
    use super::Lazy;
    use std::cell::Cell;

    /// There is no limit.
    pub mod budget {
        pub fn relieve() -> bool {
            false
        }
        pub fn on_relief(_relief: fn()) {}
    }

    /// A lock of loom's.
    #[derive(Debug)]
    pub struct Lock {
        inner: Lazy<loom::sync::Mutex<()>>,
        held: Cell<bool>,
    }

    // SAFETY: loom runs all threads of a model on one thread.
    unsafe impl Sync for Lock {}

    pub struct LockGuard<'a>(&'a Lock, Option<loom::sync::MutexGuard<'a, ()>>);

    impl Lock {
        pub const fn new() -> Lock {
            Lock { inner: Lazy::new(), held: Cell::new(false) }
        }
        fn get(&self) -> &loom::sync::Mutex<()> {
            self.inner.get(|| {
                self.held.set(false);
                loom::sync::Mutex::new(())
            })
        }
        pub fn lock(&self) -> LockGuard<'_> {
            let guard = self.get().lock().unwrap();
            self.held.set(true);
            LockGuard(self, Some(guard))
        }
        pub fn try_lock(&self) -> Option<LockGuard<'_>> {
            let guard = self.get().try_lock().ok()?;
            self.held.set(true);
            Some(LockGuard(self, Some(guard)))
        }
        pub fn is_held(&self) -> bool {
            self.held.get()
        }
        pub fn lock_raw(&self) {
            unreachable!("for fork only")
        }
        pub fn unlock_raw(&self) {
            unreachable!("for fork only")
        }
    }

    impl Drop for LockGuard<'_> {
        fn drop(&mut self) {
            self.0.held.set(false);
            self.1.take();
        }
    }

    pub fn keep_errno<R>(call: impl FnOnce() -> R) -> R {
        call()
    }

    pub mod errno {}

    /// Both sides as fences, which is what the kernel's barrier makes of them.
    pub mod barrier {
        use loom::sync::atomic::{Ordering, fence};

        pub fn prepare() {}
        pub fn light() {
            fence(Ordering::SeqCst);
        }
        #[must_use]
        pub fn heavy() -> bool {
            fence(Ordering::SeqCst);
            true
        }
    }

    /// Memory for heaps.
    pub mod meta {
        use std::alloc::{Layout, alloc_zeroed};
        use std::cell::RefCell;

        thread_local! {
            static POOL: RefCell<(Vec<*mut u8>, usize)> = const { RefCell::new((Vec::new(), 0)) };
        }

        pub fn begin_anew() {
            POOL.with_borrow_mut(|pool| pool.1 = 0);
        }

        pub fn alloc(size: usize, align: usize) -> *mut u8 {
            POOL.with_borrow_mut(|(blocks, used)| {
                if *used == blocks.len() {
                    // SAFETY: the size is not 0.
                    blocks.push(unsafe { alloc_zeroed(Layout::from_size_align(size, align).unwrap()) });
                }
                *used += 1;
                blocks[*used - 1]
            })
        }
    }

    pub mod tools {
        pub fn records_each_byte() -> bool {
            false
        }
    }

    pub mod pages {
        pub fn os_page() -> usize {
            4096
        }
        pub fn space_is_limited() -> bool {
            true
        }
        pub unsafe fn commit(_start: *mut u8, _bytes: usize) -> bool {
            true
        }
        pub fn map_sparse(_bytes: usize) -> *mut u8 {
            std::ptr::null_mut()
        }
        pub unsafe fn purge(start: *mut u8, bytes: usize) -> bool {
            // SAFETY: the caller's promise.
            unsafe { start.write_bytes(0, bytes) };
            true
        }
        #[derive(PartialEq)]
        pub enum Remapped {
            Moved,
            Copy,
            TargetLost,
        }
        pub unsafe fn remap(_old: *mut u8, _new: *mut u8, _bytes: usize) -> Remapped {
            Remapped::Copy
        }
    }

    /// One leaf for all addresses.
    pub struct AddressMap<const LEAF: usize, const ROOT: usize = 1> {
        leaf: std::sync::OnceLock<usize>,
        lock: Lock,
    }

    impl<const LEAF: usize, const ROOT: usize> AddressMap<LEAF, ROOT> {
        pub const fn new() -> Self {
            AddressMap { leaf: std::sync::OnceLock::new(), lock: Lock::new() }
        }
        pub fn leaf(&self, _addr: usize) -> *mut u8 {
            let layout = std::alloc::Layout::from_size_align(LEAF, 4096).unwrap();
            // SAFETY: the size is not 0.
            let leaf = self.leaf.get_or_init(|| unsafe { std::alloc::alloc_zeroed(layout) }.expose_provenance());
            std::ptr::with_exposed_provenance_mut(*leaf)
        }
        pub fn leaf_or_insert(&self, addr: usize) -> *mut u8 {
            self.leaf(addr)
        }
        pub fn lock(&self) -> &Lock {
            &self.lock
        }
    }

    pub mod thread {
        use std::ffi::c_void;

        loom::thread_local! {
            static VALUE: std::cell::Cell<*mut c_void> = std::cell::Cell::new(std::ptr::null_mut());
        }

        pub struct Key {
            destructor: unsafe extern "C" fn(*mut c_void),
        }

        impl Key {
            pub const fn new(destructor: unsafe extern "C" fn(*mut c_void)) -> Key {
                Key { destructor }
            }
            pub fn set(&self, value: *mut c_void) -> bool {
                VALUE.with(|cell| cell.set(value));
                DESTRUCTOR.with(|cell| cell.set(Some(self.destructor)));
                true
            }
        }

        loom::thread_local! {
            static DESTRUCTOR: std::cell::Cell<Option<unsafe extern "C" fn(*mut c_void)>> = std::cell::Cell::new(None);
        }

        /// Ends the calling thread as pthread does: in four rounds of destructors.
        pub fn end() {
            for _ in 0..4 {
                let value = VALUE.with(|cell| cell.replace(std::ptr::null_mut()));
                if let (false, Some(destructor)) = (value.is_null(), DESTRUCTOR.with(std::cell::Cell::get)) {
                    // SAFETY: the value that this thread has set.
                    unsafe { destructor(value) };
                }
            }
        }
    }
}

/// The model has no C code.
#[macro_export]
macro_rules! name_thread_cell {
    ($($rest:tt)*) => {};
}

#[macro_export]
macro_rules! thread_cell {
    ($vis:vis static $name:ident: *mut $type:ty = $initial:path;) => {
        #[allow(non_snake_case)]
        $vis mod $name {
            use super::*;

            loom::thread_local! {
                static CELL: std::cell::Cell<*mut $type> = std::cell::Cell::new((&raw const $initial).cast_mut().cast());
            }
            pub fn get() -> *mut $type {
                CELL.with(std::cell::Cell::get)
            }
            pub fn set(value: *mut $type) {
                CELL.with(|cell| cell.set(value));
            }
            pub fn address() -> *mut *mut $type {
                std::ptr::null_mut()
            }
        }
    };
}

pub mod fork {
    pub fn register() {}
}

/// Blocks with tags are no part of the model: their heaps are heaps like the others.
pub mod tagged {
    use crate::page::Page;
    use allokit_core::Tag;

    pub unsafe fn set(_block: *mut u8, _tag: Tag) {
        unreachable!("no heap of the model has tags")
    }
    pub unsafe fn on_large_free(_page: *mut Page) {}
}

/// Nothing is guarded.
pub mod sampled {
    use crate::heap::Heap;
    use allokit_core::Tag;

    pub unsafe fn take(heap: *mut Heap, _size: usize, _tag: Tag) -> *mut u8 {
        // SAFETY: the heap is the caller's.
        unsafe { (*heap).until_sample = i64::MAX };
        std::ptr::null_mut()
    }
}

/// No time passes; what the upkeep does is called by the cases themselves.
pub mod upkeep {
    use super::platform::Lock;

    static RELEASING: Lock = Lock::new();

    pub fn epoch() -> u16 {
        0
    }
    pub fn tick() -> u64 {
        0
    }
    pub fn lock() -> &'static Lock {
        &RELEASING
    }
    pub fn trim() {}
    /// As upkeep.rs does it.
    pub fn release_cached() {
        let _one = RELEASING.lock();
        // SAFETY: heaps live for good.
        crate::heap::for_each(|heap| unsafe { (*heap).cache.release_older(0) });
    }
}

/// Eight units under one lock, first fit.
pub mod runs {
    use super::Lazy;
    use super::platform::Lock;
    use crate::classes::UNIT;
    use crate::page::{Kind, Page};
    use crate::table::{self, Word};
    use loom::cell::UnsafeCell as Watched;
    use std::alloc::{Layout, alloc_zeroed};
    use std::cell::{Cell, UnsafeCell};

    pub const CACHED_LISTS: usize = 2;
    const UNITS: usize = 8;
    const CELLS: usize = UNITS * 16;

    pub fn list_of(units: usize) -> usize {
        units - 1
    }

    static LOCK: Lock = Lock::new();

    thread_local! {
        static START: *mut u8 = {
            let layout = Layout::from_size_align(UNITS * UNIT, UNIT).unwrap();
            // SAFETY: the size is not 0.
            unsafe { alloc_zeroed(layout) }
        };
        static TAKEN: Cell<[bool; UNITS]> = const { Cell::new([false; UNITS]) };
    }

    struct Cells(UnsafeCell<[Lazy<Watched<()>>; CELLS]>);
    // SAFETY: loom runs all threads of a model on one thread.
    unsafe impl Sync for Cells {}
    static WATCHED: Cells = Cells(UnsafeCell::new([const { Lazy::new() }; CELLS]));

    fn start() -> *mut u8 {
        START.with(|start| *start)
    }

    pub fn begin_anew() {
        TAKEN.set([false; UNITS]);
        for unit in 0..UNITS {
            let addr = start().addr() + unit * UNIT;
            // SAFETY: between two rounds nobody uses the metadata; zeroes are valid for it.
            unsafe {
                table::page(addr).write_bytes(0, 1);
                table::bits(addr, crate::page::MANY).write_bytes(0, crate::page::MANY);
                table::bits(addr, crate::page::MOST).write_bytes(0, crate::page::MOST);
            }
            table::set_word(addr, Word::NONE);
        }
    }

    /// How many units are taken.
    pub fn taken() -> usize {
        TAKEN.get().iter().filter(|taken| **taken).count()
    }

    /// A use of the block's first 4 KiB, which ends the model if no order separates it from the last one.
    pub fn touch(block: *mut u8) {
        let index = (block.addr() - start().addr()) / 4096;
        // SAFETY: loom runs all threads of a model on one thread.
        let cells = unsafe { &*WATCHED.0.get() };
        cells[index].get(|| Watched::new(())).with_mut(|_| ());
    }

    pub fn take_dirty(units: usize) -> *mut Page {
        take(units, 1)
    }

    pub fn take(units: usize, align: usize) -> *mut Page {
        assert_eq!(align, 1);
        let _guard = LOCK.lock();
        let mut taken = TAKEN.get();
        let Some(at) = (0..=UNITS - units).find(|&at| (at..at + units).all(|unit| !taken[unit])) else {
            return std::ptr::null_mut();
        };
        (at..at + units).for_each(|unit| taken[unit] = true);
        TAKEN.set(taken);
        let begin = start().wrapping_add(at * UNIT);
        let page = table::page(begin.addr());
        // SAFETY: under LOCK; the units were free.
        unsafe {
            (*page).start = begin;
            (*page).units = units as u32;
            (*page).zero = false;
            (*page).kind.set(Kind::Busy);
        }
        page
    }

    pub unsafe fn give(page: *mut Page, _zero: bool) {
        let _guard = LOCK.lock();
        let mut taken = TAKEN.get();
        // SAFETY: under LOCK; the caller's run.
        unsafe {
            assert!((*page).kind.get() == Kind::Busy);
            let at = ((*page).start.addr() - start().addr()) / UNIT;
            for unit in &mut taken[at..at + (*page).units as usize] {
                assert!(std::mem::replace(unit, false), "a run was given back twice");
            }
            (*page).kind.set(Kind::Free);
        }
        TAKEN.set(taken);
    }

    pub unsafe fn shorten(_page: *mut Page, _units: usize, _zero: bool) {
        unreachable!("not modelled")
    }
    pub unsafe fn lengthen(_page: *mut Page, _units: usize) -> bool {
        unreachable!("not modelled")
    }
}
