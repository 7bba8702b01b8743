//! The exported entry points: one test of the mode, then a tail jump.
//!
//! A tracked allocation needs the return address of its caller, which stable Rust cannot name from inside a function. A
//! naked function sees it where the call put it, and hands it on in the next free argument register, only on the slow
//! side: the plain side pays one compare and one branch.

/// `entry! { COUNT, pub fn name(a: A, b: B) -> R; mode = MODE, plain = f, slow = g; }` defines the exported
/// `extern "C" fn name`. When the byte `MODE` (an `AtomicU8`) is 1 it continues as `f(a, b)`, otherwise as
/// `g(a, b, caller)`, where `caller: usize` is the return address (0 where the target is not known). `COUNT` is the
/// number of arguments, 1 to 4, all of them integers or pointers.
#[macro_export]
macro_rules! entry {
    ($count:tt, $(#[$meta:meta])* pub fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;
     mode = $mode:path, plain = $plain:path, slow = $slow:path;) => {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
        $(#[$meta])*
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            ::core::arch::naked_asm!(
                "cmp byte ptr [rip + {mode}], 1",
                "jne 2f",
                "jmp {plain}",
                "2:",
                concat!("mov ", $crate::entry_register!(x86_64 $count), ", qword ptr [rsp]"),
                "jmp {slow}",
                mode = sym $mode, plain = sym $plain, slow = sym $slow,
            )
        }

        #[cfg(all(target_arch = "aarch64", target_os = "linux", not(miri)))]
        $(#[$meta])*
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            ::core::arch::naked_asm!(
                "adrp x9, {mode}",
                "ldrb w9, [x9, :lo12:{mode}]",
                "cmp w9, 1",
                "b.ne 2f",
                "b {plain}",
                "2:",
                concat!("mov ", $crate::entry_register!(aarch64 $count), ", x30"),
                "b {slow}",
                mode = sym $mode, plain = sym $plain, slow = sym $slow,
            )
        }

        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux", not(miri))))]
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the caller's promise, passed on.
            unsafe {
                if $mode.load(::core::sync::atomic::Ordering::Relaxed) == 1 {
                    $plain($($arg),*)
                } else {
                    $slow($($arg,)* 0)
                }
            }
        }
    };
}

/// `slow_entry! { COUNT, fn name(a: A, b: B) -> R; slow = g; }` defines an `extern "C" fn name` that continues as
/// `g(a, b, caller)`, where `caller` is the address that the call returns to (0 where the target is not known). A function
/// that ends in a call of it, with the same arguments, is left by a jump in an optimised build; then `caller` is where
/// that function returns to, and its other side needs no jump at all. (Without optimisation `caller` is in the function.)
#[macro_export]
macro_rules! slow_entry {
    ($count:tt, $vis:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?; slow = $slow:path;) => {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
        #[unsafe(naked)]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            ::core::arch::naked_asm!(
                concat!("mov ", $crate::entry_register!(x86_64 $count), ", qword ptr [rsp]"),
                "jmp {slow}",
                slow = sym $slow,
            )
        }

        #[cfg(all(target_arch = "aarch64", target_os = "linux", not(miri)))]
        #[unsafe(naked)]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            ::core::arch::naked_asm!(
                concat!("mov ", $crate::entry_register!(aarch64 $count), ", x30"),
                "b {slow}",
                slow = sym $slow,
            )
        }

        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux", not(miri))))]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the caller's promise, passed on.
            unsafe { $slow($($arg,)* 0) }
        }
    };
}

/// `framed_entry! { fn name(a: A, b: B) -> R; slow = g; }` defines an `extern "C" fn name` that continues as
/// `g(a, b, sp: f64, fp: f64)`, of whose last two [`Here`](crate::unwind::Here) is made: where a function that ends in a call
/// of this one, and is left by a jump, was called. (Floating-point registers, since the others may all be arguments; nobody
/// calculates with them.)
#[macro_export]
macro_rules! framed_entry {
    ($vis:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?; slow = $slow:path;) => {
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
        #[unsafe(naked)]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            ::core::arch::naked_asm!(
                "movq xmm0, rsp",
                "movq xmm1, rbp",
                "jmp {slow}",
                slow = sym $slow,
            )
        }

        #[cfg(all(target_arch = "aarch64", target_os = "linux", not(miri)))]
        #[unsafe(naked)]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            ::core::arch::naked_asm!(
                "mov x9, sp",
                "fmov d0, x9",
                "fmov d1, x29",
                "b {slow}",
                slow = sym $slow,
            )
        }

        #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux", not(miri))))]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the caller's promise, passed on.
            unsafe { $slow($($arg,)* 0.0, 0.0) }
        }
    };
}

/// `unless_one! { MODE => { … } }`: the block, which leaves the function, unless the byte `MODE` (an `AtomicU8`) is 1. A
/// comparison with memory and a branch; of an atomic load the compiler makes an instruction more.
#[macro_export]
macro_rules! unless_one {
    ($mode:path => $otherwise:block) => {{
        #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
        // SAFETY: reads a byte of ours; the block is in the same function.
        unsafe {
            ::core::arch::asm!(
                "cmp byte ptr [rip + {mode}], 1",
                "jne {otherwise}",
                mode = sym $mode,
                otherwise = label $otherwise,
                options(nostack, readonly),
            );
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
        if $mode.load(::core::sync::atomic::Ordering::Relaxed) != 1 {
            $otherwise
        }
    }};
}

/// The register of the argument after `count` integer arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! entry_register {
    (x86_64 0) => {
        "rdi"
    };
    (x86_64 1) => {
        "rsi"
    };
    (x86_64 2) => {
        "rdx"
    };
    (x86_64 3) => {
        "rcx"
    };
    (x86_64 4) => {
        "r8"
    };
    (aarch64 0) => {
        "x0"
    };
    (aarch64 1) => {
        "x1"
    };
    (aarch64 2) => {
        "x2"
    };
    (aarch64 3) => {
        "x3"
    };
    (aarch64 4) => {
        "x4"
    };
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU8, Ordering};

    static MODE: AtomicU8 = AtomicU8::new(1);

    unsafe extern "C" fn plain(a: usize, b: usize) -> usize {
        a * 10 + b
    }

    unsafe extern "C" fn slow(a: usize, b: usize, caller: usize) -> usize {
        assert!(caller != 0 || cfg!(miri));
        a * 100 + b
    }

    entry! { 2, pub fn allokit_entry_test(a: usize, b: usize) -> usize; mode = MODE, plain = plain, slow = slow; }

    #[test]
    fn the_mode_decides() {
        // SAFETY: both sides are plain arithmetic.
        unsafe {
            assert_eq!(allokit_entry_test(4, 2), 42);
            MODE.store(0, Ordering::Relaxed);
            assert_eq!(allokit_entry_test(4, 2), 402);
        }
    }
}
