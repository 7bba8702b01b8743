//! fork: handlers that leave every lock of ours free and every structure whole in the child.

/// Registers handlers: `prepare` runs before a fork (latest registered first), `parent` and `child` after it (earliest
/// first). False when the system has no memory for them.
pub fn register(
    prepare: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) -> bool {
    if cfg!(miri) {
        return true;
    }
    // SAFETY: the handlers are functions for good.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}
