//! From an address to the metadata of its surroundings: a root indexed by the upper bits of the address (of 48), and a
//! leaf of metadata for each stretch (4 GiB unless said otherwise) in use. Two loads, no limit on how many reservations
//! there are or where they lie, and a wild pointer finds no leaf or a zero entry instead of memory of ours.

use crate::{Lock, pages};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A map with leaves of `LEAF` bytes, zero until written; memory is used only where a leaf is touched. `ROOT` (a power of
/// two) is the number of leaves that there may be: each covers 2^48 / `ROOT` bytes of address space.
#[derive(Debug)]
pub struct AddressMap<const LEAF: usize, const ROOT: usize = 65536> {
    root: Root<ROOT>,
    lock: Lock,
}

#[cfg(not(miri))]
#[derive(Debug)]
struct Root<const ROOT: usize>([AtomicPtr<u8>; ROOT]);

#[cfg(not(miri))]
impl<const ROOT: usize> Root<ROOT> {
    const fn new() -> Self {
        Root([const { AtomicPtr::new(ptr::null_mut()) }; ROOT])
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> &AtomicPtr<u8> {
        &self.0[index]
    }
}

/// Under Miri each borrow of the root would visit each of its entries, so they lie elsewhere.
#[cfg(miri)]
#[derive(Debug)]
struct Root<const ROOT: usize>(AtomicPtr<AtomicPtr<u8>>);

#[cfg(miri)]
impl<const ROOT: usize> Root<ROOT> {
    const fn new() -> Self {
        Root(AtomicPtr::new(ptr::null_mut()))
    }

    fn slot(&self, index: usize) -> &AtomicPtr<u8> {
        let mut entries = self.0.load(Ordering::Acquire);
        if entries.is_null() {
            let fresh = pages::map(ROOT * size_of::<AtomicPtr<u8>>(), pages::os_page()).cast();
            entries = match self.0.compare_exchange(entries, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => fresh,
                Err(other) => other,
            };
        }
        // SAFETY: ROOT zeroed entries, for good.
        unsafe { &*entries.add(index) }
    }
}

impl<const LEAF: usize, const ROOT: usize> AddressMap<LEAF, ROOT> {
    const SHIFT: u32 = 48 - ROOT.ilog2();

    /// An empty map.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        AddressMap { root: Root::new(), lock: Lock::new() }
    }

    /// The leaf that covers `addr`, or null.
    #[inline(always)]
    pub fn leaf(&self, addr: usize) -> *mut u8 {
        self.root.slot(Self::index(addr)).load(Ordering::Acquire)
    }

    /// The leaf that covers `addr`, made if it is missing; null when there is no memory for it.
    pub fn leaf_or_insert(&self, addr: usize) -> *mut u8 {
        let leaf = self.leaf(addr);
        if leaf.is_null() { self.insert(addr) } else { leaf }
    }

    #[cold]
    fn insert(&self, addr: usize) -> *mut u8 {
        let _guard = self.lock.lock();
        let slot = self.root.slot(Self::index(addr));
        let mut leaf = slot.load(Ordering::Acquire);
        if leaf.is_null() {
            leaf = pages::map(LEAF, pages::os_page());
            slot.store(leaf, Ordering::Release);
        }
        leaf
    }

    /// Makes `leaf` the leaf that covers `addr`; false when there is one already.
    ///
    /// # Safety
    /// `leaf` is `LEAF` zeroed bytes, aligned to an OS page, for good.
    pub unsafe fn adopt(&self, addr: usize, leaf: *mut u8) -> bool {
        let _guard = self.lock.lock();
        let slot = self.root.slot(Self::index(addr));
        slot.compare_exchange(ptr::null_mut(), leaf, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Calls `visit` with the first address and the leaf of each stretch that has one.
    pub fn for_each_leaf(&self, mut visit: impl FnMut(usize, *mut u8)) {
        for index in 0..ROOT {
            let leaf = self.root.slot(index).load(Ordering::Acquire);
            if !leaf.is_null() {
                visit(index << Self::SHIFT, leaf);
            }
        }
    }

    /// The lock that keeps leaves from being made, for fork handlers.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    #[inline(always)]
    fn index(addr: usize) -> usize {
        (addr >> Self::SHIFT) & (ROOT - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_on_demand() {
        static MAP: AddressMap<65536> = AddressMap::new();
        let addr = 0x7f12_3456_7890;
        assert!(MAP.leaf(addr).is_null());
        let leaf = MAP.leaf_or_insert(addr);
        assert!(!leaf.is_null());
        assert_eq!(MAP.leaf(addr ^ 0xffff_ffff), leaf);
        assert!(MAP.leaf(addr + (1 << 32)).is_null());
        // SAFETY: this leaf is never looked at.
        assert!(!unsafe { MAP.adopt(addr, std::ptr::null_mut()) });
        let mut seen = 0;
        MAP.for_each_leaf(|start, found| {
            assert_eq!((start, found), (0x7f12_0000_0000, leaf));
            seen += 1;
        });
        assert_eq!(seen, 1);
    }
}
