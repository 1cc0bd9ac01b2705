//! Blocks that are samples: which ones become it, and what their spans say of them.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::config::PAGE_SIZE;
use crate::decided;
use crate::emergency;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::misuse::Misuse;
use crate::page_heap::large;
use crate::page_heap::span::{SpanId, SpanState};
use crate::place::Place;
use crate::profile::fate::Birth;
use crate::profile::in_use::{self, InUse, Ticket};
use crate::profile::{sampler, sites, stack};
use crate::size_class::SizeClass;
use crate::this_thread;
use crate::way;

/// Bytes between two samples, in the mean; 0: no profile is taken.
static RATE: AtomicUsize = AtomicUsize::new(0);
/// Stacks can be walked.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// Samples that were not taken, for want of memory.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Whether a profile is taken.
#[inline]
pub fn on() -> bool {
    way::word() == way::PROFILED
}

/// So many bytes from one sample to the next, in the mean. Before the first allocation.
pub fn set_rate(bytes: usize) {
    RATE.store(bytes, Relaxed);
}

/// Bytes from one sample to the next, in the mean, if a profile was asked for.
pub fn rate() -> Option<usize> {
    Some(RATE.load(Relaxed)).filter(|rate| *rate > 0) // set before the first allocation
}

/// From now on stacks can be walked. Frames of `own` code are not the program's.
pub fn begin(own: core::ops::Range<usize>) {
    stack::set_own(own);
    BEGUN.store(true, Release);
}

/// Where the process has two words: bytes between two samples, 0 without a profile, and samples that were lost.
pub const fn places() -> [Place; 2] {
    [Place::of(&raw const RATE), Place::of(&raw const LOST)]
}

/// Samples that were not taken, for want of memory.
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Counts an allocation of an object of `class`, while a profile is taken. If it is to be a sample, a run of pages in the
/// object's place.
///
/// Called by the function that the program's code called: the stack is its caller's.
#[inline(always)]
pub fn sample_small(class: SizeClass) -> Option<NonNull<u8>> {
    if sampler::count(class.size(), RATE.load(Relaxed)) { take_small(class) } else { None }
}

#[cold]
#[inline(never)] // a frame of its own: see `stack`
fn take_small(class: SizeClass) -> Option<NonNull<u8>> {
    if !can_take() {
        return None;
    }
    // Any small alignment is a divisor of a page.
    let layout = Layout::from_size_align(class.size(), 1).ok()?;
    let run = match hardened::on() {
        true => hardened::allocate_large(layout),
        false => large::allocate(&BACK_END.pages, layout),
    };
    let Some(run) = run else {
        this_thread::went_without(); // the block itself is still to be had
        LOST.fetch_add(1, Relaxed);
        return None;
    };
    let _busy = sampler::Busy::begin();
    stack::with(|frames| note(run.id, frames, class.size(), Some(class)));
    NonNull::new(BACK_END.pages.start(run.id) as *mut u8)
}

/// Counts the allocation of the large block at `block`, if there is one, and notes it if it is to be a sample.
///
/// Called by the function that the program's code called: the stack is its caller's.
#[inline(always)]
pub fn sample_large(block: *mut u8) {
    if on() && !block.is_null() {
        take_large(block);
    }
}

#[cold]
#[inline(never)] // a frame of its own: see `stack`
fn take_large(block: *mut u8) {
    if emergency::is_now() {
        return;
    }
    let Some(id) = large::at(&BACK_END.pages, block as usize) else { return }; // of emergency memory
    let bytes = bytes_of(id);
    if sampler::count(bytes, RATE.load(Relaxed)) && can_take() {
        let _busy = sampler::Busy::begin();
        stack::with(|frames| note(id, frames, bytes, None));
    }
}

/// Whether this thread can walk its stack now.
fn can_take() -> bool {
    BEGUN.load(Acquire) && decided::is_ready() && !emergency::is_now() // pairs with `begin`
}

