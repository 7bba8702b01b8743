//! Another Rust library in the same program, with all of std: strings, a thread, and a panic that is caught.

#[no_mangle]
pub extern "C" fn other_work(n: u32) -> u32 {
    let words: Vec<String> = (0..n).map(|i| format!("word {i}")).collect();
    std::thread::spawn(move || words.iter().map(|word| word.len() as u32).sum()).join().unwrap()
}

/// 1 when unwinding works, which another library's `rust_eh_personality` would break.
#[no_mangle]
pub extern "C" fn other_unwinds() -> u32 {
    std::panic::set_hook(Box::new(|_| {}));
    struct Guard<'a>(&'a mut u32);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            *self.0 += 1;
        }
    }
    let mut dropped = 0;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = Guard(&mut dropped);
        panic!("caught below");
    }));
    (caught.is_err() && dropped == 1) as u32
}
