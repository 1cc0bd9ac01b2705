//! Other sources of pages than [`Mmap`](crate::pages::Mmap): the system's huge pages, a fixed piece of memory, and
//! two for tests.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

use crate::config::HUGE_PAGE;
use crate::names::{self, Name};
use crate::os;
use crate::page_heap::source::{PageSource, Relocation};

/// The system's reserved huge pages of 2 MiB (hugetlbfs, `vm.nr_hugepages`).
///
/// They are taken when the heap grows and stay its own until it is dropped: the kernel would keep them reserved
/// for the heap anyway. Where too few are left, ordinary pages take their place, and
/// [`HugeTlb::ordinary_bytes`] says how many.
#[derive(Debug, Default)]
pub struct HugeTlb {
    huge: AtomicUsize,
    ordinary: AtomicUsize,
}

impl HugeTlb {
    /// A source that has taken nothing yet.
    #[must_use]
    pub const fn new() -> HugeTlb {
        HugeTlb { huge: AtomicUsize::new(0), ordinary: AtomicUsize::new(0) }
    }

    /// Bytes of huge pages taken, for blocks and tables.
    #[must_use]
    pub fn huge_bytes(&self) -> usize {
        self.huge.load(Relaxed)
    }

    /// Bytes of ordinary pages taken because there were too few huge ones.
    #[must_use]
    pub fn ordinary_bytes(&self) -> usize {
        self.ordinary.load(Relaxed)
    }
}

// SAFETY: as for `Mmap`; huge pages from the pool are zeroed and reserved when they are mapped, so a touch finds them.
unsafe impl PageSource for HugeTlb {
    const GRANULE: usize = HUGE_PAGE;

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let start = os::reserve(bytes)?;
        // SAFETY: mapped just now. Huge pages take the place of what has the name, and have a file's.
        unsafe { names::give(Name::Apart, start, bytes) };
        Some(start)
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by our own contract.
        unsafe { os::unmap(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: by our own contract; ranges are multiples of the granule.
        unsafe {
            if os::commit_huge(start.as_ptr(), bytes) {
                self.huge.fetch_add(bytes, Relaxed);
                return true;
            }
            let done = os::commit(start.as_ptr(), bytes);
            names::give(Name::Apart, start, bytes); // it may have been mapped again meanwhile
            self.ordinary.fetch_add(if done { bytes } else { 0 }, Relaxed);
            done
        }
    }

    unsafe fn release(&self, _start: NonNull<u8>, _bytes: usize) -> bool {
        false
    }
}

/// A fixed piece of memory: a static, or what a caller has from elsewhere. It serves one heap.
pub struct Arena {
    memory: UnsafeCell<&'static mut [MaybeUninit<u8>]>,
    taken: AtomicBool,
}

// SAFETY: the memory is the source's alone, and handed to one heap only.
unsafe impl Sync for Arena {}

impl Arena {
    /// All blocks and tables of the heap come out of `memory`; they leave about 99 % of it to pages.
    #[must_use]
    pub fn new(memory: &'static mut [MaybeUninit<u8>]) -> Arena {
        Arena { memory: UnsafeCell::new(memory), taken: AtomicBool::new(false) }
    }

    fn length(&self) -> usize {
        // SAFETY: the slice itself, unlike what it names, never changes.
        unsafe { (&*self.memory.get()).len() }
    }
}

// SAFETY: the memory is ours for ever; `commit` zeroes it.
unsafe impl PageSource for Arena {
    /// No kernel is asked for anything.
    const GRANULE: usize = 4096;
    const WHOLE: bool = true;

    fn most_bytes(&self) -> usize {
        self.length()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.length() || self.taken.swap(true, AcqRel) {
            return None;
        }
        // SAFETY: nobody else has it: `taken` was false.
        NonNull::new(unsafe { (*self.memory.get()).as_mut_ptr() }.cast())
    }

    unsafe fn unreserve(&self, _start: NonNull<u8>, _bytes: usize) {
        self.taken.store(false, Relaxed); // the heap that had it is being dropped by the source's only owner
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: by our own contract, part of the memory, and nobody uses it.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        true
    }

