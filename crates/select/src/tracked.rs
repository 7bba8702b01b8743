//! The tracking or guarding layer as a source of the C rules: each [`Origin`] becomes the number of a call site.

use crate::Base;
#[cfg(not(feature = "guard"))]
use crate::Selected;
use crate::api::{self, Kind, Origin, Source};
use crate::arena::Place;
use crate::heap;
use crate::leaks::{LeaksFormat, Profile, RawSnapshot, SiteInfo};
use crate::rehearse::{self, From};
#[cfg(not(feature = "guard"))]
use allokit_core::Backend;
use allokit_core::{Fault, FaultKind, Known, MIN_ALIGN, Stats};
use allokit_platform::file::Draft;
use allokit_platform::stderr::Stderr;
use allokit_platform::unwind::Here;
use allokit_platform::{clock, errno, handler, process};
use allokit_report::fault;
#[cfg(not(feature = "guard"))]
use allokit_track::Tracked;
use allokit_track::growth::{self, Figures, Growth};
use allokit_track::{Leaks, Since, SiteId, Snapshot, sites, stacks};
use core::ffi::{CStr, c_char};
use core::{fmt, ptr};

#[cfg(not(feature = "guard"))]
type Layer = Tracked<Base>;
#[cfg(feature = "guard")]
type Layer = allokit_guard::Guarded<Base>;

/// Before the first tracked allocation.
pub(crate) fn start() {
    #[cfg(not(feature = "guard"))]
    Layer::start();
    #[cfg(feature = "guard")]
    {
        #[cfg(feature = "native")]
        allokit_native::Native::commit_in_steps_of(256 << 10);
        Layer::start(crate::settings::guard_options());
    }
}

/// See [`crate::api::check`].
pub(crate) fn check(origin: Origin) -> usize {
    #[cfg(feature = "guard")]
    return allokit_guard::check(origin.site());
    #[cfg(not(feature = "guard"))]
    allokit_track::check(origin.site())
}

/// The tracker's figures and the backend's.
pub(crate) fn stats(stats: &mut Stats) {
    Layer::stats(stats);
}

/// See [`crate::leaks::print`].
pub(crate) fn leaks_print() -> usize {
    let leaks = Leaks::take(Since::Start);
    // Stderr never fails.
    let _ = leaks.write(&mut Stderr::new(), None);
    leaks.blocks as usize
}

/// What [`leaks_print`] prints.
pub(crate) fn leaks_table(out: &mut dyn fmt::Write) -> fmt::Result {
    Leaks::take(Since::Start).write(out, None)
}

/// See [`crate::leaks::write`].
pub(crate) fn leaks_write(format: LeaksFormat, out: &mut dyn fmt::Write) -> fmt::Result {
    let leaks = Leaks::take(Since::Start);
    match format {
        LeaksFormat::Text => leaks.write_all(out),
        LeaksFormat::Json => leaks.write_json(out),
        LeaksFormat::Lines => leaks.write_lines(out),
    }
}

/// See [`crate::leaks::growth_take`].
pub(crate) fn growth_take() -> bool {
    let mut stats = Stats::new();
    Layer::stats(&mut stats);
    let known = |bit, figure| stats.known.has(bit).then_some(figure);
    growth::take(Figures {
        resident: process::resident(),
        committed: known(Known::COMMITTED_BYTES, stats.committed_bytes),
        allocs: known(Known::ALLOC_COUNT, stats.alloc_count),
        alloc_bytes: known(Known::ALLOC_BYTES, stats.alloc_bytes),
    })
}

/// Whether there is anything to compare.
pub(crate) fn growth_known() -> bool {
    growth::is_known()
}

/// See [`crate::leaks::growth_write`].
pub(crate) fn growth_write(format: LeaksFormat, out: &mut dyn fmt::Write) -> fmt::Result {
    let growth = Growth::take();
    match format {
        LeaksFormat::Text => growth.write_text(out),
        LeaksFormat::Json => growth.write_json(out),
        LeaksFormat::Lines => growth.write_lines(out),
    }
}

