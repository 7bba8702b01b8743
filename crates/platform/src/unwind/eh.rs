//! Return addresses by the tables that code carries for exceptions and debuggers (`.eh_frame`), where it has no frame
//! pointers. The tables are read by gimli, which needs no allocator here; the modules are found by the loader's
//! `_dl_find_object`, which takes no lock. What a table says of an address is kept in a cache of one word an entry.
//!
//! As with frame pointers, the stack is read only where it certainly is, so wrong tables make a wrong stack and no fault.

use super::{Bounds, Here, Object, frame_at, object_of};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Pointer, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};

/// How to get from a call to the one that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The stack pointer of the caller is one of the two registers and so much; the frame pointer is what it was, or lies so
    /// far below that.
    Frame { by_fp: bool, size: u32, saved: Option<u16> },
    /// Nobody has called this.
    End,
    /// The kernel has: a signal's frame.
    Signal,
    /// Nothing is known; there may be a frame pointer.
    Unknown,
}

/// Bits of an entry that are the rule.
const RULE_BITS: u32 = 29;
const SIZE_BITS: u32 = 15;
const SAVED_BITS: u32 = 10;

impl Rule {
    /// In so few bits; never 0. `None`: it does not fit.
    fn packed(self) -> Option<u64> {
        Some(match self {
            Rule::End => 1,
            Rule::Signal => 2,
            Rule::Unknown => 3,
            Rule::Frame { by_fp, size, saved } => {
                let (size, saved) = (u64::from(size / 8), u64::from(saved.unwrap_or(0) / 8));
                if size >> SIZE_BITS != 0 || saved >> SAVED_BITS != 0 {
                    return None;
                }
                (saved << SIZE_BITS | size) << 3 | u64::from(by_fp) << 2
            }
        })
        .filter(|packed| *packed != 0)
    }

    fn unpacked(bits: u64) -> Rule {
        match bits & 3 {
            1 => Rule::End,
            2 => Rule::Signal,
            3 => Rule::Unknown,
            _ => {
                let size = (bits >> 3) as u32 & ((1 << SIZE_BITS) - 1);
                let saved = (bits >> (3 + SIZE_BITS)) as u16;
                Rule::Frame { by_fp: bits & 4 != 0, size: size * 8, saved: (saved != 0).then_some(saved * 8) }
            }
        }
    }
}
const _: () = assert!(SIZE_BITS + SAVED_BITS + 3 <= RULE_BITS);

const CACHE_BITS: u32 = 12;
/// Rules: in a place that the address says, the rest of the address, mixed with where the module's table is, and the rule.
static CACHE: [AtomicU64; 1 << CACHE_BITS] = [const { AtomicU64::new(0) }; 1 << CACHE_BITS];

/// As [`super::walk`].
///
/// # Safety
/// As there.
pub(super) unsafe fn walk(here: Here, caller: usize, stack: Bounds, frames: &mut [MaybeUninit<usize>]) -> &[usize] {
    let (mut pc, mut sp, mut fp) = (caller, here.sp + size_of::<usize>(), here.fp);
    let (mut count, mut object) = (0, None);
    let word = |at: usize, sp: usize| {
        let is_there = at >= sp && at <= stack.high - size_of::<usize>() && at.is_multiple_of(size_of::<usize>());
        // SAFETY: that is in the part of the stack that is in use.
        is_there.then(|| unsafe { ptr::with_exposed_provenance::<usize>(at).read_volatile() })
    };
    let mut step = || {
        let rule = rule_of(pc - 1, &mut object);
        match rule {
            Rule::End => return None,
            Rule::Signal => {
                // The kernel's `ucontext` lies there: its registers from byte 40 on.
                let (new_pc, new_sp, new_fp) = (word(sp + 168, sp)?, word(sp + 160, sp)?, word(sp + 120, sp)?);
                if new_sp <= sp || new_sp >= stack.high {
                    return None;
                }
                // As if it were a return address.
                (pc, sp, fp) = (new_pc.checked_add(1)?, new_sp, new_fp);
            }
            Rule::Frame { by_fp, size, saved } => {
                let end = if by_fp { fp } else { sp }.checked_add(size as usize)?;
                if end <= sp || end > stack.high {
                    return None;
                }
                let new_pc = word(end - size_of::<usize>(), sp)?;
                if let Some(saved) = saved {
                    fp = word(end - saved as usize, sp)?;
                }
                (pc, sp) = (new_pc, end);
            }
            Rule::Unknown => {
                // SAFETY: the caller's promise.
                let [next, new_pc] = unsafe { frame_at(fp, sp, stack)? };
                (pc, sp, fp) = (new_pc, fp + 2 * size_of::<usize>(), next);
            }
        }
        (pc >= 4096 && !(stack.low..stack.high).contains(&pc)).then_some(pc)
    };
    while count < frames.len()
        && let Some(found) = step()
    {
        frames[count].write(found);
        count += 1;
    }
    // SAFETY: so many are written.
    unsafe { frames[..count].assume_init_ref() }
}