    unsafe fn release(&self, _start: NonNull<u8>, _bytes: usize) -> bool {
        false
    }
}

/// For tests: a source whose requests fail from the n-th on, until told otherwise. A request is a call of `reserve`,
/// `commit`, `release` or `relocate`.
#[derive(Debug)]
pub struct Failing<S> {
    inner: S,
    left: AtomicU64,
}

impl<S> Failing<S> {
    /// `good` requests succeed as far as `inner`'s do, and those that follow fail.
    pub const fn new(inner: S, good: u64) -> Self {
        Failing { inner, left: AtomicU64::new(good) }
    }

    /// From now on, `good` more requests succeed.
    pub fn allow(&self, good: u64) {
        self.left.store(good, Relaxed);
    }

    /// Requests that would still succeed.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    fn passes(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

// SAFETY: does what `inner` does, or nothing.
unsafe impl<S: PageSource> PageSource for Failing<S> {
    const GRANULE: usize = S::GRANULE;
    const WHOLE: bool = S::WHOLE;

    fn release_granule(&self) -> usize {
        self.inner.release_granule()
    }

    fn most_bytes(&self) -> usize {
        self.inner.most_bytes()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.passes().then(|| self.inner.reserve(bytes)).flatten()
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by our own contract, here and below.
        unsafe { self.inner.unreserve(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        self.passes() && unsafe { self.inner.commit(start, bytes) }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        self.passes() && unsafe { self.inner.release(start, bytes) }
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
        if !self.passes() {
            return Relocation::Refused;
        }
        // SAFETY: as above.
        unsafe { self.inner.relocate(from, to, bytes) }
    }
}

/// What went through a [`Counting`] source, in bytes but for the calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Address space reserved and not given back.
    pub reserved: u64,
    /// Committed, ever, in reservations not given back or given back.
    pub committed: u64,
    /// Released, ever.
    pub released: u64,
    /// Moved without a copy, ever.
    pub relocated: u64,
    /// Calls of any kind, ever.
    pub calls: u64,
}

/// For tests: a source that counts into numbers that outlive it.
#[derive(Debug)]
pub struct Counting<'a, S> {
    inner: S,
    tally: &'a Tally,
}

/// Where a [`Counting`] source counts.
#[derive(Debug, Default)]
pub struct Tally {
    reserved: AtomicU64,
    committed: AtomicU64,
    released: AtomicU64,
    relocated: AtomicU64,
    calls: AtomicU64,
}

impl Tally {
    /// All zero.
    #[must_use]
    pub const fn new() -> Tally {
        Tally {
            reserved: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            released: AtomicU64::new(0),
            relocated: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        }
    }

    /// The numbers now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            reserved: get(&self.reserved),
            committed: get(&self.committed),
            released: get(&self.released),
            relocated: get(&self.relocated),
            calls: get(&self.calls),
        }
    }

    fn add(&self, counter: &AtomicU64, bytes: usize, happened: bool) {
        self.calls.fetch_add(1, Relaxed);
        if happened {
            counter.fetch_add(bytes as u64, Relaxed);
        }
    }
}

impl<'a, S> Counting<'a, S> {
    /// Counts what `inner` does in `tally`.
    pub const fn new(inner: S, tally: &'a Tally) -> Self {
        Counting { inner, tally }
    }
}

// SAFETY: does what `inner` does.
unsafe impl<S: PageSource> PageSource for Counting<'_, S> {
    const GRANULE: usize = S::GRANULE;
    const WHOLE: bool = S::WHOLE;

    fn release_granule(&self) -> usize {
        self.inner.release_granule()
    }

    fn most_bytes(&self) -> usize {
        self.inner.most_bytes()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let start = self.inner.reserve(bytes);
        self.tally.add(&self.tally.reserved, bytes, start.is_some());
        start
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        self.tally.calls.fetch_add(1, Relaxed);
        self.tally.reserved.fetch_sub(bytes as u64, Relaxed);
        // SAFETY: by our own contract, here and below.
        unsafe { self.inner.unreserve(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        let done = unsafe { self.inner.commit(start, bytes) };
        self.tally.add(&self.tally.committed, bytes, done);
        done
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        let done = unsafe { self.inner.release(start, bytes) };
        self.tally.add(&self.tally.released, bytes, done);
        done
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
        // SAFETY: as above.
        let outcome = unsafe { self.inner.relocate(from, to, bytes) };
        self.tally.add(&self.tally.relocated, bytes, outcome == Relocation::Moved);
        outcome
    }

    unsafe fn committed(&self, start: NonNull<u8>, bytes: usize, before: usize) {
        // SAFETY: as above.
        unsafe { self.inner.committed(start, bytes, before) };
    }
}