/// See [`crate::leaks::mark`].
pub(crate) fn mark() {
    allokit_track::mark();
}

/// See [`crate::leaks::assert_balanced`].
pub(crate) fn assert_balanced(context: &CStr) -> bool {
    let leaks = Leaks::take(Since::Mark);
    if leaks.blocks == 0 {
        return true;
    }
    let tell = |policy| {
        for row in leaks.rows() {
            handler::call(&Fault {
                policy: policy as u32,
                size: row.bytes as usize,
                count: row.blocks,
                allocated: row.site.place(),
                context: context.as_ptr(),
                ..Fault::new(FaultKind::Leak)
            });
        }
    };
    fault::act(tell, |out| leaks.write(out, Some(&context.to_str().unwrap_or("(not UTF-8)"))));
    false
}

/// See [`crate::leaks::visit`]: the most bytes first.
pub(crate) fn visit(see: &mut dyn FnMut(&SiteInfo) -> bool) -> usize {
    let leaks = Leaks::take(Since::Start);
    let mut seen = 0;
    for row in leaks.rows() {
        let place = row.site.parts();
        seen += 1;
        let info = SiteInfo {
            struct_size: size_of::<SiteInfo>(),
            file: place.file.map_or(ptr::null(), CStr::as_ptr),
            function: place.function.map_or(ptr::null(), CStr::as_ptr),
            line: place.line,
            number: row.site.number(),
            address: ptr::without_provenance(place.caller),
            live_blocks: row.blocks,
            live_bytes: row.bytes,
        };
        if !see(&info) {
            break;
        }
    }
    seen
}

/// See [`crate::leaks::snapshot_take`].
pub(crate) fn snapshot_take() -> *mut RawSnapshot {
    Snapshot::take().map_or(ptr::null_mut(), Snapshot::into_raw).cast()
}

/// See [`crate::leaks::snapshot_free`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn snapshot_free(snapshot: *mut RawSnapshot) {
    // SAFETY: the caller's promise.
    unsafe { Snapshot::free(snapshot.cast()) }
}

/// See [`crate::leaks::snapshot_diff`].
///
/// # Safety
/// Both are live snapshots.
pub(crate) unsafe fn snapshot_diff(
    before: *const RawSnapshot,
    after: *const RawSnapshot,
    json: bool,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    // SAFETY: the caller's promise.
    let (before, after) = unsafe { (&*before.cast::<Snapshot>(), &*after.cast::<Snapshot>()) };
    let diff = before.diff(after);
    if json { diff.write_json(out) } else { diff.write_text(out) }
}

/// See [`crate::leaks::profile_write`]: pprof or folded stacks.
pub(crate) fn profile(format: Profile, out: &mut Draft<'_>) {
    if format == Profile::Pprof {
        pprof(&mut |bytes| out.add(bytes));
    } else {
        // A draft tells at its end whether all went well.
        let _ = allokit_track::write_folded(out);
    }
}

/// See [`crate::leaks::write_pprof`].
pub(crate) fn pprof(add: &mut dyn FnMut(&[u8])) {
    allokit_track::write_pprof(clock::unix_ns(), add);
}

/// The part of [`Profile::Json`] that the tracker knows.
pub(crate) fn write_json(out: &mut dyn fmt::Write) -> fmt::Result {
    allokit_track::write_json(out)
}

impl Origin {
    /// The number of the call site.
    #[inline(always)]
    #[must_use]
    pub fn site(self) -> SiteId {
        // SAFETY: whoever made the origin vouches for its texts: the C caller, by alloc.h.
        unsafe {
            match self {
                Origin::Site(record) => sites::of_record(record),
                Origin::At(file, line) => sites::of_place(file, line),
                Origin::Caller(address) => sites::of_caller(address),
            }
        }
    }
}

impl Origin {
    /// The site, where finding it takes no call.
    #[inline(always)]
    fn known_site(self) -> Option<SiteId> {
        match self {
            // SAFETY: as below.
            Origin::Site(record) => unsafe { sites::known_record(record) },
            Origin::At(..) => None,
            Origin::Caller(address) => sites::known_caller(address),
        }
    }

