//! Functions of other libraries that may be there or not.

/// `weak_symbol! { pub fn name = "symbol": type; }` makes `name() -> Option<type>`: the function `symbol` when something
/// that is loaded at the same time has it. `type` is a function pointer; `name` must be unique in the program.
#[macro_export]
macro_rules! weak_symbol {
    ($(#[$meta:meta])* $vis:vis fn $name:ident = $symbol:literal: $type:ty;) => {
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
        ::core::arch::global_asm!(
            concat!(".weak ", $symbol),
            concat!(".pushsection .data.rel.ro.allokit_weak_", stringify!($name), ",\"aw\",@progbits"),
            concat!(".globl ", stringify!($name), "_allokit_weak"),
            concat!(".hidden ", stringify!($name), "_allokit_weak"),
            ".p2align 3",
            concat!(stringify!($name), "_allokit_weak:"),
            concat!(".8byte ", $symbol),
            ".popsection",
        );

        $(#[$meta])*
        $vis fn $name() -> Option<$type> {
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
            {
                let slot: *const Option<$type>;
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the address of the word above.
                unsafe {
                    ::core::arch::asm!(
                        concat!("lea {slot}, [rip + ", stringify!($name), "_allokit_weak]"),
                        slot = out(reg) slot,
                        options(nostack, preserves_flags, nomem, pure),
                    );
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: the address of the word above.
                unsafe {
                    ::core::arch::asm!(
                        concat!("adrp {slot}, ", stringify!($name), "_allokit_weak"),
                        concat!("add {slot}, {slot}, :lo12:", stringify!($name), "_allokit_weak"),
                        slot = out(reg) slot,
                        options(nostack, preserves_flags, nomem, pure),
                    );
                }
                // SAFETY: the loader has written the function's address, or 0 where nobody has it.
                unsafe { slot.read_volatile() }
            }
            #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
            None
        }
    };
}
