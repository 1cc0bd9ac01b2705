//! The hardened mode: every operation is checked, for programs that are suspected of misusing memory.
//!
//! `PERSEQ_HARDENED=1` chooses it at run time, and it costs the other modes nothing: it keeps no caches, so every
//! operation misses on the usual fast path and comes here by the slow one. What it does:
//!
//! * A free is checked at once: that the address is the beginning of an object of the class that the layout names (or,
//!   given a size as by C23's `free_sized`, of the class that the size asks for), and that the object is not free.
//! * A freed object is filled with [`POISON`] and kept in quarantine, so that it is not handed out again soon. When it
//!   leaves, it must be as it was left: if not, somebody wrote to it after it was freed.
//! * Behind a large block is a page without access, unless there are thousands of such blocks: each costs two of the
//!   process's mappings. A large block in quarantine has no access at all.
//!
//! Each finding is one line on standard error, and the end of the process. Three misuses are not seen: reading a small
//! object after it was freed, writing past the end of a small object, and `realloc` of a freed small object that need
//! not move.

use core::alloc::Layout;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::config::{MAX_GUARDS, PAGE_SIZE};
use crate::emergency;
use crate::lock_order::Rank;
use crate::message::law;
use crate::middle::back_end::BACK_END;
use crate::middle::central_free_list::object_at;
use crate::misuse::{Misuse, judge};
use crate::os;
use crate::page_heap::Run;
use crate::page_heap::span::{SpanId, SpanState};
use crate::place::{Place, bytes};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::Mutex;

/// What a freed object is filled with: as a pointer it is not canonical, as a length it is absurd.
pub const POISON: u8 = 0xDB;

/// Objects in quarantine, and bytes of them, at most.
const SMALL_SLOTS: usize = 1024;
const SMALL_BYTES: usize = 1 << 20;
/// Large blocks in quarantine, and bytes of them, at most.
const LARGE_SLOTS: usize = 64;
const LARGE_BYTES: usize = 64 << 20;

/// Large blocks with a closed page behind them.
static GUARDS: AtomicUsize = AtomicUsize::new(0);

static ON: AtomicBool = AtomicBool::new(false);
static QUARANTINE: Mutex<Quarantine> = Mutex::new(
    Rank::Quarantine,
    Quarantine { small: Ring::new(), large: Ring::new(), objects: [0; CLASSES], large_pages: 0 },
);

struct Quarantine {
    small: Ring<SMALL_SLOTS>,
    large: Ring<LARGE_SLOTS>,
    /// Objects of each class in `small`.
    objects: [u32; CLASSES],
    /// Pages in `large`.
    large_pages: usize,
}

/// First in, first out.
struct Ring<const SLOTS: usize> {
    /// Address, and class or span.
    slots: [(usize, u32); SLOTS],
    first: usize,
    length: usize,
    bytes: usize,
}

impl<const SLOTS: usize> Ring<SLOTS> {
    const fn new() -> Self {
        Ring { slots: [(0, 0); SLOTS], first: 0, length: 0, bytes: 0 }
    }

    fn contains(&self, address: usize) -> bool {
        (0..self.length).any(|place| self.slots[(self.first + place) % SLOTS].0 == address)
    }

    /// The caller makes room first.
    fn push(&mut self, address: usize, what: u32, bytes: usize) {
        law!(self.length < SLOTS, "bounded: a ring has room for what is pushed");
        self.slots[(self.first + self.length) % SLOTS] = (address, what);
        self.length += 1;
        self.bytes += bytes;
    }

    fn first(&self) -> Option<(usize, u32)> {
        (self.length > 0).then(|| self.slots[self.first])
    }

    fn remove_first(&mut self, bytes: usize) {
        law!(self.length > 0 && self.bytes >= bytes, "counted: what leaves a ring was in it");
        self.first = (self.first + 1) % SLOTS;
        self.length -= 1;
        self.bytes -= bytes;
    }
}