/// The large span `id`, the caller's, is a sample of this stack.
fn note(id: SpanId, frames: &[usize], bytes: usize, class: Option<SizeClass>) {
    let site = sites::find(frames, bytes);
    this_thread::went_without(); // all that was missing is a line of its own
    site.count_alloc(bytes);
    let born = Birth::now();
    let address = core::ptr::from_ref(site) as usize;
    let ticket = in_use::note(InUse { site: address, cpu: born.cpu(), thread: this_thread::kernel_number() });
    mark(id, Sample { site, bytes, class, born, ticket });
}

/// Bytes of a large block that are the program's.
fn bytes_of(id: SpanId) -> usize {
    BACK_END.pages.span(id).pages() * PAGE_SIZE - hardened::guard_bytes()
}

/// What is known of a sample.
#[derive(Clone, Copy)]
pub struct Sample {
    site: &'static sites::Site,
    bytes: usize,
    /// What the program takes it for; `None` for a large block.
    class: Option<SizeClass>,
    born: Birth,
    ticket: Ticket,
}

/// Where the word with a sample's bytes has its ticket: no block has so many bytes.
const TICKET_BIT: u32 = 48;
const _: () = assert!(size_of::<usize>() == 8);

/// Notes in the large span `id`, the caller's, that it is a sample.
pub fn mark(id: SpanId, Sample { site, bytes, class, born, ticket }: Sample) {
    let span = BACK_END.pages.span(id);
    let bytes = bytes | usize::from(ticket.number()) << TICKET_BIT;
    // SAFETY: a large span is its owner's, and the caller is.
    unsafe { span.locked() }.note_sample(core::ptr::from_ref(site) as usize, bytes, born.words());
    span.set_sampled(true, class);
}

/// The sample that the large span `id`, the caller's, is. It is none any more.
#[inline]
pub fn unmark(id: SpanId) -> Option<Sample> {
    let span = BACK_END.pages.span(id);
    if !span.is_sampled() {
        return None;
    }
    let class = span.sampled_class();
    span.set_sampled(false, None);
    // SAFETY: as in `mark`.
    let (site, bytes, born) = unsafe { span.locked() }.sample();
    // SAFETY: `mark` noted the address of a site, which lives for ever.
    let site = unsafe { &*(site as *const sites::Site) };
    let ticket = Ticket::of_number((bytes >> TICKET_BIT) as u16);
    let bytes = bytes & ((1 << TICKET_BIT) - 1);
    Some(Sample { site, bytes, class, born: Birth::of_words(born), ticket })
}

/// The calling thread freed a sample now.
pub fn count_free(sample: Sample) {
    in_use::forget(sample.ticket);
    sample.site.count_free(sample.bytes, Some(sample.born));
}

/// Counts the free of the large span `id`, the caller's, if it is a sample.
#[inline]
pub fn note_free(id: SpanId) {
    if let Some(sample) = unmark(id) {
        count_free(sample);
    }
}

/// As [`note_free`], of what was freed before, by whichever thread: what became of it is not known.
pub fn note_late_free(id: SpanId) {
    if let Some(sample) = unmark(id) {
        in_use::forget(sample.ticket);
        sample.site.count_free(sample.bytes, None);
    }
}

/// Whether `object` is where a sample could be.
#[inline]
pub fn may_be_small(object: NonNull<u8>) -> bool {
    object.addr().get().is_multiple_of(PAGE_SIZE)
}

/// The span of the small object at `object`, if that is a sample. In the hardened mode, ends the process if it is another
/// class's.
#[inline]
pub fn sampled_small(class: SizeClass, object: NonNull<u8>) -> Option<SpanId> {
    if !on() || !may_be_small(object) {
        return None;
    }
    let id = large::at(&BACK_END.pages, object.addr().get())?;
    let sampled = class_of_sample(id)?;
    if hardened::on() && sampled != class {
        Misuse::FreeWithOtherSize.end();
    }
    Some(id)
}

/// What the program takes the large span `id` for, if that is a small object.
#[inline]
pub fn class_of_sample(id: SpanId) -> Option<SizeClass> {
    let span = BACK_END.pages.span(id);
    if span.state() == SpanState::Large { span.sampled_class() } else { None }
}
