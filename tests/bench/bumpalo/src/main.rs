//! The loops of arena_kinds.c for bumpalo: nanoseconds for an allocation, the minimum over repeats.

use bumpalo::Bump;
use std::alloc::Layout;

const REPEATS: usize = 15;
const SIZES: usize = 4096;
const OPS: usize = 1_000_000;

fn now_ns() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn cycles<const ALIGN: usize>(bump: &mut Bump, sizes: &[usize]) -> f64 {
    let operations = OPS / sizes.len() * sizes.len();
    let from = now_ns();
    for _ in 0..OPS / sizes.len() {
        for (number, &size) in sizes.iter().enumerate() {
            // SAFETY: the alignment is a power of two and the size small.
            let layout = unsafe { Layout::from_size_align_unchecked(size, ALIGN) };
            let block = bump.alloc_layout(layout).cast::<i32>();
            // SAFETY: the block is fresh and has 16 bytes at least.
            unsafe { block.as_ptr().write_volatile(number as i32) };
        }
        bump.reset();
    }
    (now_ns() - from) / operations as f64
}

fn measure(name: &str, mut run: impl FnMut() -> f64) {
    let best = (0..REPEATS).map(|_| run()).fold(f64::MAX, f64::min);
    println!("result {name} {best:.3}");
}

fn main() {
    let mut state = 12345u32;
    let sizes: Vec<usize> = (0..SIZES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            16 + (state % 241) as usize
        })
        .collect();
    let mut bump = Bump::new();
    measure("l1", || cycles::<16>(&mut bump, &sizes[..100]));
    measure("560k", || cycles::<16>(&mut bump, &sizes));
    measure("aligned_l1", || cycles::<64>(&mut bump, &sizes[..100]));
    measure("aligned_560k", || cycles::<64>(&mut bump, &sizes));
}