/// Whether this process runs hardened. After the environment was read.
#[inline]
pub fn on() -> bool {
    ON.load(Relaxed) // set before the first allocation, by the thread that does it
}

/// `PERSEQ_HARDENED` says so, or does not. False if it says neither.
pub fn set(text: &str) -> bool {
    ON.store(text == "1", Relaxed);
    matches!(text, "0" | "1")
}

/// An object of `class`. `None` if memory is exhausted.
pub fn allocate(class: SizeClass) -> Option<NonNull<u8>> {
    BACK_END.middle(class).remove_uncached().and_then(NonNull::new)
}

/// Checks that `object` is a live one of `class`, and puts it into quarantine. The caller holds no lock.
pub fn free(class: SizeClass, object: NonNull<u8>) {
    BACK_END.middle(class).count_free_elsewhere();
    free_counted(class, object);
}

/// As [`free`], for an object whose free was counted when it was put off.
pub fn free_counted(class: SizeClass, object: NonNull<u8>) {
    judge(quarantine(class, object));
}

fn quarantine(class: SizeClass, object: NonNull<u8>) -> Result<(), Misuse> {
    let address = object.as_ptr() as usize;
    let id = BACK_END.pages.span_of(address).unwrap_or(SpanId::NONE);
    if id == SpanId::NONE && emergency::object_at(address) == Some((class, 0)) {
        return BACK_END.central[class.index()].insert_range(class, &BACK_END.pages, &[object.as_ptr()]);
    }
    let index = object_at(class, &BACK_END.pages, id, address)?;
    let Some(mut quarantine) = QUARANTINE.lock_unless_forking() else {
        // SAFETY: the object is its owner's last act, whose fault it is if that is not so.
        unsafe { emergency::defer_all(&[object.as_ptr()]) };
        return Ok(());
    };
    let is_free = BACK_END.central[class.index()].is_free(class, &BACK_END.pages, id, index);
    if is_free || quarantine.small.contains(address) {
        return Err(Misuse::DoubleFree);
    }
    // SAFETY: the object is its owner's last act; nobody else has it.
    unsafe { object.write_bytes(POISON, class.size()) };
    let finding = quarantine.make_room_for(class.size());
    quarantine.small.push(address, class.index() as u32, class.size());
    quarantine.objects[class.index()] += 1;
    finding
}

impl Quarantine {
    fn make_room_for(&mut self, bytes: usize) -> Result<(), Misuse> {
        let mut finding = Ok(());
        while self.small.length == SMALL_SLOTS || (self.small.length > 0 && self.small.bytes + bytes > SMALL_BYTES) {
            finding = finding.and(self.leave().1);
        }
        finding
    }

    /// The oldest object goes back to its span, whatever was done to it. Its bytes, and what was found.
    fn leave(&mut self) -> (usize, Result<(), Misuse>) {
        let Some((address, index)) = self.small.first() else { return (0, Ok(())) };
        let class = SizeClass::from_index(index as usize);
        // SAFETY: an object in quarantine is nobody's but ours.
        let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, class.size()) };
        let written = bytes.iter().any(|byte| *byte != POISON);
        let finding = if written { Err(Misuse::WriteAfterFree) } else { Ok(()) };
        self.small.remove_first(class.size());
        self.objects[class.index()] -= 1;
        let inserted = BACK_END.central[class.index()].insert_range(class, &BACK_END.pages, &[address as *mut u8]);
        (class.size(), finding.and(inserted))
    }

    /// Gives the oldest large block back to the page heap; returns its bytes. The kernel may refuse to give access back:
    /// it has no room for another mapping, or the process has reached its limit of memory. Then the block's address space
    /// goes back to the kernel.
    fn leave_large(&mut self) -> usize {
        let Some((address, id)) = self.large.first() else { return 0 };
        let id = SpanId(id);
        let bytes = BACK_END.pages.span(id).pages() * PAGE_SIZE;
        self.large.remove_first(bytes);
        self.large_pages -= bytes / PAGE_SIZE;
        // SAFETY: a large span is its owner's, and we are: nobody's block any more.
        if core::mem::take(&mut unsafe { BACK_END.pages.span(id).locked() }.guarded) {
            GUARDS.fetch_sub(1, Relaxed);
        }
        // SAFETY: the pages are ours; nobody uses them after this.
        unsafe {
            if os::unprotect(address as *mut u8, bytes) {
                BACK_END.pages.release(id, false);
            } else {
                BACK_END.pages.discard(id);
            }
        }
        bytes
    }
}

