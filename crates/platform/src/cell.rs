//! The thread-local cell: one pointer a thread, read in two instructions on stable Rust, in a shared library too.
//!
//! `thread_local!` in a shared library calls `__tls_get_addr`. A cell in `.tdata` read through `@GOTTPOFF` (the
//! initial-exec model) costs two loads, and the linker relaxes it to one in a static program. The price is 8 bytes of the
//! loader's spare room for such cells in libraries that are opened while the program runs (1.5 to 2 KiB in all with
//! glibc), so there are few cells, of one pointer each.

/// `name_thread_cell! { NAME = "symbol" }` gives the cell `NAME` of the same module a second name, by which C code that is
/// linked into the same file reaches it. Only on ELF systems.
#[macro_export]
macro_rules! name_thread_cell {
    ($name:ident = $symbol:literal) => {
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
        ::core::arch::global_asm!(
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".set ", $symbol, ", allokit_cell_", stringify!($name)),
        );
    };
}

/// `thread_cell! { pub(crate) static NAME: *mut T = INITIAL; }`: a module `NAME` with `get() -> *mut T` and
/// `set(*mut T)`. In each thread the cell first points at the static `INITIAL` (of type `T`), so that a hot path needs
/// no test for null. `NAME` must be unique in the program.
#[macro_export]
macro_rules! thread_cell {
    ($vis:vis static $name:ident: *mut $type:ty = $initial:path;) => {
        #[allow(non_snake_case, missing_docs)]
        $vis mod $name {
            use super::*;

            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
            ::core::arch::global_asm!(
                concat!(".pushsection .tdata.allokit_cell_", stringify!($name), ",\"awT\",@progbits"),
                concat!(".globl allokit_cell_", stringify!($name)),
                concat!(".hidden allokit_cell_", stringify!($name)),
                concat!(".type allokit_cell_", stringify!($name), ", @object"),
                concat!(".size allokit_cell_", stringify!($name), ", 8"),
                ".p2align 3",
                concat!("allokit_cell_", stringify!($name), ":"),
                ".8byte {initial}",
                ".popsection",
                initial = sym $initial,
            );

            /// This thread's value.
            #[inline(always)]
            pub fn get() -> *mut $type {
                let value: *mut $type;
                #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
                // SAFETY: reads this thread's copy of the cell defined above.
                unsafe {
                    ::core::arch::asm!(
                        concat!("mov {value}, qword ptr [rip + allokit_cell_", stringify!($name), "@GOTTPOFF]"),
                        "mov {value}, qword ptr fs:[{value}]",
                        value = out(reg) value,
                        options(nostack, preserves_flags, readonly, pure),
                    );
                }
                #[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
                // SAFETY: reads this thread's copy of the cell defined above.
                unsafe {
                    ::core::arch::asm!(
                        "mrs {thread}, tpidr_el0",
                        concat!("adrp {value}, :gottprel:allokit_cell_", stringify!($name)),
                        concat!("ldr {value}, [{value}, :gottprel_lo12:allokit_cell_", stringify!($name), "]"),
                        "ldr {value}, [{thread}, {value}]",
                        thread = out(reg) _,
                        value = out(reg) value,
                        options(nostack, preserves_flags, readonly, pure),
                    );
                }
                #[cfg(not(all(
                    target_os = "linux",
                    any(target_arch = "x86_64", target_arch = "aarch64"),
                    not(miri)
                )))]
                {
                    value = slow::get().cast();
                }
                value
            }

            /// Where this thread's value lies while the thread lives; null where that cannot be told. Another thread may
            /// read and write it there, whole.
            #[allow(dead_code)]
            pub fn address() -> *mut *mut $type {
                let address: *mut *mut $type;
                #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
                // SAFETY: reads where this thread's copy of the cell defined above is.
                unsafe {
                    ::core::arch::asm!(
                        "mov {address}, qword ptr fs:[0]",
                        concat!("add {address}, qword ptr [rip + allokit_cell_", stringify!($name), "@GOTTPOFF]"),
                        address = out(reg) address,
                        options(nostack, readonly, pure),
                    );
                }
                #[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
                // SAFETY: reads where this thread's copy of the cell defined above is.
                unsafe {
                    ::core::arch::asm!(
                        "mrs {thread}, tpidr_el0",
                        concat!("adrp {address}, :gottprel:allokit_cell_", stringify!($name)),
                        concat!("ldr {address}, [{address}, :gottprel_lo12:allokit_cell_", stringify!($name), "]"),
                        "add {address}, {address}, {thread}",
                        thread = out(reg) _,
                        address = out(reg) address,
                        options(nostack, preserves_flags, readonly, pure),
                    );
                }
                #[cfg(not(all(
                    target_os = "linux",
                    any(target_arch = "x86_64", target_arch = "aarch64"),
                    not(miri)
                )))]
                {
                    address = ::core::ptr::null_mut();
                }
                address
            }

            /// Sets this thread's value.
            #[inline(always)]
            pub fn set(value: *mut $type) {
                #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
                // SAFETY: writes this thread's copy of the cell defined above.
                unsafe {
                    ::core::arch::asm!(
                        concat!("mov {offset}, qword ptr [rip + allokit_cell_", stringify!($name), "@GOTTPOFF]"),
                        "mov qword ptr fs:[{offset}], {value}",
                        offset = out(reg) _,
                        value = in(reg) value,
                        options(nostack, preserves_flags),
                    );
                }
                #[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
                // SAFETY: writes this thread's copy of the cell defined above.
                unsafe {
                    ::core::arch::asm!(
                        "mrs {thread}, tpidr_el0",
                        concat!("adrp {offset}, :gottprel:allokit_cell_", stringify!($name)),
                        concat!("ldr {offset}, [{offset}, :gottprel_lo12:allokit_cell_", stringify!($name), "]"),
                        "str {value}, [{thread}, {offset}]",
                        thread = out(reg) _,
                        offset = out(reg) _,
                        value = in(reg) value,
                        options(nostack, preserves_flags),
                    );
                }
                #[cfg(not(all(
                    target_os = "linux",
                    any(target_arch = "x86_64", target_arch = "aarch64"),
                    not(miri)
                )))]
                slow::set(value.cast());
            }

            #[cfg(miri)]
            mod slow {
                use super::*;
                use $crate::std::{cell::Cell, thread_local};

                thread_local! {
                    static CELL: Cell<*mut u8> = const { Cell::new(::core::ptr::null_mut()) };
                }

                pub(super) fn get() -> *mut u8 {
                    let value = CELL.with(Cell::get);
                    if value.is_null() { (&raw const $initial).cast_mut().cast() } else { value }
                }

                pub(super) fn set(value: *mut u8) {
                    CELL.with(|cell| cell.set(value));
                }
            }

            #[cfg(all(
                not(miri),
                not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
            ))]
            mod slow {
                use super::*;

                static KEY: $crate::thread::ValueKey = $crate::thread::ValueKey::new();

                pub(super) fn get() -> *mut u8 {
                    let value = KEY.get();
                    if value.is_null() { (&raw const $initial).cast_mut().cast() } else { value.cast() }
                }

                pub(super) fn set(value: *mut u8) {
                    KEY.set(value.cast());
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    static INITIAL: [u8; 8] = [1; 8];
    static OTHER: [u8; 8] = [2; 8];
    thread_cell! { pub(crate) static TEST_CELL: *mut [u8; 8] = INITIAL; }

    #[test]
    fn each_thread_has_its_own() {
        assert_eq!(TEST_CELL::get().cast_const(), &raw const INITIAL);
        TEST_CELL::set((&raw const OTHER).cast_mut());
        assert_eq!(TEST_CELL::get().cast_const(), &raw const OTHER);
        if cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))) {
            // SAFETY: this thread's cell.
            unsafe {
                assert_eq!((*TEST_CELL::address()).cast_const(), &raw const OTHER);
                *TEST_CELL::address() = (&raw const INITIAL).cast_mut();
                assert_eq!(TEST_CELL::get().cast_const(), &raw const INITIAL);
                TEST_CELL::set((&raw const OTHER).cast_mut());
            }
        }
        std::thread::spawn(|| assert_eq!(TEST_CELL::get().cast_const(), &raw const INITIAL)).join().unwrap();
        assert_eq!(TEST_CELL::get().cast_const(), &raw const OTHER);
    }
}
