//! A Rust program over Allokit, plain and tracked: the mode is one for a process, so the test starts itself again.

use allokit_select::{Allokit, api};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashMap;
use std::process::Command;

#[global_allocator]
static ALLOCATOR: Allokit = Allokit;

fn work() {
    let threads: Vec<_> = (0..4u64)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut map = HashMap::new();
                for i in 0..20_000u64 {
                    map.insert(i * 7 + seed, format!("value {i}").repeat((i % 5) as usize + 1));
                    if i % 3 == 0 {
                        map.remove(&(i * 3 + seed));
                    }
                }
                map
            })
        })
        .collect();
    let maps: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(maps.iter().flatten().all(|(_, text)| text.starts_with("value ")));
    // SAFETY: each block is freed with its layout.
    unsafe {
        for align in [1, 16, 32, 4096, 1 << 20] {
            let layout = Layout::from_size_align(100, align).unwrap();
            let block = ALLOCATOR.alloc_zeroed(layout);
            assert!(block.addr().is_multiple_of(align) && (0..100).all(|i| *block.add(i) == 0));
            block.write_bytes(5, 100);
            let block = ALLOCATOR.realloc(block, layout, 9000);
            assert!(block.addr().is_multiple_of(align) && (0..100).all(|i| *block.add(i) == 5));
            ALLOCATOR.dealloc(block, Layout::from_size_align(9000, align).unwrap());
        }
        let impossible = Layout::from_size_align(isize::MAX as usize - 64, 32).unwrap();
        assert!(ALLOCATOR.alloc(impossible).is_null());
    }
}

#[test]
fn a_program_works_in_both_modes() {
    const MODE: &str = "ALLOKIT_TEST_MODE";
    match std::env::var(MODE).as_deref() {
        Ok(mode) => {
            work();
            let tracked = mode == "sites" && cfg!(feature = "track");
            assert_eq!(api::track_get() == api::Level::Sites, tracked);
            let stats = api::stats();
            assert_eq!(stats.alloc_count > 50_000, tracked, "{stats:?}");
            assert!(!tracked || stats.peak_bytes > 1_000_000);
        }
        Err(_) => {
            for mode in ["off", "sites"] {
                let status = Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "a_program_works_in_both_modes"])
                    .env(MODE, mode)
                    .env("ALLOKIT_TRACK", mode)
                    .status()
                    .unwrap();
                assert!(status.success(), "{mode}");
            }
        }
    }
}
