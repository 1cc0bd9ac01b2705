//! Where a page heap's memory comes from: [`PageSource`], and [`Mmap`], the source of the global heap.
//!
//! A heap asks for a region of address space when it grows, and then, from the region's start on, for memory in it. There
//! are few regions, so a heap goes away with as many calls, and a fixed piece of memory is a source as good as the kernel.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::config::{HUGE_PAGE, SMALL_HEAP_BYTES};
use crate::names::{self, Name};
pub use crate::os::Relocation;
use crate::os::{self, HugeAdvice, MAX_OS_PAGE};

/// Gives a heap its memory. What is reserved or committed stays so until the heap is dropped: a reader without a lock
/// may look at the tables of a region at any time, and records of its spans may serve other regions.
///
/// Calls come from one thread at a time, but for `release` and `relocate`. None may allocate from the heap it serves.
///
/// # Safety
///
/// The implementor sees to it that:
///
/// * what `reserve` returns is used by nobody else until `unreserve`;
/// * a committed range is readable and writable, and reads as zero until it is written;
/// * a released range stays committed and reads as zero; if `release` returns false, it is as it was.
pub unsafe trait PageSource: Send + Sync {
    /// Starts and lengths of committed ranges are multiples of this many bytes: a power of two, 4096 or more. Usually
    /// the largest page that a kernel of this architecture may have.
    const GRANULE: usize = MAX_OS_PAGE;

    /// Starts and lengths of released ranges are multiples of this many bytes: a power of two, at most `GRANULE`, and
    /// always the same.
    fn release_granule(&self) -> usize {
        Self::GRANULE
    }

    /// There is only one region, of all that the heap may have. Otherwise a heap takes regions as it grows.
    const WHOLE: bool = false;

    /// The most bytes one `reserve` can have.
    fn most_bytes(&self) -> usize {
        usize::MAX / 2
    }

    /// A region: address space of `bytes`. Where it returns `None`, a shorter one may be asked for.
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Takes a region back.
    ///
    /// # Safety
    ///
    /// * `start` and `bytes` are one `reserve`'s, and nobody uses the range.
    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize);

    /// Makes a range usable. False if there is no memory; the same range may be asked for again.
    ///
    /// # Safety
    ///
    /// * The range is reserved and nobody uses it.
    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Gives the contents of a committed range back. False if this source cannot.
    ///
    /// # Safety
    ///
    /// * The range is committed and holds nothing anybody needs. It begins and ends on multiples of `release_granule`.
    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Moves the contents of a committed range without copying them.
    ///
    /// # Safety
    ///
    /// * Both ranges are committed, apart, and nobody else uses them. The new one holds nothing anybody needs.
    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
        let _ = (from, to, bytes);
        Relocation::Refused
    }

    /// A range for pages, not for tables, was committed; `before` bytes were before it.
    ///
    /// # Safety
    ///
    /// * The range is committed.
    unsafe fn committed(&self, start: NonNull<u8>, bytes: usize, before: usize) {
        let _ = (start, bytes, before);
    }
}

/// What the kernel is told about transparent huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Thp {
    /// Nothing, but that a small heap shall have none: they would make 2 MiB resident for one object.
    #[default]
    Default,
    /// To use them, but in a small heap.
    Always,
    /// To use none.
    Never,
}

impl Thp {
    const ALL: [Thp; 3] = [Thp::Default, Thp::Always, Thp::Never];

    /// The value of `PERSEQ_THP` called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Thp> {
        ["default", "always", "never"].iter().position(|known| *known == name).map(|index| Thp::ALL[index])
    }
}

/// Anonymous memory of the kernel's.
#[derive(Debug, Default)]
pub struct Mmap {
    thp: AtomicU8,
    /// Of what it maps.
    name: Name,
}

impl Mmap {
    /// With [`Thp::Default`].
    #[must_use]
    pub const fn new() -> Mmap {
        Mmap::with_thp(Thp::Default)
    }

    /// With advice on huge pages.
    #[must_use]
    pub const fn with_thp(thp: Thp) -> Mmap {
        Mmap { thp: AtomicU8::new(thp as u8), name: Name::Apart }
    }

    /// The process's.
    pub(crate) const fn of_process() -> Mmap {
        Mmap { thp: AtomicU8::new(Thp::Default as u8), name: Name::Heap }
    }

    /// Changes the advice for what will be committed.
    pub(crate) fn set_thp(&self, thp: Thp) {
        self.thp.store(thp as u8, Relaxed); // read when memory is committed; nothing is published
    }
}

// SAFETY: a fresh private mapping is ours alone, anonymous memory reads as zero until written and after
// MADV_DONTNEED, which keeps the mapping.
unsafe impl PageSource for Mmap {
    /// A page of this kernel's: small pages go back singly, though reservations are laid out by the largest.
    fn release_granule(&self) -> usize {
        os::page_size()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let start = os::reserve(bytes)?;
        // SAFETY: mapped just now. What is committed of it keeps the name.
        unsafe { names::give(self.name, start, bytes) };
        Some(start)
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by our own contract.
        unsafe { os::unmap(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: by our own contract.
        unsafe { os::commit(start.as_ptr(), bytes) }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: by our own contract.
        unsafe { os::release(start.as_ptr(), bytes) }
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
        // SAFETY: by our own contract.
        let outcome = unsafe { os::relocate(from.as_ptr(), to.as_ptr(), bytes) };
        if outcome == Relocation::Refused {
            // The kernel may have unmapped the new place, which then was mapped again.
            // SAFETY: ours, by our own contract.
            unsafe { names::give(self.name, to, bytes) };
        }
        outcome
    }

    unsafe fn committed(&self, start: NonNull<u8>, bytes: usize, before: usize) {
        let small = SMALL_HEAP_BYTES.saturating_sub(before).min(bytes);
        let avoid = match Thp::ALL[self.thp.load(Relaxed) as usize % 3] {
            Thp::Never => bytes,
            Thp::Default | Thp::Always => small,
        };
        // SAFETY: by our own contract; both parts are within the range.
        unsafe {
            if avoid > 0 {
                os::advise_huge(start.as_ptr(), avoid, HugeAdvice::Avoid);
            }
            if avoid < bytes && self.thp.load(Relaxed) == Thp::Always as u8 {
                os::advise_huge(start.as_ptr().add(avoid), bytes - avoid, HugeAdvice::Use);
            }
        }
    }
}

const _: () = assert!(SMALL_HEAP_BYTES.is_multiple_of(HUGE_PAGE));