/// Empties the quarantine; returns how many bytes.
///
/// # Errors
///
/// Somebody wrote to an object in it. All else is done.
pub fn drain() -> Result<usize, Misuse> {
    let Some(mut quarantine) = QUARANTINE.lock_unless_orphaned() else { return Ok(0) };
    let (mut bytes, mut finding) = (0, Ok(()));
    loop {
        let (small, left) = quarantine.leave();
        finding = finding.and(left);
        let moved = small + quarantine.leave_large();
        bytes += moved;
        if moved == 0 {
            return finding.map(|()| bytes);
        }
    }
}

/// Objects of `class` in quarantine.
pub fn quarantined(class: SizeClass) -> usize {
    QUARANTINE.lock().objects[class.index()] as usize
}

/// Bytes in quarantine, small and large.
pub fn quarantined_bytes() -> usize {
    let quarantine = QUARANTINE.lock();
    quarantine.small.bytes + quarantine.large.bytes
}

/// Pages of large blocks in quarantine.
pub fn quarantined_pages() -> usize {
    QUARANTINE.lock().large_pages
}

/// Where the quarantine has what it counts, in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct QuarantineLayout {
    /// Where it is.
    pub start: Place,
    /// Bytes of it.
    pub bytes: u32,
    /// 32 bits: 0 while nobody has the lock.
    pub lock: u32,
    /// For each class 32 bits: objects in quarantine.
    pub objects: u32,
    /// 64 bits: pages of large blocks in quarantine.
    pub large_pages: u32,
}

/// See [`QuarantineLayout`].
pub const fn layout() -> QuarantineLayout {
    let value = Mutex::<Quarantine>::VALUE_AT;
    QuarantineLayout {
        start: Place::of(&raw const QUARANTINE),
        bytes: bytes(size_of::<Mutex<Quarantine>>()),
        lock: bytes(Mutex::<Quarantine>::WORD_AT),
        objects: bytes(value + offset_of!(Quarantine, objects)),
        large_pages: bytes(value + offset_of!(Quarantine, large_pages)),
    }
}

/// Bytes of what can be closed: a page, or the kernel's where that is larger.
fn unit() -> usize {
    PAGE_SIZE.max(os::page_size())
}

/// Bytes of a large block of `size`: whole units, so that the closed one begins where it ends.
pub fn large_bytes(size: usize) -> usize {
    size.max(1).next_multiple_of(unit())
}

/// A run of pages, and a unit without access behind it. `None` if memory is exhausted, or the kernel gives no such
/// page.
pub fn allocate_large(layout: Layout) -> Option<Run> {
    // Beyond what any heap has, the arithmetic need not be right.
    if layout.size() > BACK_END.pages.most_bytes() {
        return None;
    }
    let (bytes, unit) = (large_bytes(layout.size()), unit());
    let run = BACK_END.pages.allocate((bytes + unit) / PAGE_SIZE, layout.align().max(unit), SpanState::Large)?;
    // Relaxed, here and where it falls: about so many will do.
    if GUARDS.load(Relaxed) >= MAX_GUARDS {
        return Some(run);
    }
    let guard = BACK_END.pages.start(run.id) + bytes;
    // SAFETY: the last unit of a run that is ours alone.
    if !unsafe { os::protect(guard as *mut u8, unit) } {
        // SAFETY: the run is ours alone.
        unsafe { BACK_END.pages.release(run.id, run.zero) };
        return None;
    }
    GUARDS.fetch_add(1, Relaxed);
    // SAFETY: as above.
    unsafe { BACK_END.pages.span(run.id).locked() }.guarded = true;
    Some(run)
}

