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

/// A part of a loaded module that holds code.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Where it lies.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
    /// Where it begins in the file.
    pub offset: usize,
    path: [u8; 512],
    build_id: [u8; 32],
    lengths: (u16, u16),
}

impl Module {
    /// The path of the module, cut off where it is very long.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path[..self.lengths.0 as usize]
    }

    /// What the linker has noted to tell the module from others; empty when it has not.
    #[must_use]
    pub fn build_id(&self) -> &[u8] {
        &self.build_id[..self.lengths.1 as usize]
    }
}

/// Calls `see` with all parts of loaded modules that hold code. The loader's lock is held: `see` must not open or close
/// modules.
pub fn modules(see: &mut dyn FnMut(Module)) {
    #[cfg(all(any(target_os = "linux", target_os = "android"), target_pointer_width = "64", not(miri)))]
    {
        unsafe extern "C" fn one(info: *mut libc::dl_phdr_info, _size: usize, see: *mut c_void) -> i32 {
            // SAFETY: the loader's struct, valid during the call, and what was handed in below.
            unsafe {
                let (info, see) = (&*info, &mut *see.cast::<&mut dyn FnMut(Module)>());
                let headers = if info.dlpi_phnum == 0 {
                    &[]
                } else {
                    core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize)
                };
                let base = info.dlpi_addr as usize;
                let mut room = [0; 4096];
                let name = if info.dlpi_name.is_null() { c"" } else { CStr::from_ptr(info.dlpi_name) }.to_bytes();
                let name = if name.is_empty() { crate::process::program(&mut room) } else { name };
                let mut path = [0; 512];
                let length = name.len().min(path.len());
                path[..length].copy_from_slice(&name[..length]);
                let (build_id, id_length) = build_id(base, headers);
                for part in headers.iter().filter(|part| part.p_type == libc::PT_LOAD && part.p_flags & libc::PF_X != 0)
                {
                    let start = base + part.p_vaddr as usize;
                    see(Module {
                        start,
                        end: start + part.p_memsz as usize,
                        offset: part.p_offset as usize,
                        path,
                        build_id,
                        lengths: (length as u16, id_length as u16),
                    });
                }
            }
            0
        }
        let mut see = see;
        // SAFETY: the function takes what is handed on to it.
        unsafe { libc::dl_iterate_phdr(Some(one), (&raw mut see).cast()) };
    }
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), target_pointer_width = "64", not(miri))))]
    let _ = see;
}

/// The note with the build id.
///
/// # Safety
/// The program headers of a module that is loaded at `base`.
#[cfg(all(any(target_os = "linux", target_os = "android"), target_pointer_width = "64", not(miri)))]
unsafe fn build_id(base: usize, headers: &[libc::Elf64_Phdr]) -> ([u8; 32], usize) {
    const NT_GNU_BUILD_ID: u32 = 3;
    let mut id = [0; 32];
    for notes in headers.iter().filter(|part| part.p_type == libc::PT_NOTE) {
        let bytes = core::ptr::with_exposed_provenance::<u8>(base + notes.p_vaddr as usize);
        // SAFETY: notes lie in the module's memory.
        let bytes = unsafe { core::slice::from_raw_parts(bytes, notes.p_memsz as usize) };
        let mut at = 0;
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        while let (Some(name), Some(length), Some(kind)) = (word(at), word(at + 4), word(at + 8)) {
            let begin = at + 12 + (name as usize).next_multiple_of(4);
            if kind == NT_GNU_BUILD_ID
                && bytes.get(at + 12..at + 16) == Some(b"GNU\0")
                && let Some(found) = bytes.get(begin..begin + length as usize)
            {
                let length = found.len().min(id.len());
                id[..length].copy_from_slice(&found[..length]);
                return (id, length);
            }
            at = begin + (length as usize).next_multiple_of(4);
        }
    }
    (id, 0)
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
