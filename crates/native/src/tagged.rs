//! Blocks with tags: the tracking layer's, which keeps in 8 bytes beside a block whose it is.
//!
//! They lie in pages of their own, which belong to heaps of their own: each thread that allocates such blocks has a second
//! heap, the same in everything but where a page's first block begins. A page's blocks begin 16 bytes into it, so that the
//! last 8 bytes of each are room for the next one's tag: the tag is the 8 bytes before the block, beside what a free block
//! holds, so that the two take one line of the cache. The words of such pages have their lowest bit set; a plain free of
//! such a block finds that it is not of this thread's plain heap, and comes here.
//!
//! No counter per call site is needed: who wants to know walks the pages ([`visit`]). So pages with tags and without may be
//! mixed, and tracking can be switched on and off while the program runs.
//!
//! A freed block's tag stays until the block is handed out again, and where it was freed lies in the block itself, behind what
//! a list needs: so a second free is known for what it is.
//!
//! A large block's tag lies in its metadata. A block aligned to more than 16 bytes may begin inside a block of its page;
//! its tag is right before it all the same, and the page's block has one that says where.
//!
//! Invariants: a block of a page has a live tag exactly while the program has it; blocks that were never handed out have
//! the tag 0; the metadata of a run has a live tag only while the run is a large block's.

use crate::classes::{self, LEAD, SMALL_MAX, TAG};
use crate::heap::{self, Block, HEADS_AT, Heap, TAGGED_HEAP};
use crate::page::{self, Kind, Page};
use crate::table::{self, Word};
use crate::{Native, large, runs, sampled, upkeep};
use allokit_core::counts::{self, Counts, Totals};
use allokit_core::{Backend, Found, MAX_SIZE, MIN_ALIGN, Tag, Tagged};
use core::ptr;
// Not from `sync`: no protocol between threads relies on the order of tags.
use core::sync::atomic::{AtomicU64, Ordering};

/// The largest block of a page.
const SMALL_TAGGED_MAX: usize = SMALL_MAX - TAG;
const _: () = assert!(SMALL_TAGGED_MAX <= Tag::SIZE_MAX && LEAD >= TAG && LEAD.is_multiple_of(MIN_ALIGN));

/// The place of a block's tag.
///
/// # Safety
/// The block is one of a page with tags.
#[inline(always)]
unsafe fn place<'a>(block: *mut u8) -> &'a AtomicU64 {
    // SAFETY: the 8 bytes before a block are its tag, of the page's memory; only this module touches them.
    unsafe { &*block.sub(TAG).cast::<AtomicU64>() }
}

/// Sets the tag of a block that nobody has.
///
/// # Safety
/// As [`place`].
#[inline(always)]
pub(crate) unsafe fn set(block: *mut u8, tag: Tag) {
    // SAFETY: the caller's promise.
    unsafe { place(block).store(tag.0, Ordering::Relaxed) }
}

/// Where a freed block of a page keeps where it was freed: behind `next` and `next_batch`.
const FREED_AT: usize = 16;
const _: () = assert!(classes::TAGGED_FIRST * 16 - TAG >= FREED_AT + 4 && size_of::<Block>() <= FREED_AT);

/// Notes where a block of a page is freed.
///
/// # Safety
/// The block is the caller's, and begins where blocks of its page do.
#[inline(always)]
unsafe fn note(block: *mut u8, site: u32) {
    // SAFETY: the caller's promise.
    unsafe { block.add(FREED_AT).cast::<u32>().write(site) }
}

#[inline(always)]
unsafe fn get(block: *mut u8) -> Tag {
    // SAFETY: the caller's promise.
    unsafe { Tag(place(block).load(Ordering::Relaxed)) }
}

/// Counts for the calling thread.
fn count(how: impl FnOnce(&Counts)) {
    let heap = TAGGED_HEAP::get();
    if heap::is_real(heap) {
        // SAFETY: this thread's heap.
        how(unsafe { &(*heap).counts });
    } else {
        heap::count_slowly(how);
    }
}

/// Counts a block that was freed, if it had a tag.
pub(crate) fn count_free(block: &Tagged) {
    if block.tag != Tag::NONE {
        count(|counts| counts.on_any_free(block.size));
    }
}