/// What the tables say of an address inside a call. `object` is the module of the last one.
fn rule_of(pc: usize, object: &mut Option<Object>) -> Rule {
    if !object.as_ref().is_some_and(|object| object.has(pc)) {
        *object = object_of(pc);
    }
    let Some(object) = object else { return Rule::Unknown };
    // Another module in the same place, once this one is unloaded, has its table elsewhere.
    let mark = (object.eh_frame.addr() as u64 >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) << RULE_BITS;
    let rest = (pc as u64 >> CACHE_BITS << RULE_BITS) ^ mark;
    let slot = &CACHE[(pc ^ pc >> CACHE_BITS ^ pc >> (2 * CACHE_BITS)) & ((1 << CACHE_BITS) - 1)];
    let found = slot.load(Ordering::Relaxed);
    if found != 0 && (found ^ rest) >> RULE_BITS == 0 {
        return Rule::unpacked(found & ((1 << RULE_BITS) - 1));
    }
    let rule = read(pc, object).unwrap_or(Rule::Unknown);
    if let Some(packed) = rule.packed() {
        slot.store(rest >> RULE_BITS << RULE_BITS | packed, Ordering::Relaxed);
    }
    rule
}

/// gimli's room, on the stack.
struct Room;

impl<T: gimli::ReaderOffset> UnwindContextStorage<T> for Room {
    type Rules = [(Register, RegisterRule<T>); 20];
    type Stack = [UnwindTableRow<T, Room>; 3];
}

/// The bytes from an address to the end of the part of the module that it lies in.
fn rest_of<'a>(address: usize, object: &Object) -> Option<&'a [u8]> {
    let start = object.start.addr();
    // SAFETY: a module begins with its header, and the table of its parts lies in the first of them.
    unsafe {
        let header = &*ptr::with_exposed_provenance::<libc::Elf64_Ehdr>(start);
        if header.e_ident[..4] != *b"\x7fELF" || header.e_phentsize as usize != size_of::<libc::Elf64_Phdr>() {
            return None;
        }
        let parts = ptr::with_exposed_provenance::<libc::Elf64_Phdr>(start + header.e_phoff as usize);
        let parts = core::slice::from_raw_parts(parts, header.e_phnum as usize);
        let loaded = || parts.iter().filter(|part| part.p_type == libc::PT_LOAD);
        let base = start.wrapping_sub(loaded().next()?.p_vaddr as usize & !4095);
        let ends = loaded().find_map(|part| {
            let begin = base.wrapping_add(part.p_vaddr as usize);
            (begin..begin + part.p_filesz as usize).contains(&address).then_some(begin + part.p_filesz as usize)
        })?;
        Some(core::slice::from_raw_parts(ptr::with_exposed_provenance(address), ends - address))
    }
}

#[cold]
#[inline(never)]
fn read(pc: usize, object: &Object) -> Option<Rule> {
    let hdr_at = object.eh_frame.addr();
    if hdr_at == 0 {
        return None;
    }
    let bases = BaseAddresses::default().set_eh_frame_hdr(hdr_at as u64);
    let hdr = EhFrameHdr::new(rest_of(hdr_at, object)?, LittleEndian).parse(&bases, 8).ok()?;
    let Pointer::Direct(eh_at) = hdr.eh_frame_ptr() else { return None };
    let bases = bases.set_eh_frame(eh_at);
    let frames = EhFrame::from(EndianSlice::new(rest_of(eh_at as usize, object)?, LittleEndian));
    let fde = hdr.table()?.fde_for_address(&frames, &bases, pc as u64, EhFrame::cie_from_offset).ok()?;
    if fde.is_signal_trampoline() {
        return Some(Rule::Signal);
    }
    let mut room = UnwindContext::<usize, Room>::new_in();
    let row = fde.unwind_info_for_address(&frames, &bases, &mut room, pc as u64).ok()?;
    let (by_fp, size) = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } if *register == X86_64::RSP => (false, *offset),
        CfaRule::RegisterAndOffset { register, offset } if *register == X86_64::RBP => (true, *offset),
        _ => return None,
    };
    match row.register(X86_64::RA) {
        Some(RegisterRule::Offset(-8)) => {}
        Some(RegisterRule::Undefined) => return Some(Rule::End),
        _ => return None,
    }
    let saved = match row.register(X86_64::RBP) {
        Some(RegisterRule::Offset(offset)) => Some(u16::try_from(-offset).ok()?),
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => None,
        _ => return None,
    };
    Some(Rule::Frame { by_fp, size: u32::try_from(size).ok()?, saved })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_stack_is_read() {
        crate::unwind::prepare();
        if !crate::unwind::has_tables() {
            return;
        }
        // At its beginning a function has nothing on the stack but where it returns to: so this is called by itself.
        let pc = libc::getpid as *const () as usize + 1;
        let words = [pc; 64];
        let base = words.as_ptr().expose_provenance();
        let mut frames = [MaybeUninit::uninit(); 32];
        let stack = Bounds { low: base, high: base + 8 * 8 };
        // SAFETY: the "stack" is the test's own, and so is what lies behind it.
        let found = unsafe { walk(Here { sp: base, fp: 0 }, pc, stack, &mut frames) };
        assert_eq!(found, [pc; 7]);
    }

    #[test]
    fn rules_come_back_from_an_entry() {
        let frame = |by_fp, size, saved| Rule::Frame { by_fp, size, saved };
        let most = frame(false, 8 * ((1 << SIZE_BITS) - 1), Some(8 * ((1 << SAVED_BITS) - 1)));
        for rule in [Rule::End, Rule::Signal, Rule::Unknown, frame(false, 8, None), frame(true, 16, Some(16)), most] {
            let packed = rule.packed().unwrap();
            assert!(packed != 0 && packed >> RULE_BITS == 0);
            assert_eq!(Rule::unpacked(packed), rule);
        }
        assert_eq!(frame(true, 8 << SIZE_BITS, None).packed(), None);
    }
}