    /// A block, tracking being on, if one is at hand; null says nothing but that the caller must take the long way.
    #[inline(always)]
    #[must_use]
    pub fn alloc_at_hand(self, size: usize) -> *mut u8 {
        #[cfg(not(feature = "guard"))]
        if Selected::TAGS {
            if api::is_tracked() {
                if let Some(site) = self.known_site() {
                    return Layer::alloc_at_hand_at(size, site);
                }
            } else if api::has_stacks() && stacks::passes(size) {
                return Layer::alloc_at_hand_at(size, SiteId::UNSAMPLED);
            }
        }
        let _ = size;
        ptr::null_mut()
    }

    /// Frees a block, tracking being on, if that is done at once; false says nothing but that the caller must take the long
    /// way.
    ///
    /// # Safety
    /// As [`crate::api::free`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn free_at_hand(self, ptr: *mut u8) -> bool {
        match self.known_site() {
            #[cfg(not(feature = "guard"))]
            // SAFETY: the caller's promise.
            Some(site) if Selected::TAGS && api::is_direct() => unsafe { Layer::free_at_hand_at(ptr, site) },
            _ => {
                let _ = ptr;
                false
            }
        }
    }

    /// For the report of a fault.
    fn place(self) -> Place {
        match self {
            // SAFETY: as above: the record is the C caller's, and lives.
            Origin::Site(record) => unsafe { Place { file: (*record).file, line: (*record).line } },
            Origin::At(file, line) => Place { file, line },
            Origin::Caller(_) => Place::NONE,
        }
    }
}

/// A call from somewhere, of a kind that only the guarding layer minds, with what its stack is found by.
#[derive(Clone, Copy, Debug)]
pub struct Kinded(pub Origin, pub Kind, pub Here);

impl Origin {
    #[inline(always)]
    fn plain(self) -> Kinded {
        Kinded(self, Kind::Malloc, Here::NONE)
    }
}

/// A call of which is known that it goes to the layer.
#[derive(Clone, Copy)]
struct Layered(Origin, Kind, Here);

impl Layered {
    /// What a block that is allocated by this call is to carry.
    #[inline]
    fn site(self, size: usize) -> SiteId {
        if api::wants_stacks() {
            // SAFETY: the call is going on.
            unsafe { stacks::of(size, self.2, || self.0.site()) }
        } else {
            self.0.site()
        }
    }
}

impl Kinded {
    /// The layer, where nothing else is to be asked first. (The mode may have changed since the call came this way: a call
    /// that was to be asked about may find that nothing is asked any more, and that there is no layer.)
    #[inline(always)]
    fn direct(self) -> Option<Layered> {
        if api::is_direct() { Some(Layered(self.0, self.1, self.2)) } else { None }
    }

    /// A request that may be refused, then the layer or the backend.
    #[cold]
    #[inline(never)]
    fn ask(
        self,
        size: usize,
        layer: &dyn Fn(Layered) -> *mut u8,
        backend: &dyn Fn(api::Counted) -> *mut u8,
    ) -> *mut u8 {
        let from = From::origin(self.0);
        if rehearse::refuses(from, ptr::null_mut(), size) {
            return rehearse::refused(from, size);
        }
        if api::is_on() { layer(Layered(self.0, self.1, self.2)) } else { backend(api::Counted) }
    }

    /// The layer, or the backend: a call that is never refused.
    #[inline(always)]
    fn layer(self) -> Option<Layered> {
        if api::is_on() { Some(Layered(self.0, self.1, self.2)) } else { None }
    }
}