/// A block with a tag if it is a small one, else null; null with ENOMEM also without memory. About 25 instructions.
#[inline(always)]
pub(crate) fn alloc_at_hand(size: usize, tag: Tag) -> *mut u8 {
    if size > SMALL_TAGGED_MAX {
        return ptr::null_mut();
    }
    let heap = TAGGED_HEAP::get();
    // SAFETY: the cell points at this thread's heap, or at a placeholder, whose lists are empty; the block is ours.
    unsafe {
        let block = Native::pop(Native::list_for(heap, size + TAG));
        if block.is_null() {
            return alloc_slow(heap, size, tag);
        }
        set(block, tag.with_size(size));
        (*heap).counts.on_alloc(size);
        block
    }
}

/// A block with a tag. Null with ENOMEM.
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool, tag: Tag) -> *mut u8 {
    if align > MIN_ALIGN {
        return alloc_aligned(size, align, zeroed, tag);
    }
    if size > SMALL_TAGGED_MAX {
        return alloc_large(size, MIN_ALIGN, zeroed, tag);
    }
    let block = alloc_at_hand(size, tag);
    if zeroed && !block.is_null() {
        // SAFETY: the block is ours.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

/// A block of a page for `room` bytes, its tag included, not counted yet. Null with ENOMEM.
///
/// # Safety
/// `heap` is what the cell holds; `room` is at most [`SMALL_MAX`].
unsafe fn take(heap: *mut Heap, room: usize) -> *mut u8 {
    // SAFETY: the caller's promise. (The placeholders' table of classes is that of plain heaps.)
    unsafe {
        let list = Native::list_for(heap, room);
        let block = Native::pop(list);
        if !block.is_null() {
            return block;
        }
        let class = (list.addr() - heap.addr() - HEADS_AT) / size_of::<*mut Block>();
        heap::alloc_tagged_slow(heap, class.max(classes::TAGGED_FIRST))
    }
}

/// # Safety
/// `heap` is what the cell holds.
#[cold]
#[inline(never)]
unsafe fn alloc_slow(heap: *mut Heap, size: usize, tag: Tag) -> *mut u8 {
    // SAFETY: the caller's promise; the block is ours.
    unsafe {
        if heap::is_real(heap) && (*heap).until_sample < 0 {
            let guarded = sampled::take(heap, size, tag);
            if !guarded.is_null() {
                count(|counts| counts.on_any_alloc(size));
                return guarded;
            }
        }
        let block = take(heap, size + TAG);
        if !block.is_null() {
            set(block, tag.with_size(size));
            count(|counts| counts.on_alloc(size));
        }
        block
    }
}

#[cold]
#[inline(never)]
fn alloc_aligned(size: usize, align: usize, zeroed: bool, tag: Tag) -> *mut u8 {
    // Blocks begin at multiples of 16: so much may lie before the next multiple of `align`.
    let gap = align - MIN_ALIGN;
    if align > SMALL_TAGGED_MAX || size > SMALL_TAGGED_MAX - gap {
        return alloc_large(size, align, zeroed, tag);
    }
    let heap = TAGGED_HEAP::get();
    // SAFETY: as in `alloc`; the block holds `gap + size` bytes, and its tag may be changed until it is given out.
    unsafe {
        let base = take(heap, gap + size + TAG);
        if base.is_null() {
            return base;
        }
        let distance = base.addr().wrapping_neg() & (align - 1);
        let block = base.add(distance);
        if zeroed {
            block.write_bytes(0, size);
        }
        if distance > 0 {
            set(block, tag.with_size(size).apart());
            set(base, Tag::moved(distance));
        } else {
            set(block, tag.with_size(size));
        }
        count(|counts| counts.on_any_alloc(size));
        block
    }
}

#[cold]
#[inline(never)]
fn alloc_large(size: usize, align: usize, zeroed: bool, tag: Tag) -> *mut u8 {
    if size > MAX_SIZE - align {
        return Native::fail();
    }
    let block = large::alloc(size, align, zeroed);
    if !block.is_null() {
        // SAFETY: the block is ours.
        unsafe { set_large(block, size, tag) };
        count(|counts| counts.on_any_alloc(size));
    }
    block
}

/// # Safety
/// A live large block of the caller's.
unsafe fn set_large(block: *mut u8, size: usize, tag: Tag) {
    let page = table::page(block.addr());
    // SAFETY: the caller's promise.
    unsafe {
        Page::large_size(page).store(size, Ordering::Relaxed);
        Page::large_tag(page).store(tag.0, Ordering::Release);
    }
}

/// Frees a block if its page is one with tags of this thread's heap; false, with nothing done, if not. About 35
/// instructions.
///
/// # Safety
/// Unless the pointer is found to be wrong, the caller gives the block up.
#[inline(always)]
pub(crate) unsafe fn free_at_hand(ptr: *mut u8, site: u32) -> bool {
    let Some(word) = table::flat_word(ptr.addr()) else { return false };
    let heap = TAGGED_HEAP::get();
    // SAFETY: a page with tags has 8 bytes before each address from its first block's on, and before that 8 more.
    unsafe {
        if !word.is_owned_by(heap) || !ptr.addr().is_multiple_of(MIN_ALIGN) {
            return false;
        }
        let tag = get(ptr);
        if !tag.is_live_here() || !(*heap).counts.try_on_free(tag.size()) {
            return false;
        }
        set(ptr, tag.freed());
        note(ptr, site);
        Native::free_into(word.tagged_bin(), ptr);
        true
    }
}

/// Frees a block with a tag or without: also another heap's, one that begins inside a block of its page, a large or a plain
/// one.
///
/// # Safety
/// Unless the pointer is found to be wrong, the caller gives the block up.
pub(crate) unsafe fn free(ptr: *mut u8, site: u32) -> Found {
    let word = table::word(ptr.addr());
    // SAFETY: as in `free_at_hand`.
    unsafe {
        if word.is_small() && word.is_tagged() && ptr.addr().is_multiple_of(MIN_ALIGN) {
            let tag = get(ptr);
            if tag.is_live_here() {
                let (heap, size) = (TAGGED_HEAP::get(), tag.size());
                if !heap::is_real(heap) || !(*heap).counts.try_on_free(size) {
                    count(|counts| counts.on_any_free(size));
                }
                set(ptr, tag.freed());
                note(ptr, site);
                give(ptr, word);
                return Found::Tagged(Tagged { start: ptr.addr(), size, tag, freed_at: 0 });
            }
        }
    }
    let found = at(ptr);
    // SAFETY: the caller gives up what was found to be a live block.
    unsafe {
        match found {
            Found::Wrong => {}
            Found::Plain => Native::free(ptr),
            Found::Tagged(_) if sampled::holds(ptr.addr()) => {
                let Some(block) = sampled::free(ptr, site) else { return Found::Wrong };
                count_free(&block);
            }
            Found::Tagged(block) => {
                let freed = block.tag.freed();
                count(|counts| counts.on_any_free(block.size));
                if word.is_large() {
                    let page = table::page(ptr.addr());
                    Page::large_freed_at(page).store(site, Ordering::Relaxed);
                    Page::large_tag(page).store(freed.0, Ordering::Relaxed);
                    large::free(ptr);
                    return found;
                }
                let base = base_of(ptr);
                set(ptr, freed);
                set(base, freed);
                note(base, site);
                give(base, word);
            }
        }
    }
    found
}

/// The block of the page that a block lies in.
unsafe fn base_of(ptr: *mut u8) -> *mut u8 {
    // SAFETY: the caller's block, of a page with tags.
    unsafe {
        let page = page::of_block(ptr.addr());
        let about = classes::get((*page).class as usize);
        let offset = Page::number(page, ptr.addr()) * about.size as usize;
        ptr.with_addr(Page::first_block(page).addr() + offset)
    }
}

/// Puts a block whose tag says that it is freed where it belongs.
unsafe fn give(base: *mut u8, word: Word) {
    let heap = TAGGED_HEAP::get();
    // SAFETY: the caller gives the block up.
    unsafe {
        if word.is_owned_by(heap) {
            Native::free_into(word.tagged_bin(), base);
        } else {
            heap::free_remote(heap, word.hot(base.addr()), base);
        }
    }
}

/// The live block that starts at `ptr`.
pub(crate) fn at(ptr: *const u8) -> Found {
    let word = table::word(ptr.addr());
    let addr = ptr.addr();
    if !addr.is_multiple_of(MIN_ALIGN) {
        return Found::Wrong;
    }
    // SAFETY: the words say what is there; a page's metadata do not change while it has a live block.
    unsafe {
        if word.is_small() {
            let page = page::of_block(addr);
            if addr < Page::first_block(page).addr() {
                return Found::Wrong;
            }
            let is_start = page::is_block_start(ptr);
            if !word.is_tagged() {
                return if is_start { Found::Plain } else { Found::Wrong };
            }
            let tag = get(ptr.cast_mut());
            let fits = if is_start { tag.is_live_here() } else { tag.is_live() && !tag.is_live_here() };
            return if fits {
                Found::Tagged(Tagged { start: addr, size: tag.size(), tag, freed_at: 0 })
            } else {
                Found::Wrong
            };
        }
        if word.is_large() {
            let page = table::page(addr);
            if (*page).start.addr() != addr || (*page).kind.get() != Kind::Large {
                return Found::Wrong;
            }
            return live_large(page).map_or(Found::Plain, Found::Tagged);
        }
    }
    sampled::at(addr)
}

/// # Safety
/// The first unit of a large block.
unsafe fn live_large(page: *mut Page) -> Option<Tagged> {
    // SAFETY: the caller's promise.
    unsafe {
        let tag = Tag(Page::large_tag(page).load(Ordering::Acquire));
        tag.is_live().then(|| Tagged {
            start: (*page).start.addr(),
            size: Page::large_size(page).load(Ordering::Relaxed),
            tag,
            freed_at: 0,
        })
    }
}

/// Whether a large block has a tag; false for what is no large block.
pub(crate) fn is_large_tagged(ptr: *const u8) -> bool {
    table::word(ptr.addr()).is_large() && matches!(at(ptr), Found::Tagged(_))
}

/// A large block is freed: by somebody who knows nothing of tags, if its tag is live still.
///
/// # Safety
/// The block is the caller's.
#[inline(always)]
pub(crate) unsafe fn on_large_free(page: *mut Page) {
    // SAFETY: the caller's promise.
    unsafe {
        if Tag(Page::large_tag(page).load(Ordering::Relaxed)).is_live() {
            large_freed_plainly(page);
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn large_freed_plainly(page: *mut Page) {
    // SAFETY: the caller's promise.
    unsafe {
        let (tag, size) = (Page::large_tag(page), Page::large_size(page).load(Ordering::Relaxed));
        Page::large_freed_at(page).store(0, Ordering::Relaxed);
        tag.store(Tag(tag.load(Ordering::Relaxed)).freed().0, Ordering::Relaxed);
        count(|counts| counts.on_any_free(size));
    }
}

/// A free of a block with a tag that comes in by the plain way.
///
/// # Safety
/// The word of `ptr` is that of a page with tags; the caller gives the block up.
#[cold]
#[inline(never)]
pub(crate) unsafe fn free_plainly(ptr: *mut u8) {
    // SAFETY: the caller's promise.
    if unsafe { free(ptr, 0) } == Found::Wrong {
        crate::invalid(
            ptr,
            if around(ptr.addr()).is_some_and(|at| at.tag.is_freed()) { "second free" } else { "free" },
        );
    }
}

/// A resize of a block with a tag that comes in by the plain way: it keeps its tag if it can stay.
///
/// # Safety
/// As [`Backend::realloc`].
#[cold]
#[inline(never)]
pub(crate) unsafe fn realloc_plainly(ptr: *mut u8, size: usize) -> *mut u8 {
    let Found::Tagged(old) = at(ptr) else { crate::invalid(ptr, "realloc") };
    // SAFETY: the caller's promise; both blocks are live and hold what is copied.
    unsafe {
        let same = resize(ptr, size, Tag::live(old.tag.stretch()).with_site(old.tag.site()));
        if !same.is_null() {
            return same;
        }
        let block = Native::alloc(size);
        if !block.is_null() {
            block.copy_from_nonoverlapping(ptr, old.size.min(size));
            free(ptr, 0);
        }
        block
    }
}

/// See [`Backend::resize_tagged`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn resize(ptr: *mut u8, size: usize, tag: Tag) -> *mut u8 {
    let Found::Tagged(old) = at(ptr) else { return ptr::null_mut() };
    if sampled::holds(ptr.addr()) {
        return ptr::null_mut();
    }
    let word = table::word(ptr.addr());
    // SAFETY: the caller's promise.
    unsafe {
        if word.is_large() {
            if size <= SMALL_TAGGED_MAX || size > MAX_SIZE {
                return ptr::null_mut();
            }
            // While it moves it has no tag: what is given back must not seem live.
            let place = Page::large_tag(table::page(ptr.addr()));
            place.store(old.tag.freed().0, Ordering::Relaxed);
            let moved = large::resize(ptr, size.max(SMALL_MAX + 1));
            if moved.is_null() {
                place.store(old.tag.0, Ordering::Relaxed);
                return moved;
            }
            set_large(moved, size, tag);
            count_resize(old.size, size);
            return moved;
        }
        let room = classes::class_size(word.class(ptr.addr())) - TAG;
        let fits = old.tag.is_live_here() && size <= room && (size >= room / 2 || room <= 64);
        if !fits {
            return ptr::null_mut();
        }
        set(ptr, tag.with_size(size));
        count_resize(old.size, size);
        ptr
    }
}

fn count_resize(old: usize, new: usize) {
    count(|counts| {
        counts.on_any_free(old);
        counts.on_any_alloc(new);
    });
}

/// See [`Backend::visit_tagged`].
pub(crate) fn visit(see: &mut dyn FnMut(&Tagged)) {
    let _one = upkeep::lock().lock();
    heap::stop_all(true);
    runs::check(|page| {
        // SAFETY: the first unit of a run, under the lock of the runs; nobody makes or unmakes a page while all heaps'
        // locks are held, and tags are read whole.
        unsafe {
            match (*page).kind.get() {
                Kind::Small if (*page).lead != 0 => visit_page(page, see),
                Kind::Large => {
                    if let Some(block) = live_large(page) {
                        see(&block);
                    }
                }
                _ => {}
            }
        }
        0
    });
    heap::stop_all(false);
    sampled::visit(see);
}

unsafe fn visit_page(page: *mut Page, see: &mut dyn FnMut(&Tagged)) {
    // SAFETY: as above: `carved` blocks of the page have tags.
    unsafe {
        let size = classes::class_size((*page).class as usize);
        let first = Page::first_block(page);
        for number in 0..(*page).carved as usize {
            let block = tagged_from(first.add(number * size), size);
            if let Some(block) = block
                && !block.tag.is_freed()
            {
                see(&block);
            }
        }
    }
}

/// What the tag of a page's block says of it, or of the one that lies in it; `None` of a block that was never handed out.
unsafe fn tagged_from(base: *mut u8, room: usize) -> Option<Tagged> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut tag = get(base);
        let mut start = base.addr();
        if let Some(distance) = tag.distance() {
            if distance >= room {
                return None;
            }
            tag = get(base.add(distance));
            start += distance;
        }
        let freed_at = if tag.is_freed() { base.add(FREED_AT).cast::<u32>().read_volatile() } else { 0 };
        (tag != Tag::NONE).then(|| Tagged { start, size: tag.size(), tag, freed_at })
    }
}

/// See [`Backend::tagged_around`].
pub(crate) fn around(addr: usize) -> Option<Tagged> {
    let word = table::word(addr);
    // SAFETY: the words say what is there, and metadata are for good.
    unsafe {
        if word.is_small() {
            let page = page::of_block(addr);
            if !word.is_tagged() || addr < Page::first_block(page).addr() {
                return None;
            }
            let number = Page::number(page, addr);
            if number >= (*page).carved as usize {
                return None;
            }
            let size = classes::class_size((*page).class as usize);
            let base = Page::first_block(page).add(number * size);
            let block = base.with_addr(addr);
            if block > base && addr.is_multiple_of(MIN_ALIGN) && get(block).is_freed() {
                // One that began inside a block of the page, which knows nothing of it any more.
                let freed_at = base.add(FREED_AT).cast::<u32>().read_volatile();
                return Some(Tagged { start: addr, size: get(block).size(), tag: get(block), freed_at });
            }
            return tagged_from(base, size);
        }
    }
    if sampled::holds(addr) {
        return sampled::around(addr);
    }
    // A large block's inner units have no words: its run is looked for.
    let mut found = None;
    runs::check(|page| {
        // SAFETY: the first unit of a run, under the lock of the runs.
        unsafe {
            let inside = addr.wrapping_sub((*page).start.addr()) < (*page).units as usize * classes::UNIT;
            if inside && matches!((*page).kind.get(), Kind::Large | Kind::Cached) {
                let tag = Tag(Page::large_tag(page).load(Ordering::Relaxed));
                let size = Page::large_size(page).load(Ordering::Relaxed);
                if tag.is_live() || tag.is_freed() {
                    let freed_at = Page::large_freed_at(page).load(Ordering::Relaxed);
                    found = Some(Tagged { start: (*page).start.addr(), size, tag, freed_at });
                }
            }
        }
        0
    });
    found
}

/// See [`Backend::tagged_totals`].
pub(crate) fn totals() -> Totals {
    let mut totals = Totals::default();
    // SAFETY: heaps live for good.
    heap::for_each(|heap| unsafe {
        if (*heap).tagged {
            (*heap).counts.add_to(&mut totals);
        }
    });
    counts::finish(&mut totals);
    totals
}