/// Ends the process if the large block at `start` is in quarantine. Where no lock can be waited for, it is not looked for.
pub fn check_large(start: usize) {
    if emergency::is_now() {
        return;
    }
    let freed = QUARANTINE.lock_unless_forking().is_some_and(|quarantine| quarantine.large.contains(start));
    if freed {
        Misuse::ResizeOfFreedLarge.end();
    }
}

/// Takes access to a large block away and puts it into quarantine. The caller saw that `id` is a large span, and holds
/// no lock.
pub fn free_large(id: SpanId) {
    judge(quarantine_large(id));
}

fn quarantine_large(id: SpanId) -> Result<(), Misuse> {
    let (start, pages) = (BACK_END.pages.start(id), BACK_END.pages.span(id).pages());
    let bytes = pages * PAGE_SIZE;
    let Some(mut quarantine) = QUARANTINE.lock_unless_forking() else {
        // SAFETY: the block was given up.
        unsafe { emergency::defer_all(&[start as *mut u8]) };
        return Ok(());
    };
    if quarantine.large.contains(start) {
        return Err(Misuse::DoubleFreeOfLarge);
    }
    let full = |large: &Ring<LARGE_SLOTS>| large.bytes + bytes > LARGE_BYTES || large.length == LARGE_SLOTS;
    while quarantine.large.length > 0 && full(&quarantine.large) {
        quarantine.leave_large();
    }
    // SAFETY: the block was given up. What it held is given back at once; if a call fails, less is seen, and the
    // kernel reports nothing that matters.
    unsafe {
        os::release(start as *mut u8, bytes - unit());
        os::protect(start as *mut u8, bytes);
    }
    quarantine.large.push(start, id.0, bytes);
    quarantine.large_pages += pages;
    Ok(())
}

/// Bytes behind a large block that are not the program's.
#[inline]
pub fn guard_bytes() -> usize {
    if on() { unit() } else { 0 }
}

/// Ends the process unless a block of `class`, or one of so many large `bytes`, is what `layout` asks for.
pub fn check_size(class: Option<SizeClass>, bytes: usize, layout: Option<Layout>) {
    let fits = layout.is_some_and(|layout| match SizeClass::of(layout) {
        None => class.is_none() && large_bytes(layout.size()) == bytes,
        asked => asked == class,
    });
    if !fits {
        Misuse::FreeWithOtherSize.end();
    }
}

/// Counts what is in quarantine.
#[cfg(debug_assertions)]
pub fn check() {
    let quarantine = QUARANTINE.lock();
    let (mut objects, mut bytes) = ([0; CLASSES], 0);
    for place in 0..quarantine.small.length {
        let (address, index) = quarantine.small.slots[(quarantine.small.first + place) % SMALL_SLOTS];
        let class = SizeClass::from_index(index as usize);
        let is_out = BACK_END.is_out(class, address);
        law!(is_out, "conserved: the quarantine holds objects that have left their spans");
        objects[class.index()] += 1;
        bytes += class.size();
    }
    law!(objects == quarantine.objects, "counted: objects in quarantine, by class");
    law!(bytes == quarantine.small.bytes && bytes <= SMALL_BYTES, "bounded: bytes of small objects in quarantine");
    let large = (0..quarantine.large.length).map(|place| (quarantine.large.first + place) % LARGE_SLOTS);
    let pages = large.map(|slot| BACK_END.pages.span(SpanId(quarantine.large.slots[slot].1)).pages()).sum::<usize>();
    law!(pages == quarantine.large_pages, "counted: pages of large blocks in quarantine");
    law!(pages * PAGE_SIZE == quarantine.large.bytes, "counted: bytes of large blocks in quarantine");
}

pub(crate) fn mutex() -> &'static Mutex<impl Sized> {
    &QUARANTINE
}