// SAFETY: the layer keeps the contract, and so does the backend.
unsafe impl Source for Kinded {
    #[inline]
    fn alloc(self, size: usize) -> *mut u8 {
        match self.direct() {
            Some(known) => known.alloc(size),
            None => self.ask(size, &|known| known.alloc(size), &|plain| plain.alloc(size)),
        }
    }
    #[inline]
    fn alloc_zeroed(self, size: usize) -> *mut u8 {
        match self.direct() {
            Some(known) => known.alloc_zeroed(size),
            None => self.ask(size, &|known| known.alloc_zeroed(size), &|plain| plain.alloc_zeroed(size)),
        }
    }
    fn alloc_aligned(self, size: usize, align: usize) -> *mut u8 {
        match self.direct() {
            Some(known) => known.alloc_aligned(size, align),
            None => {
                self.ask(size, &|known| known.alloc_aligned(size, align), &|plain| plain.alloc_aligned(size, align))
            }
        }
    }
    fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8 {
        match self.direct() {
            Some(known) => known.alloc_aligned_zeroed(size, align),
            None => self.ask(size, &|known| known.alloc_aligned_zeroed(size, align), &|plain| {
                plain.alloc_aligned_zeroed(size, align)
            }),
        }
    }
    #[inline]
    unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            match self.direct() {
                Some(known) => known.realloc(ptr, size),
                None => self.ask(size, &|known| known.realloc(ptr, size), &|plain| plain.realloc(ptr, size)),
            }
        }
    }
    unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            match self.direct() {
                Some(known) => known.realloc_aligned(ptr, size, align),
                None => self.ask(size, &|known| known.realloc_aligned(ptr, size, align), &|plain| {
                    plain.realloc_aligned(ptr, size, align)
                }),
            }
        }
    }
    #[inline]
    unsafe fn free(self, ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.layer() {
                Some(known) => known.free(ptr),
                None => api::Counted.free(ptr),
            }
        }
    }
    #[inline]
    unsafe fn free_sized(self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.layer() {
                Some(known) => known.free_sized(ptr, size),
                None => api::Counted.free_sized(ptr, size),
            }
        }
    }
    unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            match self.layer() {
                Some(known) => known.usable_size(ptr),
                None => api::Counted.usable_size(ptr),
            }
        }
    }
    #[cold]
    fn impossible(self) -> *mut u8 {
        match self.layer() {
            Some(known) => known.impossible(),
            None => api::Counted.impossible(),
        }
    }
}

cfg_if::cfg_if! {
    if #[cfg(feature = "guard")] {
        #[inline(always)]
        fn kind(kind: Kind) -> allokit_guard::Kind {
            match kind {
                Kind::Malloc => allokit_guard::Kind::Malloc,
                Kind::New => allokit_guard::Kind::New,
                Kind::NewArray => allokit_guard::Kind::NewArray,
                Kind::AnyNew => allokit_guard::Kind::AnyNew,
            }
        }
        #[inline(always)]
        fn alloc(of: Kind, size: usize, site: SiteId) -> *mut u8 {
            Layer::alloc_as(size, site, kind(of))
        }
        fn alloc_aligned(of: Kind, size: usize, align: usize, site: SiteId) -> *mut u8 {
            Layer::alloc_aligned_as(size, align, site, kind(of))
        }
        #[inline(always)]
        unsafe fn free(of: Kind, ptr: *mut u8, size: Option<usize>, site: SiteId) {
            // SAFETY: the caller's promise.
            unsafe { Layer::free_as(ptr, size, site, kind(of)) }
        }
    } else {
        #[inline(always)]
        fn alloc(_of: Kind, size: usize, site: SiteId) -> *mut u8 {
            Layer::alloc_at(size, site)
        }
        fn alloc_aligned(_of: Kind, size: usize, align: usize, site: SiteId) -> *mut u8 {
            Layer::alloc_aligned_at(size, align, site)
        }
        #[inline(always)]
        unsafe fn free(_of: Kind, ptr: *mut u8, size: Option<usize>, site: SiteId) {
            // SAFETY: the caller's promise.
            unsafe {
                match size {
                    Some(size) => Layer::free_sized_at(ptr, size, site),
                    None => Layer::free_at(ptr, site),
                }
            }
        }
    }
}

