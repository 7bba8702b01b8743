//! What a backend keeps beside a block for the layer above: eight bytes that say whose block it is.

/// The tag of a block: in a live one its call site, the stretch between two marks in which it was made, and its size as
/// asked for. The top byte is the state, and the first that a write before the block meets; zero is no block. A bit below it
/// says that the tag is not at its block's usual place.
/// (The byte of a live block occurs in no text of UTF-8, no pointer and no small number.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tag(pub u64);

/// Bits of a call site's number, and of a stretch's.
const SITE_BITS: u32 = 20;
const SIZE_SHIFT: u32 = 2 * SITE_BITS;
const APART_SHIFT: u32 = 55;
const STATE_SHIFT: u32 = 56;

const LIVE: u64 = 0xf6;
/// One bit less, so that freeing a block takes one instruction.
const FREED: u64 = 0xb6;
const MOVED: u64 = 0xfb;

impl Tag {
    /// A place where no block was yet.
    pub const NONE: Tag = Tag(0);
    /// The largest number of a call site that a tag holds.
    pub const SITE_MAX: u32 = (1 << SITE_BITS) - 1;
    /// The largest size that fits [`Tag::size`]; larger blocks' sizes are kept elsewhere.
    pub const SIZE_MAX: usize = (1 << (APART_SHIFT - SIZE_SHIFT)) - 1;

    /// Of a live block, without its site and size.
    #[inline(always)]
    #[must_use]
    pub const fn live(stretch: u32) -> Tag {
        Tag(LIVE << STATE_SHIFT | ((stretch & Tag::SITE_MAX) as u64) << SITE_BITS)
    }

    /// The same with a site.
    #[inline(always)]
    #[must_use]
    pub fn with_site(self, site: u32) -> Tag {
        debug_assert!(site <= Tag::SITE_MAX);
        Tag(self.0 | u64::from(site))
    }

    /// The same with the size of a small block.
    #[inline(always)]
    #[must_use]
    pub fn with_size(self, size: usize) -> Tag {
        debug_assert!(size <= Tag::SIZE_MAX);
        Tag(self.0 | (size as u64) << SIZE_SHIFT)
    }

    /// The same for a block that does not begin where blocks of its page do.
    #[must_use]
    pub fn apart(self) -> Tag {
        Tag(self.0 | 1 << APART_SHIFT)
    }

    /// Whether the block is live and begins where blocks of its page do.
    #[inline(always)]
    #[must_use]
    pub fn is_live_here(self) -> bool {
        self.0 >> APART_SHIFT == LIVE << 1
    }

    /// What says that the tag of a block lies `distance` bytes further on, since an alignment was asked for.
    #[must_use]
    pub fn moved(distance: usize) -> Tag {
        Tag(MOVED << STATE_SHIFT | distance as u64)
    }

    /// See [`Tag::moved`].
    #[must_use]
    pub fn distance(self) -> Option<usize> {
        (self.0 >> STATE_SHIFT == MOVED).then_some((self.0 & u64::from(u32::MAX)) as usize)
    }

    /// Whether the block is live.
    #[inline(always)]
    #[must_use]
    pub fn is_live(self) -> bool {
        self.0 >> STATE_SHIFT == LIVE
    }

    /// Whether a block was here and was freed.
    #[inline(always)]
    #[must_use]
    pub fn is_freed(self) -> bool {
        self.0 >> STATE_SHIFT == FREED
    }

    /// Of a live block, once it is freed.
    #[inline(always)]
    #[must_use]
    pub fn freed(self) -> Tag {
        debug_assert!(self.is_live());
        Tag(self.0 & !((LIVE ^ FREED) << STATE_SHIFT))
    }

    /// Where the block was allocated; 0 is unknown.
    #[inline(always)]
    #[must_use]
    pub fn site(self) -> u32 {
        self.0 as u32 & Tag::SITE_MAX
    }

    /// The stretch between two marks in which it was allocated.
    #[inline(always)]
    #[must_use]
    pub fn stretch(self) -> u32 {
        (self.0 >> SITE_BITS) as u32 & Tag::SITE_MAX
    }

    /// The size as asked for, of a small block.
    #[inline(always)]
    #[must_use]
    pub fn size(self) -> usize {
        (self.0 >> SIZE_SHIFT) as usize & Tag::SIZE_MAX
    }
}

/// A block with a tag, live or freed, as a walk or a search finds it; its tag is that of neither if it was overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The block's address.
    pub start: usize,
    /// Its size as asked for.
    pub size: usize,
    /// Its tag.
    pub tag: Tag,
    /// Of a freed block, where it was freed; 0 is unknown.
    pub freed_at: u32,
}

/// What a request to free, resize or measure a block with a tag has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is done, or the block was found: a tagged one.
    Tagged(Tagged),
    /// It is done, or the block was found: one without a tag, from before there were tags.
    Plain,
    /// No live block starts there: nothing was done.
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        for (stretch, site, size) in
            [(0, 0, 0), (1, 2, 3), (Tag::SITE_MAX, Tag::SITE_MAX, Tag::SIZE_MAX), (7, 1 << 19, 40)]
        {
            let tag = Tag::live(stretch).with_site(site).with_size(size);
            assert_eq!((tag.stretch(), tag.site(), tag.size()), (stretch, site, size));
            assert!(tag.is_live() && !tag.is_freed() && tag.distance().is_none());
            let freed = tag.freed();
            assert_eq!((freed.stretch(), freed.site(), freed.size()), (stretch, site, size));
            assert!(freed.is_freed() && !freed.is_live());
        }
        assert!(Tag::live(1).is_live_here() && !Tag::live(1).apart().is_live_here() && Tag::live(1).apart().is_live());
        assert_eq!(Tag::moved(4096).distance(), Some(4096));
        assert!(!Tag::NONE.is_live() && !Tag::NONE.is_freed());
    }
}
