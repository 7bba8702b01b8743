//! `ak_check`: looks at every live block, and at what waits.

use crate::block::{self, Layout};
use crate::space::{self, Damage};
use crate::{SiteId, fault, quarantine};
use allokit_core::FaultKind;
use allokit_track::{header, live};

/// Findings that are told one by one; further ones are only counted.
const TOLD: usize = 32;

#[derive(Clone, Copy)]
struct Finding {
    payload: *const u8,
    kind: FaultKind,
    layout: Layout,
    word: u64,
    over: (usize, usize),
}

/// Verifies header and canary of every live block, and that the blocks that wait in this thread's quarantine are clear.
/// Reports what is wrong, and gives the number of faults. Other threads may go on meanwhile.
pub fn check(site: SiteId) -> usize {
    let nothing = Finding {
        payload: core::ptr::null(),
        kind: FaultKind::Overflow,
        layout: Layout { size: 0, offset: 0 },
        word: 0,
        over: (0, 0),
    };
    let mut findings = [nothing; TOLD];
    let mut count = 0;
    {
        let Some(_walk) = live::WALK.lock_for_report() else { return 0 };
        live::for_each(|pin| {
            if let Some(finding) = look(pin.payload) {
                if let Some(place) = findings.get_mut(count) {
                    *place = finding;
                }
                count += 1;
            }
        });
    }
    for found in &findings[..count.min(TOLD)] {
        fault::checked(found.payload, found.kind, &found.layout, found.word, found.over, site);
    }
    count + quarantine::check(site)
}

/// What is wrong with a pinned block.
fn look(payload: *const u8) -> Option<Finding> {
    // SAFETY: the block is pinned.
    let Some((layout, word)) = (unsafe { block::read(payload) }) else {
        let layout = Layout { size: 0, offset: 0 };
        return Some(Finding { payload, kind: FaultKind::Underflow, layout, word: 0, over: (0, 0) });
    };
    let (kind, over) = if header::guard::is_elsewhere(payload.addr()) {
        match space::damage(payload.addr(), layout.size) {
            Damage::None => return None,
            Damage::Behind(first, last) => (FaultKind::Overflow, (first, last)),
            Damage::Before => (FaultKind::Underflow, (0, 0)),
        }
    } else {
        // SAFETY: the block is pinned.
        if unsafe { block::is_whole(payload, layout) } {
            return None;
        }
        // SAFETY: as above.
        (FaultKind::Overflow, unsafe { block::damage(payload, layout) }.unwrap_or((layout.size, layout.size)))
    };
    Some(Finding { payload, kind, layout, word, over })
}

/// At the end of the process: what was written to blocks that wait is still told.
pub fn at_exit() {
    quarantine::check(SiteId::UNKNOWN);
}