// SAFETY: the tracking layer keeps the contract, and so does the heap whose block it is.
unsafe impl Source for Layered {
    #[inline]
    fn alloc(self, size: usize) -> *mut u8 {
        alloc(self.1, size, self.site(size))
    }
    #[inline]
    fn alloc_zeroed(self, size: usize) -> *mut u8 {
        Layer::alloc_zeroed_at(size, self.site(size))
    }
    fn alloc_aligned(self, size: usize, align: usize) -> *mut u8 {
        alloc_aligned(self.1, size, align, self.site(size))
    }
    fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8 {
        Layer::alloc_aligned_zeroed_at(size, align, self.site(size))
    }
    #[inline]
    unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if heap::exist()
                && let Some(block) = heap::realloc(ptr, size, MIN_ALIGN, self.0.place())
            {
                return block;
            }
            Layer::realloc_at(ptr, size, self.site(size))
        }
    }
    unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if heap::exist()
                && let Some(block) = heap::realloc(ptr, size, align, self.0.place())
            {
                return block;
            }
            Layer::realloc_aligned_at(ptr, size, align, self.site(size))
        }
    }
    #[inline]
    unsafe fn free(self, ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            if heap::exist() && heap::free(ptr, self.0.place()) {
                return;
            }
            free(self.1, ptr, None, self.0.site())
        }
    }
    #[inline]
    unsafe fn free_sized(self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if heap::exist() && heap::free(ptr, self.0.place()) {
                return;
            }
            free(self.1, ptr, Some(size), self.0.site())
        }
    }
    unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            if heap::exist()
                && let Some(size) = heap::usable_size(ptr, self.0.place())
            {
                return size;
            }
            Layer::usable_size_at(ptr, self.0.site())
        }
    }
    #[cold]
    fn impossible(self) -> *mut u8 {
        let (operation, now) = (c"alloc".as_ptr(), self.0.site().place());
        fault::tell(&Fault { operation, size: usize::MAX, now, ..Fault::new(FaultKind::OutOfMemory) });
        errno::set(errno::ENOMEM);
        core::ptr::null_mut()
    }
}

// SAFETY: as [`Kinded`].
unsafe impl Source for Origin {
    #[inline]
    fn alloc(self, size: usize) -> *mut u8 {
        self.plain().alloc(size)
    }
    #[inline]
    fn alloc_zeroed(self, size: usize) -> *mut u8 {
        self.plain().alloc_zeroed(size)
    }
    fn alloc_aligned(self, size: usize, align: usize) -> *mut u8 {
        self.plain().alloc_aligned(size, align)
    }
    fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8 {
        self.plain().alloc_aligned_zeroed(size, align)
    }
    #[inline]
    unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.plain().realloc(ptr, size) }
    }
    unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.plain().realloc_aligned(ptr, size, align) }
    }
    #[inline]
    unsafe fn free(self, ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { self.plain().free(ptr) }
    }
    #[inline]
    unsafe fn free_sized(self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.plain().free_sized(ptr, size) }
    }
    unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.plain().usable_size(ptr) }
    }
    #[cold]
    fn impossible(self) -> *mut u8 {
        self.plain().impossible()
    }
}

/// Memory for an arena and the like, attributed to the place that made it.
pub(crate) fn take(number: u32, size: usize, align: usize) -> *mut u8 {
    let site = SiteId::from_number(number);
    if api::is_asked() {
        let from = From::site(site);
        if rehearse::refuses(from, ptr::null_mut(), size) {
            return rehearse::refused(from, size);
        }
    }
    if api::mode() == api::PLAIN {
        return api::alloc_aligned(api::Counted, size, align);
    }
    if align <= allokit_core::MIN_ALIGN {
        Layer::alloc_at(size, site)
    } else {
        Layer::alloc_aligned_at(size, align, site)
    }
}

/// Gives it back.
///
/// # Safety
/// `ptr` came from [`take`] with this size.
pub(crate) unsafe fn give(number: u32, ptr: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if api::mode() == api::PLAIN {
            return api::Counted.free_sized(ptr, size);
        }
        Layer::free_sized_at(ptr, size, SiteId::from_number(number));
    }
}

/// The number of a place, for [`take`].
///
/// # Safety
/// `file` is null or zero-terminated.
pub(crate) unsafe fn number_of(file: *const c_char, line: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { sites::of_place(file, line) }.number()
}
