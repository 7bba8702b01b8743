//! What C++ demands of `operator new` when there is no memory, in a form that needs no C++ library: the installed handler
//! is called for as long as there is one, then an exception is thrown. Both may unwind, and nothing may unwind through
//! Rust; so the loop is written in assembly, with unwind tables.

/// `new_failure! { throwing = NAME, nothrow = NAME2, handler = f, again = g, thrower = h; }` defines two
/// `extern "C" fn(size: usize, align: usize) -> *mut c_void`, for `operator new` to end in. `f() -> Option<handler>` is
/// the handler of now, `g(size, align)` tries again, `h() -> !`'s address throws: `thrower()` gives a function to jump to.
/// `NAME2` gives null where `NAME` throws; and when the handler throws, if a C++ library is there.
#[macro_export]
macro_rules! new_failure {
    (throwing = $throwing:ident, nothrow = $nothrow:ident, handler = $handler:path, again = $again:path,
     thrower = $thrower:path;) => {
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
        unsafe extern "C" {
            /// The failure of a throwing `operator new`.
            pub fn $throwing(size: usize, align: usize) -> *mut ::core::ffi::c_void;
            /// The failure of a nothrow `operator new`.
            pub fn $nothrow(size: usize, align: usize) -> *mut ::core::ffi::c_void;
        }

        #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
        ::core::arch::global_asm!(
            concat!(".pushsection .text.", stringify!($throwing), ",\"ax\",@progbits"),
            concat!(".globl ", stringify!($throwing)),
            concat!(".hidden ", stringify!($throwing)),
            concat!(".type ", stringify!($throwing), ", @function"),
            ".p2align 4",
            concat!(stringify!($throwing), ":"),
            ".cfi_startproc",
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "2:",
            "call {handler}",
            "test rax, rax",
            "je 3f",
            "call rax",
            "mov rdi, qword ptr [rsp + 16]",
            "mov rsi, qword ptr [rsp + 8]",
            "call {again}",
            "test rax, rax",
            "je 2b",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "ret",
            "3:",
            ".cfi_adjust_cfa_offset 24",
            "call {thrower}",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "jmp rax",
            ".cfi_endproc",
            concat!(".size ", stringify!($throwing), ", . - ", stringify!($throwing)),
            ".popsection",
            handler = sym $handler,
            again = sym $again,
            thrower = sym $thrower,
        );

        // The call of the handler has a landing pad that catches everything; without a C++ library the personality is
        // null, and nobody throws.
        #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
        ::core::arch::global_asm!(
            ".weak __gxx_personality_v0",
            ".weak __cxa_begin_catch",
            ".weak __cxa_end_catch",
            concat!(".pushsection .data.rel.ro.", stringify!($nothrow), ",\"aw\",@progbits"),
            ".p2align 3",
            concat!(".L", stringify!($nothrow), "_personality:"),
            ".8byte __gxx_personality_v0",
            ".popsection",
            concat!(".pushsection .text.", stringify!($nothrow), ",\"ax\",@progbits"),
            concat!(".globl ", stringify!($nothrow)),
            concat!(".hidden ", stringify!($nothrow)),
            concat!(".type ", stringify!($nothrow), ", @function"),
            ".p2align 4",
            concat!(stringify!($nothrow), ":"),
            ".cfi_startproc",
            // Indirect, relative to the place, signed, 4 bytes.
            concat!(".cfi_personality 0x9b, .L", stringify!($nothrow), "_personality"),
            concat!(".cfi_lsda 0x1b, .L", stringify!($nothrow), "_lsda"),
            "push rdi",
            ".cfi_adjust_cfa_offset 8",
            "push rsi",
            ".cfi_adjust_cfa_offset 8",
            "sub rsp, 8",
            ".cfi_adjust_cfa_offset 8",
            "2:",
            "call {handler}",
            "test rax, rax",
            "je 4f",
            concat!(".L", stringify!($nothrow), "_from:"),
            "call rax",
            concat!(".L", stringify!($nothrow), "_to:"),
            "mov rdi, qword ptr [rsp + 16]",
            "mov rsi, qword ptr [rsp + 8]",
            "call {again}",
            "test rax, rax",
            "je 2b",
            "4:",
            "add rsp, 24",
            ".cfi_adjust_cfa_offset -24",
            "ret",
            ".cfi_adjust_cfa_offset 24",
            concat!(".L", stringify!($nothrow), "_pad:"),
            "mov rdi, rax",
            "call qword ptr [rip + __cxa_begin_catch@GOTPCREL]",
            "call qword ptr [rip + __cxa_end_catch@GOTPCREL]",
            "xor eax, eax",
            "jmp 4b",
            concat!(".L", stringify!($nothrow), "_end:"),
            ".cfi_endproc",
            concat!(".size ", stringify!($nothrow), ", . - ", stringify!($nothrow)),
            ".popsection",
            concat!(".pushsection .gcc_except_table.", stringify!($nothrow), ",\"a\",@progbits"),
            ".p2align 2",
            concat!(".L", stringify!($nothrow), "_lsda:"),
            // Landing pads are relative to the function; types are relative to their place; call sites are uleb128.
            ".byte 0xff, 0x1b",
            concat!(".uleb128 .L", stringify!($nothrow), "_types - .L", stringify!($nothrow), "_base"),
            concat!(".L", stringify!($nothrow), "_base:"),
            ".byte 0x01",
            concat!(".uleb128 .L", stringify!($nothrow), "_actions - .L", stringify!($nothrow), "_sites"),
            concat!(".L", stringify!($nothrow), "_sites:"),
            concat!(".uleb128 .L", stringify!($nothrow), "_from - ", stringify!($nothrow)),
            concat!(".uleb128 .L", stringify!($nothrow), "_to - .L", stringify!($nothrow), "_from"),
            concat!(".uleb128 .L", stringify!($nothrow), "_pad - ", stringify!($nothrow)),
            ".uleb128 1",
            concat!(".L", stringify!($nothrow), "_actions:"),
            ".byte 1, 0",
            ".p2align 2",
            // No type: everything.
            ".4byte 0",
            concat!(".L", stringify!($nothrow), "_types:"),
            ".popsection",
            handler = sym $handler,
            again = sym $again,
        );

        #[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
        ::core::arch::global_asm!(
            concat!(".pushsection .text.", stringify!($throwing), ",\"ax\",@progbits"),
            concat!(".globl ", stringify!($throwing)),
            concat!(".hidden ", stringify!($throwing)),
            concat!(".type ", stringify!($throwing), ", @function"),
            ".p2align 4",
            concat!(stringify!($throwing), ":"),
            ".cfi_startproc",
            "stp x29, x30, [sp, -32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "stp x0, x1, [sp, 16]",
            "2:",
            "bl {handler}",
            "cbz x0, 3f",
            "blr x0",
            "ldp x0, x1, [sp, 16]",
            "bl {again}",
            "cbz x0, 2b",
            ".cfi_remember_state",
            "ldp x29, x30, [sp], 32",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_restore_state",
            "3:",
            "bl {thrower}",
            "mov x9, x0",
            "ldp x29, x30, [sp], 32",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "br x9",
            ".cfi_endproc",
            concat!(".size ", stringify!($throwing), ", . - ", stringify!($throwing)),
            ".popsection",
            handler = sym $handler,
            again = sym $again,
            thrower = sym $thrower,
        );

        #[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))]
        ::core::arch::global_asm!(
            ".weak __gxx_personality_v0",
            ".weak __cxa_begin_catch",
            ".weak __cxa_end_catch",
            concat!(".pushsection .data.rel.ro.", stringify!($nothrow), ",\"aw\",@progbits"),
            ".p2align 3",
            concat!(".L", stringify!($nothrow), "_personality:"),
            ".8byte __gxx_personality_v0",
            ".popsection",
            concat!(".pushsection .text.", stringify!($nothrow), ",\"ax\",@progbits"),
            concat!(".globl ", stringify!($nothrow)),
            concat!(".hidden ", stringify!($nothrow)),
            concat!(".type ", stringify!($nothrow), ", @function"),
            ".p2align 4",
            concat!(stringify!($nothrow), ":"),
            ".cfi_startproc",
            concat!(".cfi_personality 0x9b, .L", stringify!($nothrow), "_personality"),
            concat!(".cfi_lsda 0x1b, .L", stringify!($nothrow), "_lsda"),
            "stp x29, x30, [sp, -32]!",
            ".cfi_def_cfa_offset 32",
            ".cfi_offset x29, -32",
            ".cfi_offset x30, -24",
            "stp x0, x1, [sp, 16]",
            "2:",
            "bl {handler}",
            "cbz x0, 3f",
            concat!(".L", stringify!($nothrow), "_from:"),
            "blr x0",
            concat!(".L", stringify!($nothrow), "_to:"),
            "ldp x0, x1, [sp, 16]",
            "bl {again}",
            "cbz x0, 2b",
            "3:",
            ".cfi_remember_state",
            "ldp x29, x30, [sp], 32",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_restore_state",
            concat!(".L", stringify!($nothrow), "_pad:"),
            "bl __cxa_begin_catch",
            "bl __cxa_end_catch",
            "mov x0, 0",
            "b 3b",
            concat!(".L", stringify!($nothrow), "_end:"),
            ".cfi_endproc",
            concat!(".size ", stringify!($nothrow), ", . - ", stringify!($nothrow)),
            ".popsection",
            concat!(".pushsection .gcc_except_table.", stringify!($nothrow), ",\"a\",@progbits"),
            ".p2align 2",
            concat!(".L", stringify!($nothrow), "_lsda:"),
            // Landing pads are relative to the function; types are relative to their place; call sites are uleb128.
            ".byte 0xff, 0x1b",
            concat!(".uleb128 .L", stringify!($nothrow), "_types - .L", stringify!($nothrow), "_base"),
            concat!(".L", stringify!($nothrow), "_base:"),
            ".byte 0x01",
            concat!(".uleb128 .L", stringify!($nothrow), "_actions - .L", stringify!($nothrow), "_sites"),
            concat!(".L", stringify!($nothrow), "_sites:"),
            concat!(".uleb128 .L", stringify!($nothrow), "_from - ", stringify!($nothrow)),
            concat!(".uleb128 .L", stringify!($nothrow), "_to - .L", stringify!($nothrow), "_from"),
            concat!(".uleb128 .L", stringify!($nothrow), "_pad - ", stringify!($nothrow)),
            ".uleb128 1",
            concat!(".L", stringify!($nothrow), "_actions:"),
            ".byte 1, 0",
            ".p2align 2",
            // No type: everything.
            ".4byte 0",
            concat!(".L", stringify!($nothrow), "_types:"),
            ".popsection",
            handler = sym $handler,
            again = sym $again,
        );

        #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
        /// The failure of a throwing `operator new`.
        ///
        /// # Safety
        /// None.
        pub unsafe extern "C" fn $throwing(_size: usize, _align: usize) -> *mut ::core::ffi::c_void {
            $crate::abort()
        }

        #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
        /// The failure of a nothrow `operator new`.
        ///
        /// # Safety
        /// None.
        pub unsafe extern "C" fn $nothrow(_size: usize, _align: usize) -> *mut ::core::ffi::c_void {
            ::core::ptr::null_mut()
        }
    };
}
