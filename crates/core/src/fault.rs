//! What a fault is, as the program's handler sees it: `ak_fault_t` and its parts, field for field.

use core::ffi::{c_char, c_void};
use core::ptr;

/// `ak_fault_kind_t`. Later ones are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FaultKind {
    /// A block that is freed already.
    DoubleFree = 1,
    /// A pointer that is no block, or into the middle of one.
    InvalidFree = 2,
    /// Written past the end of a block.
    Overflow = 3,
    /// Written before the start of a block.
    Underflow = 4,
    /// Written after it was freed, given back or reset.
    WriteAfterFree = 5,
    /// Freed with another size than it has.
    SizeMismatch = 6,
    /// A block, object or mark of another allocator, arena, region, pool or stack.
    AllocatorMismatch = 7,
    /// Live where nothing should be.
    Leak = 8,
    /// A request that failed; no fault: it is not counted, and no policy acts on it.
    OutOfMemory = 9,
    /// The records of an arena, region, pool or stack are not what was written.
    CorruptedArena = 10,
    /// A mark or a block from before a reset or rewind.
    UseAfterReset = 11,
    /// An arena, region, pool or stack that was destroyed, or never was one.
    UseAfterDestroy = 12,
    /// Released before what is newer.
    OutOfOrder = 13,
    /// Read after it was freed.
    ReadAfterFree = 14,
}

impl FaultKind {
    /// In words: `ak_fault_name`.
    #[must_use]
    pub const fn name(self) -> &'static core::ffi::CStr {
        match self {
            FaultKind::DoubleFree => c"double free",
            FaultKind::InvalidFree => c"invalid free",
            FaultKind::Overflow => c"overflow",
            FaultKind::Underflow => c"underflow",
            FaultKind::WriteAfterFree => c"write after free",
            FaultKind::SizeMismatch => c"size mismatch",
            FaultKind::AllocatorMismatch => c"allocator mismatch",
            FaultKind::Leak => c"leak",
            FaultKind::OutOfMemory => c"out of memory",
            FaultKind::CorruptedArena => c"corrupted arena",
            FaultKind::UseAfterReset => c"use after reset",
            FaultKind::UseAfterDestroy => c"use after destroy",
            FaultKind::OutOfOrder => c"out of order",
            FaultKind::ReadAfterFree => c"read after free",
        }
    }

    /// All of them, in the order of their numbers.
    pub const ALL: [FaultKind; 14] = [
        FaultKind::DoubleFree,
        FaultKind::InvalidFree,
        FaultKind::Overflow,
        FaultKind::Underflow,
        FaultKind::WriteAfterFree,
        FaultKind::SizeMismatch,
        FaultKind::AllocatorMismatch,
        FaultKind::Leak,
        FaultKind::OutOfMemory,
        FaultKind::CorruptedArena,
        FaultKind::UseAfterReset,
        FaultKind::UseAfterDestroy,
        FaultKind::OutOfOrder,
        FaultKind::ReadAfterFree,
    ];
}

/// `ak_place_t`: what is known of a place in the program; zeroes for what is not.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Place {
    /// Zero-terminated, or null.
    pub file: *const c_char,
    /// Zero-terminated, or null.
    pub function: *const c_char,
    /// A return address, where there is no file.
    pub address: usize,
    /// From 1.
    pub line: u32,
}

impl Place {
    /// Nothing is known.
    pub const UNKNOWN: Place = Place { file: ptr::null(), function: ptr::null(), address: 0, line: 0 };
}

/// `ak_fault_t`. The texts are zero-terminated or null and hold until the handler returns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fault {
    /// Of the library's struct.
    pub struct_size: usize,
    /// What was found.
    pub kind: FaultKind,
    /// `ak_policy_t`: what becomes of the program after the handler.
    pub policy: u32,
    /// A verb: what was about to be done.
    pub operation: *const c_char,
    /// The pointer that it was to be done with.
    pub block: *const c_void,
    /// How far into its block the pointer points.
    pub offset: usize,
    /// Of the block, as asked for; of a leak, all its blocks' bytes; of a failed request, what was asked for.
    pub size: usize,
    /// The size that the caller said.
    pub told_size: usize,
    /// Blocks of a leak.
    pub count: u64,
    /// Where the block was allocated.
    pub allocated: Place,
    /// Where it was freed.
    pub freed: Place,
    /// Where the program is.
    pub now: Place,
    /// "arena", "region", "pool", "stack", "scratch"; null for the general functions.
    pub owner: *const c_char,
    /// The owner's name.
    pub name: *const c_char,
    /// Where the owner was made.
    pub made: Place,
    /// What `ak_assert_balanced` was told.
    pub context: *const c_char,
    /// Of an overflow: up to how far past the block's end was written, as far as that was seen.
    pub over_bytes: usize,
}

impl Fault {
    /// One of which nothing is known but its kind.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Fault {
        Fault {
            struct_size: size_of::<Fault>(),
            kind,
            policy: 0,
            operation: ptr::null(),
            block: ptr::null(),
            offset: 0,
            size: 0,
            told_size: 0,
            count: 0,
            allocated: Place::UNKNOWN,
            freed: Place::UNKNOWN,
            now: Place::UNKNOWN,
            owner: ptr::null(),
            name: ptr::null(),
            made: Place::UNKNOWN,
            context: ptr::null(),
            over_bytes: 0,
        }
    }
}
