//! The name of a code address, as far as the dynamic symbol tables tell, without the allocator.

use core::ffi::{CStr, c_void};
use core::fmt;

/// Where a code address lies.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// The path of the module (program or shared object).
    pub module: &'static CStr,
    /// The nearest symbol at or before the address, when the module exports one.
    pub name: Option<&'static CStr>,
    /// Bytes from the symbol, or from the start of the module when there is no name.
    pub offset: usize,
    /// Where the module begins in memory.
    pub base: usize,
}

/// The symbol of an address; `None` when no loaded module covers it. The texts are valid while the module is loaded.
#[must_use]
pub fn of(addr: usize) -> Option<Symbol> {
    if cfg!(miri) {
        return None;
    }
    // SAFETY: dladdr accepts any address and fills the struct or returns 0; its texts belong to the loaded module.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        if libc::dladdr(core::ptr::without_provenance(addr), &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let base = info.dli_fbase.addr();
        let module = program(base).unwrap_or_else(|| CStr::from_ptr(info.dli_fname));
        Some(if info.dli_sname.is_null() {
            Symbol { module, name: None, offset: addr - base, base }
        } else {
            let name = Some(CStr::from_ptr(info.dli_sname));
            Symbol { module, name, offset: addr - info.dli_saddr.addr(), base }
        })
    }
}

/// A call, by the address that it returns to, as people read it: `module(symbol+0x1f)`, `module(+0x1234)`, `0x1234` where no
/// module is known.
#[derive(Clone, Copy, Debug)]
pub struct Call(pub usize);

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One less: the call, not what comes after it, which may be another line or another function.
        let Some(found) = of(self.0.wrapping_sub(1)) else { return write!(out, "{:#x}", self.0) };
        let path = found.module.to_bytes();
        write_text(path.rsplit(|&byte| byte == b'/').next().unwrap_or(path), out)?;
        out.write_str("(")?;
        if let Some(name) = found.name {
            write_text(name.to_bytes(), out)?;
        }
        write!(out, "+{:#x})", found.offset)
    }
}

/// Writes what should be UTF-8.
///
/// # Errors
/// Those of the writer.
pub fn write_text(bytes: &[u8], out: &mut dyn fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        out.write_str(chunk.valid())?;
        if !chunk.invalid().is_empty() {
            out.write_str("\u{fffd}")?;
        }
    }
    Ok(())
}

/// The path that the program was started by, if it begins at `base`. The loader calls it by its first argument, over which
/// servers write what they are doing.
fn program(base: usize) -> Option<&'static CStr> {
    cfg_if::cfg_if! {
        if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
            // SAFETY: no precondition; what the kernel has put there is zero-terminated and stays.
            unsafe {
                let headers = libc::getauxval(libc::AT_PHDR) as usize;
                let path = libc::getauxval(libc::AT_EXECFN) as usize;
                // They are in the program's first page.
                let is_it = path != 0 && headers.wrapping_sub(base) < 4096;
                is_it.then(|| CStr::from_ptr(core::ptr::with_exposed_provenance(path)))
            }
        } else {
            let _ = base;
            None
        }
    }
}

/// Where the program itself begins in memory; 0 when that is not known.
#[must_use]
pub fn program_base() -> usize {
    cfg_if::cfg_if! {
        if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
            // SAFETY: getauxval has no precondition.
            let entry = unsafe { libc::getauxval(libc::AT_ENTRY) } as usize;
            of(entry).map_or(0, |symbol| symbol.base)
        } else {
            0
        }
    }
}

/// Functions of the module that holds this, as the loader has bound their names for everyone. To be a static, which the
/// loader writes.
#[derive(Debug)]
pub struct Bound<const N: usize>(pub [*const c_void; N]);

// SAFETY: addresses of functions, never written but by the loader.
unsafe impl<const N: usize> Sync for Bound<N> {}

impl<const N: usize> Bound<N> {
    /// Whether the names are bound to this module: the process may hold another one with the same names, found first, or
    /// have been bound before this one came.
    pub fn is_here(&'static self) -> bool {
        let module = |address: usize| of(address).map(|symbol| symbol.module.as_ptr());
        for bound in &self.0 {
            // SAFETY: reads a static; volatile, so that it is what the loader wrote there.
            let address = unsafe { core::ptr::from_ref(bound).read_volatile() }.addr();
            if !is_stub(address) {
                return module(address) == module(core::ptr::from_ref(self).addr());
            }
        }
        true
    }
}

/// Whether `addr` is a program's own stub for a function of a library. A program that is linked to a fixed address and
/// takes a function's address makes its stub the function's address for everyone.
fn is_stub(addr: usize) -> bool {
    cfg_if::cfg_if! {
        if #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64", not(miri)))] {
            const RTLD_DL_SYMENT: i32 = 1;
            // SAFETY: dladdr1 accepts any address, and fills the struct and the pointer or returns 0; the symbol belongs
            // to the loaded module.
            unsafe {
                let mut info: libc::Dl_info = core::mem::zeroed();
                let mut symbol: *mut c_void = core::ptr::null_mut();
                let found = libc::dladdr1(
                    core::ptr::without_provenance(addr), &raw mut info, &raw mut symbol, RTLD_DL_SYMENT,
                );
                // The module names the symbol and does not define it.
                found != 0 && !symbol.is_null() && (*symbol.cast::<libc::Elf64_Sym>()).st_shndx == 0
            }
        } else {
            let _ = addr;
            false
        }
    }
}

/// Where to look for a symbol.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    /// All that the program was started with, or has made known to all since.
    Program,
    /// The modules that are loaded after the one that asks.
    Next,
    /// A library of this name, if it is loaded.
    In(&'static CStr),
}

/// The address of a symbol, or null. The dynamic linker may allocate.
#[must_use]
pub fn find(place: Where, name: &CStr) -> *mut c_void {
    if cfg!(miri) {
        return core::ptr::null_mut();
    }
    // SAFETY: the texts are zero-terminated; the library stays loaded, since its handle is not closed.
    unsafe {
        let handle = match place {
            Where::Program => libc::RTLD_DEFAULT,
            Where::Next => libc::RTLD_NEXT,
            Where::In(library) => libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD),
        };
        if handle.is_null() && matches!(place, Where::In(_)) {
            return core::ptr::null_mut();
        }
        libc::dlsym(handle, name.as_ptr())
    }
}
