//! Functions that run when the library is loaded and when the process ends.

/// `at_load!(f)`: runs `extern "C" fn f()` when the program or shared object that holds it is loaded, before `main`.
/// To be used in the crate that makes the final library, so that the linker keeps it.
#[macro_export]
macro_rules! at_load {
    ($function:path) => {
        #[cfg(not(any(miri, test)))]
        const _: () = {
            #[used]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
            static AT_LOAD: extern "C" fn() = $function;
        };
    };
}

/// `at_exit!(f)`: runs `extern "C" fn f()` at `exit`, after the functions registered by `atexit` and the destructors of
/// global objects of the same module, or when the shared object is unloaded.
#[macro_export]
macro_rules! at_exit {
    ($function:path) => {
        #[cfg(not(any(miri, test)))]
        const _: () = {
            #[used]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".fini_array"))]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_term_func"))]
            static AT_EXIT: extern "C" fn() = $function;
        };
    };
}
