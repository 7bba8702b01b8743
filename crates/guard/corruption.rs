// Random corruption of a guarded heap: calls, and writes into headers, payloads, canaries and freed blocks, as bytes say.
// Each corruption is reported, where and when it should be, or does no harm, and nothing else is reported. Included by the
// layer's own tests and by the fuzzer.

use allokit_core::Backend;
use allokit_guard_under_test::{Guarded, LARGE, SiteId, check};
use allokit_report_under_test::fault;

const SLOTS: usize = 24;
/// Freed blocks that are still known to wait; they fit into a thread's quarantine.
const WAIT: usize = 24;
const HEADER: usize = 16;

struct Live {
    start: *mut u8,
    size: usize,
    /// Header, payload and canary, as they should be (of the payload: as the program last wrote it).
    whole: Vec<u8>,
}

/// From the payload to the end of the canary.
fn tail(size: usize) -> usize {
    ((size + 15) & !7).max(16)
}

impl Live {
    fn new(start: *mut u8, size: usize) -> Live {
        let mut live = Live { start, size, whole: Vec::new() };
        live.whole = live.now();
        live
    }

    fn now(&self) -> Vec<u8> {
        let bytes = HEADER + tail(self.size);
        // SAFETY: a live block of the backend: its header and canary are there.
        unsafe { std::slice::from_raw_parts(self.start.sub(HEADER), bytes) }.to_vec()
    }

    fn differs(&self, from: usize, to: usize) -> bool {
        self.now()[from..to] != self.whole[from..to]
    }

    fn has_wrong_header(&self) -> bool {
        self.differs(0, HEADER)
    }

    fn has_wrong_canary(&self) -> bool {
        self.differs(HEADER + self.size, self.whole.len())
    }

    fn is_wrong(&self) -> bool {
        self.has_wrong_header() || self.has_wrong_canary()
    }

    fn mend(&self) {
        // SAFETY: as in `now`.
        unsafe { self.start.sub(HEADER).copy_from(self.whole.as_ptr(), self.whole.len()) };
    }
}

fn faults<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let before = fault::count();
    let result = run();
    (result, fault::count() - before)
}

/// Runs the bytes until they end. No other thread of the process uses the layer meanwhile, and nothing is wrong at first.
pub fn run<B: Backend>(mut bytes: impl Iterator<Item = u8>) {
    let mut slots: [Option<Live>; SLOTS] = [const { None }; SLOTS];
    let mut waiting: Vec<(*mut u8, usize)> = Vec::new();
    let here = SiteId::UNKNOWN;
    assert_eq!(check(here), 0, "something is wrong before");
    while let (Some(what), Some(which), Some(low), Some(high)) = (bytes.next(), bytes.next(), bytes.next(), bytes.next()) {
        let number = usize::from(low) | usize::from(high) << 8;
        let slot = usize::from(which) % SLOTS;
        // SAFETY: what is written to is a block's, live or waiting, with its header and canary; wrong calls are the layer's
        // to find.
        unsafe {
            match (what % 12, &slots[slot]) {
                (0..4, None) => {
                    let size = 1 + number % if high & 7 == 7 { LARGE - 1 } else { 600 };
                    let (block, found) = faults(|| Guarded::<B>::alloc_at(size, here));
                    assert!(!block.is_null() && found == 0, "alloc of {size}");
                    let live = Live::new(block, size);
                    slots[slot] = Some(live);
                    waiting.retain(|(start, _)| *start != block);
                }
                (0..4, Some(live)) => {
                    let (start, size) = (live.start, live.size);
                    let (header, canary) = (live.has_wrong_header(), live.has_wrong_canary());
                    if header {
                        let ((), found) = faults(|| Guarded::<B>::free_at(start, here));
                        assert_eq!(found, 1, "a wrong header, on free");
                        live.mend();
                    }
                    let ((), found) = faults(|| Guarded::<B>::free_at(start, here));
                    // (A mended header has mended the canary too.)
                    let canary = canary && !header;
                    assert_eq!(found, u64::from(canary), "a free");
                    slots[slot] = None;
                    if !canary && size < 2000 {
                        waiting.push((start, size));
                        if waiting.len() > WAIT {
                            waiting.remove(0);
                        }
                    } else if size >= 2000 {
                        waiting.clear();
                    }
                    let ((), found) = faults(|| Guarded::<B>::free_at(start, here));
                    assert_eq!(found, 1, "a second free");
                }
                (4, Some(live)) => {
                    // The payload is the program's.
                    live.start.add(number % live.size).write(which);
                    let at = HEADER + number % live.size;
                    slots[slot].as_mut().unwrap().whole[at] = which;
                }
                (5 | 6, Some(live)) => {
                    let at = match number % 3 {
                        0 => number / 3 % HEADER,
                        1 => HEADER + live.size + number / 3 % (tail(live.size) - live.size),
                        // Its first byte: the commonest of all.
                        _ => HEADER + live.size,
                    };
                    *live.start.sub(HEADER).add(at) ^= which | 1;
                }
                (7, _) => {
                    if let Some(&(start, size)) = waiting.get(number % waiting.len().max(1)) {
                        waiting.retain(|(other, _)| *other != start);
                        let at = (number / 7 + usize::from(which)) % (HEADER + tail(size));
                        start.sub(HEADER).add(at).write(which | 1);
                        let wrong = slots.iter().flatten().filter(|live| live.is_wrong()).count();
                        let (found, raised) = faults(|| check(here));
                        assert_eq!((found, raised), (wrong + 1, wrong as u64 + 1), "a write after free");
                    }
                }
                (8, Some(live)) => {
                    let size = 1 + number % 3000;
                    let (header, canary) = (live.has_wrong_header(), live.has_wrong_canary());
                    let kept = live.whole[HEADER..HEADER + live.size.min(size)].to_vec();
                    let start = live.start;
                    let (moved, found) = faults(|| Guarded::<B>::realloc_at(start, size, here));
                    assert_eq!(found, u64::from(header || canary), "a realloc");
                    assert_eq!(moved.is_null(), header);
                    if header {
                        live.mend();
                    } else {
                        let live = Live::new(moved, size);
                        assert!(live.whole[HEADER..HEADER + kept.len()] == kept, "the contents");
                        slots[slot] = Some(live);
                        waiting.retain(|(start, _)| *start != moved);
                        waiting.clear();
                    }
                }
                (9, Some(live)) => {
                    let start = live.start;
                    let (usable, found) = faults(|| Guarded::<B>::usable_size_at(start, here));
                    let wrong = live.has_wrong_header();
                    assert_eq!((usable, found), if wrong { (0, 1) } else { (live.size, 0) });
                }
                (10, Some(live)) => {
                    // No start of a block.
                    let inside = live.start.add(1 + number % 15);
                    let ((), found) = faults(|| Guarded::<B>::free_at(inside, here));
                    assert_eq!(found, 1, "an interior free");
                }
                (11, _) => {
                    let wrong = slots.iter().flatten().filter(|live| live.is_wrong()).count();
                    assert_eq!(faults(|| check(here)), (wrong, wrong as u64), "a check");
                }
                _ => {}
            }
        }
    }
    for live in slots.into_iter().flatten() {
        live.mend();
        // SAFETY: live, and as it should be.
        let ((), found) = faults(|| unsafe { Guarded::<B>::free_at(live.start, here) });
        assert_eq!(found, 0, "the last free");
    }
    assert_eq!(check(here), 0, "at the end");
}
