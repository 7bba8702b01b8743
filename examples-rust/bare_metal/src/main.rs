//! A region and an arena on a machine without an operating system and without libc: the memory is a static buffer, and
//! nothing else is there. Built for `aarch64-unknown-none-softfloat` and run by QEMU's board `virt`:
//!
//! ```sh
//! cargo build --target aarch64-unknown-none-softfloat
//! qemu-system-aarch64 -M virt -cpu cortex-a53 -display none -nic none -semihosting -kernel target/aarch64-unknown-none-softfloat/debug/bare-metal
//! ```
//!
//! It ends with status 0 when all was right; otherwise it says what was not.
#![no_std]
#![no_main]

use allokit_arena::region::Raw;
use allokit_arena::{Arena, Label, Region};
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use core::ptr;

core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".global _start",
    "_start:",
    "adrp x0, stack_top",
    "add x0, x0, :lo12:stack_top",
    "mov sp, x0",
    "bl main",
    "b .",
);

/// What the debugger of the board does for the program ("semihosting").
fn ask(operation: usize, argument: usize) {
    // SAFETY: the board is run with semihosting; the operations used here change no memory.
    unsafe {
        core::arch::asm!("hlt #0xf000", inout("x0") operation => _, in("x1") argument);
    }
}

fn end(status: u64) -> ! {
    // The program ends by its own will, with this status.
    let block = [0x20026, status];
    ask(0x18, block.as_ptr() as usize);
    loop {}
}

/// The debugger's console.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let byte = [byte];
            ask(0x03, byte.as_ptr() as usize);
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "{info}");
    end(1)
}

const SIZE: usize = 64 << 10;
const PLACES: usize = 600;

static mut MEMORY: [MaybeUninit<u8>; SIZE] = [MaybeUninit::uninit(); SIZE];

#[derive(Clone, Copy)]
struct Block {
    at: *mut u8,
    size: usize,
    mark: u8,
}

const NONE: Block = Block { at: ptr::null_mut(), size: 0, mark: 0 };

impl Block {
    fn holds_its_mark(&self) -> bool {
        // SAFETY: the block is live and was filled.
        unsafe { core::slice::from_raw_parts(self.at, self.size) }.iter().all(|&byte| byte == self.mark)
    }
}

/// Blocks of random sizes, resized and freed at random, each filled with a mark of its own that must be there at its end.
fn random(memory: &mut [MaybeUninit<u8>], rounds: u32) -> (u32, u32) {
    let (mut given, mut refused) = (0, 0);
    let mut state = 88_172_645_463_325_252u64;
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    let mut blocks = [NONE; PLACES];
    // SAFETY: the buffer is the region's until it ends; every block is used until it is freed, and no longer.
    unsafe {
        let region = Raw::in_buffer(memory.as_mut_ptr().cast(), memory.len(), Label::NONE).expect("it is large enough");
        let region = region.as_ptr();
        for round in 0..rounds {
            let block = &mut blocks[below(PLACES)];
            let most = 4 << below(9);
            let size = 1 + below(most);
            if !block.at.is_null() {
                assert!(block.holds_its_mark(), "round {round}: a block lost what was in it");
            }
            match below(3) {
                0 if !block.at.is_null() => {
                    if let Ok(Some(moved)) = Raw::realloc(region, block.at, size) {
                        let kept = Block { at: moved.as_ptr(), size: block.size.min(size), ..*block };
                        assert!(kept.holds_its_mark(), "round {round}: a resized block lost what was in it");
                        *block = Block { size, ..kept };
                        block.at.write_bytes(block.mark, size);
                    }
                }
                _ => {
                    if !block.at.is_null() {
                        Raw::free(block.at).expect("a live block");
                        *block = NONE;
                    }
                    match Raw::alloc_aligned(region, size, 16 << below(4)) {
                        Ok(fresh) => {
                            *block = Block { at: fresh.as_ptr(), size, mark: round as u8 };
                            block.at.write_bytes(block.mark, size);
                            given += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        assert_eq!(Raw::check(region), 0);
        let _ = Raw::print(region, &mut Console);
        for block in blocks.iter().filter(|block| !block.at.is_null()) {
            assert!(block.holds_its_mark());
            Raw::free(block.at).expect("a live block");
        }
        assert_eq!(Raw::check(region), 0);
        Raw::destroy(region).expect("it lives");
    }
    (given, refused)
}

/// The safe types over the same memory.
fn safe(memory: &mut [MaybeUninit<u8>]) {
    let (left, right) = memory.split_at_mut(SIZE / 2);
    let region = Region::in_buffer(left).expect("it is large enough");
    let mut numbers = [const { None }; 40];
    for (index, place) in numbers.iter_mut().enumerate() {
        *place = Some(region.alloc([index as u64; 8]).expect("there is room"));
    }
    let sum: u64 = numbers.iter().flatten().map(|block| block[7]).sum();
    assert_eq!(sum, 39 * 40 / 2);
    let arena = Arena::in_buffer(right).expect("it is large enough");
    let text = arena.alloc_str("no operating system, no libc").expect("there is room");
    let _ = writeln!(Console, "{text}: {sum}");
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    // SAFETY: the only use, and there is one thread.
    let memory = unsafe { &mut *ptr::addr_of_mut!(MEMORY) };
    let (given, refused) = random(memory, 100_000);
    assert!(refused > 0, "the memory was never full");
    safe(memory);
    let _ = writeln!(Console, "{given} blocks given, {refused} refused, all right");
    end(0)
}
