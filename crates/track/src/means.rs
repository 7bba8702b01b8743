//! How live blocks are found: in the map outside the heap, or, where the backend keeps tags, by asking it.

use crate::{header, live};
use allokit_core::{Backend, Tag, Tagged};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// What a walk tells of a live block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// 0 also when the header is damaged.
    pub(crate) site: u32,
    pub(crate) size: usize,
    pub(crate) start: usize,
    /// How many stretches between marks, or snapshots of growth, have begun since it was allocated.
    pub(crate) age: u32,
    pub(crate) is_damaged: bool,
}

/// Who sees the blocks of a walk.
type See<'a> = &'a mut dyn FnMut(&Tagged);

/// What a backend that keeps tags can do.
pub(crate) struct Means {
    visit: fn(See<'_>),
    around: fn(usize) -> Option<Tagged>,
}

fn damaged(start: usize) -> Live {
    Live { site: 0, size: 0, start, age: u32::MAX, is_damaged: true }
}

struct Of<B>(B);

impl<B: Backend> Of<B> {
    const MEANS: Means = Means { visit: B::visit_tagged, around: B::tagged_around };
}

/// Null where the map is asked.
static MEANS: AtomicPtr<Means> = AtomicPtr::new(ptr::null_mut());

/// From now on the backend is asked.
pub(crate) fn ask<B: Backend>() {
    let means: &'static Means = &Of::<B>::MEANS;
    MEANS.store(ptr::from_ref(means).cast_mut(), Ordering::Release);
}

fn means() -> Option<&'static Means> {
    // SAFETY: null, or a constant.
    unsafe { MEANS.load(Ordering::Acquire).as_ref() }
}

/// Calls `see` with each live block. Blocks that are allocated, freed or resized meanwhile may be seen or not. `see` must
/// not allocate or free.
pub(crate) fn for_each(mut see: impl FnMut(Live)) {
    let _walk = live::WALK.lock();
    let epoch = header::epoch();
    if let Some(means) = means() {
        return (means.visit)(&mut |block| {
            let (tag, size, start) = (block.tag, block.size, block.start);
            see(if tag.is_live() {
                let age = epoch.wrapping_sub(tag.stretch()) & Tag::SITE_MAX;
                Live { site: tag.site(), size, start, age, is_damaged: false }
            } else {
                damaged(start)
            });
        });
    }
    live::for_each(|pin| {
        let start = pin.payload.addr();
        // SAFETY: the block is pinned.
        see(match unsafe { header::read(pin.payload) } {
            Some(header) => {
                let age = epoch.wrapping_sub(header.epoch) & header::EPOCH_MASK;
                Live { site: header.site, size: header.size, start, age, is_damaged: false }
            }
            None => damaged(start),
        });
    });
}

/// The block with a tag that `addr` lies in; `None` also where the map is asked.
pub(crate) fn around(addr: usize) -> Option<Tagged> {
    (means()?.around)(addr)
}
