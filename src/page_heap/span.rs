//! A span: a run of pages with one use.
//!
//! # States
//!
//! ```text
//! Free ──allocate──► Small (objects of one class, free ones in a bitmap)
//!   ▲  └──allocate──► Large (one object)
//!   ├────release─────┘
//!   └──allocate──► Own (the allocator's own tables, or on the way back to the kernel)
//! ```
//!
//! Spans live in one table and are named by their number in it, so links and map entries take four bytes.
//!
//! # Invariants
//!
//! * **conservation**: of a small span, `live` plus the bits set in `free` is the number of its objects.
//! * **mapped**: every page of a small span maps to it; of a large or free one, the first and the last do.
//! * **locked**: a free span's fields belong to the page heap's lock, a small span's to its class's
//!   central free list's. A large span's are its owner's, an own one's whoever made it so.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::misuse::Misuse;
use crate::place::bytes;
use crate::size_class::{CLASSES, ClassInfo, SizeClass};

/// A span's number in the span table. 0 is no span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanId(pub u32);

impl SpanId {
    /// No span.
    pub const NONE: SpanId = SpanId(0);
}

/// What a span's pages are used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SpanState {
    /// The table entry is not in use.
    Unused = 0,
    /// Pages nobody uses. `contents` says what they hold.
    Free,
    /// Objects of one class.
    Small,
    /// One large object.
    Large,
    /// The allocator's own: nothing a program may name.
    Own,
    /// Pages nobody uses, in no tree of free runs: see `kept`.
    Kept,
}

/// What free pages hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Contents {
    /// Old data: they are resident.
    Old = 0,
    /// They read as zero: untouched or released.
    Zero,
    /// Nothing: they are unmapped, and only hoped to be free.
    Nothing,
    /// Old data, which the kernel refused to take: see `refused`.
    Refused,
}

impl Contents {
    /// Whether they are resident.
    pub fn is_old(self) -> bool {
        matches!(self, Contents::Old | Contents::Refused)
    }

    #[cfg(debug_assertions)]
    pub const ALL: [Contents; 4] = [Contents::Old, Contents::Zero, Contents::Nothing, Contents::Refused];
}

/// In place of a [`SizeClass::number`]: no sample, and a sample that is a large block for the program as well.
const NOT_SAMPLED: u8 = 0;
const LARGE_SAMPLE: u8 = u8::MAX;

/// Words of bitmap inside the span. Classes with more objects have theirs in metadata.
const INLINE_WORDS: usize = 4;

/// Whether a span of such a class needs a bitmap outside of it, of [`MAX_OBJECTS`](crate::size_class::MAX_OBJECTS) bits.
pub fn needs_bitmap(info: &ClassInfo) -> bool {
    info.objects as usize > INLINE_WORDS * 64
}

/// One line of a cache, so that returning an object touches one.
#[repr(C, align(64))]
pub struct Span {
    /// First page: its address divided by the page size. This and the next three are written under the page heap's lock
    /// while nobody uses the span, and read by anyone who asks whose an address is.
    first_page: AtomicUsize,
    /// Number of pages.
    pages: AtomicU32,
    /// A [`SpanState`].
    state: AtomicU8,
    /// Small: the class.
    class: AtomicU8,
    /// Large: 0, or that it is a sample of the heap profile, and of which class the program takes it for: its owner's.
    sampled: AtomicU8,
    locked: UnsafeCell<Locked>,
}

// SAFETY: `locked` is reached through `Span::locked` only, whose contract is exclusion.
unsafe impl Sync for Span {}

/// The part of a span that belongs to a lock: see **locked**.
#[repr(C)]
pub struct Locked {
    /// Small: neighbours in the list that the span is on. Free: what is lower and higher in the tree. Unused: `next`.
    pub next: SpanId,
    pub previous: SpanId,
    /// Small: objects that are not in `free`.
    pub live: u16,
    /// Free: what the pages hold.
    pub contents: Contents,
    /// Large, in the hardened mode: the page behind the block is closed.
    pub guarded: bool,
    /// Small: which of the central free list's lists it is on.
    pub list: u8,
    /// Small: the bits of free objects, or in the first word the address of them. Large, and sampled: where it was counted,
    /// as how many bytes, and what the profile notes besides.
    free: [u64; INLINE_WORDS],
}

/// Where the record of a span has what is in it, in bytes from its beginning, and what its numbers mean.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SpanLayout {
    /// Bytes from one record to the next.
    pub stride: u32,
    /// 64 bits: its address divided by the bytes of a page.
    pub first_page: u32,
    /// 32 bits.
    pub pages: u32,
    /// 8 bits: 1 free, 2 small objects of one class, 3 a large block, 4 the allocator's own, 5 freed and kept for who asks
    /// for as many pages; 0: the record is not in use.
    pub state: u32,
    /// 8 bits: the index of the class of its objects, if they are small.
    pub class: u32,
    /// 16 bits: objects that are not free in it, if they are small.
    pub live: u32,
    /// 8 bits: 0 if its pages are resident, 1 if they read as zero, 2 if they are not even mapped, 3 if they are resident and
    /// the kernel refused to take them; if it is free.
    pub contents: u32,
}

impl Span {
    /// See [`SpanLayout`].
    pub const LAYOUT: SpanLayout = {
        let locked = offset_of!(Span, locked);
        SpanLayout {
            stride: bytes(size_of::<Span>()),
            first_page: bytes(offset_of!(Span, first_page)),
            pages: bytes(offset_of!(Span, pages)),
            state: bytes(offset_of!(Span, state)),
            class: bytes(offset_of!(Span, class)),
            live: bytes(locked + offset_of!(Locked, live)),
            contents: bytes(locked + offset_of!(Locked, contents)),
        }
    };

    /// First page: its address divided by the page size.
    #[inline]
    pub fn first_page(&self) -> usize {
        self.first_page.load(Relaxed)
    }

    /// Number of pages.
    #[inline]
    pub fn pages(&self) -> usize {
        self.pages.load(Relaxed) as usize
    }

    /// Whether `page` is one of the span's.
    #[inline]
    pub fn covers(&self, page: usize) -> bool {
        page.wrapping_sub(self.first_page()) < self.pages()
    }

    /// What its pages are used for.
    #[inline]
    pub fn state(&self) -> SpanState {
        match self.state.load(Relaxed) {
            1 => SpanState::Free,
            2 => SpanState::Small,
            3 => SpanState::Large,
            4 => SpanState::Own,
            5 => SpanState::Kept,
            _ => SpanState::Unused,
        }
    }

    /// Small: the class.
    #[inline]
    pub fn class(&self) -> SizeClass {
        SizeClass::from_index(self.class.load(Relaxed) as usize)
    }

    /// Large: whether it is a sample of the heap profile.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        self.sampled.load(Relaxed) != NOT_SAMPLED
    }

    /// Large: the class of the object that the program takes it for, if it is a sample of small ones.
    #[inline]
    pub fn sampled_class(&self) -> Option<SizeClass> {
        SizeClass::from_number(self.sampled.load(Relaxed)).filter(|class| class.index() < CLASSES)
    }

    /// Large: says whether it is a sample of the heap profile, and whether of a small object. By its owner.
    pub fn set_sampled(&self, sampled: bool, class: Option<SizeClass>) {
        let number = if sampled { class.map_or(LARGE_SAMPLE, SizeClass::number) } else { NOT_SAMPLED };
        self.sampled.store(number, Relaxed);
    }

    /// Whether it holds objects of `class`.
    #[inline]
    pub fn is_small(&self, class: SizeClass) -> bool {
        self.state() == SpanState::Small && self.class() == class
    }

    /// Moves the span's borders. Under the page heap's lock.
    pub fn set_extent(&self, first_page: usize, pages: usize) {
        self.first_page.store(first_page, Relaxed);
        self.pages.store(pages as u32, Relaxed);
    }

    /// Changes what its pages are used for. Under the page heap's lock.
    pub fn set_state(&self, state: SpanState) {
        self.state.store(state as u8, Relaxed);
    }

    /// The part that belongs to a lock.
    ///
    /// # Safety
    ///
    /// * The caller holds the lock that **locked** names, or is the only one who knows of the span.
    /// * No other reference from this function is alive.
    #[inline]
    #[allow(clippy::mut_from_ref)] // exclusion is the contract
    pub unsafe fn locked(&self) -> &mut Locked {
        // SAFETY: by our own contract.
        unsafe { &mut *self.locked.get() }
    }

    /// Turns a new span into one of `class` with all objects free.
    ///
    /// # Safety
    ///
    /// * As for [`Span::locked`].
    /// * `bitmap` is the span's alone, if the class [needs one](needs_bitmap): it has room for the most objects a span
    ///   can have, and is aligned to a word.
    pub unsafe fn become_small(&self, class: SizeClass, bitmap: Option<NonNull<u8>>) {
        self.class.store(class.index() as u8, Relaxed);
        // SAFETY: by our own contract.
        unsafe { self.locked() }.fill(class.info(), bitmap);
    }
}

impl Locked {
    /// Notes where a sample was counted, and as how many bytes, and two words more.
    pub fn note_sample(&mut self, site: usize, bytes: usize, more: [u64; 2]) {
        self.free = [site as u64, bytes as u64, more[0], more[1]];
    }

    /// What [`note_sample`](Self::note_sample) noted.
    pub fn sample(&self) -> (usize, usize, [u64; 2]) {
        let [site, bytes, more @ ..] = self.free;
        (site as usize, bytes as usize, more)
    }

    /// Marks all objects free.
    fn fill(&mut self, info: &ClassInfo, bitmap: Option<NonNull<u8>>) {
        let objects = info.objects as usize;
        if let Some(bitmap) = bitmap {
            self.free[0] = bitmap.as_ptr() as u64;
        }
        self.live = 0;
        for (index, word) in self.bits(info).iter_mut().enumerate() {
            let left = objects.saturating_sub(index * 64).min(64);
            *word = if left == 64 { u64::MAX } else { (1 << left) - 1 };
        }
    }

    /// The bitmap outside the span, if there is one, which the span does not need any more: it stops being small.
    pub fn forget_bitmap(&mut self, info: &ClassInfo) -> Option<NonNull<u8>> {
        if needs_bitmap(info) { NonNull::new(self.free[0] as *mut u8) } else { None }
    }

    #[inline]
    fn bits(&mut self, info: &ClassInfo) -> &mut [u64] {
        let words = (info.objects as usize).div_ceil(64);
        if words <= INLINE_WORDS {
            &mut self.free[..words]
        } else {
            // SAFETY: `fill` put the address of enough bits here, this span's alone.
            unsafe { core::slice::from_raw_parts_mut(self.free[0] as *mut u64, words) }
        }
    }

    /// Takes free objects, lowest first: writes their addresses to `out` and returns how many. `start` is
    /// the address of the span's first page.
    pub fn take(&mut self, info: &ClassInfo, start: usize, out: &mut [*mut u8]) -> usize {
        let mut taken = 0;
        for (index, word) in self.bits(info).iter_mut().enumerate() {
            while *word != 0 && taken < out.len() {
                let object = index * 64 + word.trailing_zeros() as usize;
                *word &= *word - 1;
                out[taken] = (start + object * info.size as usize) as *mut u8;
                taken += 1;
            }
            if taken == out.len() {
                break;
            }
        }
        self.live += taken as u16;
        taken
    }

    /// Whether object `index`, one of the span's, is free.
    pub fn is_free(&mut self, info: &ClassInfo, index: usize) -> bool {
        self.bits(info)[index / 64] & (1 << (index % 64)) != 0
    }

    /// How many objects are free, by their bits.
    #[cfg(debug_assertions)]
    pub fn count_free(&mut self, info: &ClassInfo) -> usize {
        self.bits(info).iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Marks objects of the span free, by their indices; returns how many. What is no object or is free already is left
    /// out, and the first such finding is returned with it.
    #[inline]
    pub fn put(
        &mut self,
        info: &ClassInfo,
        indices: impl Iterator<Item = Result<usize, Misuse>>,
    ) -> (usize, Result<(), Misuse>) {
        let bits = self.bits(info);
        let (mut count, mut finding) = (0, Ok(()));
        for index in indices {
            let misuse = match index {
                Ok(index) => {
                    let (word, bit) = (&mut bits[index / 64], 1 << (index % 64));
                    if *word & bit == 0 {
                        *word |= bit;
                        count += 1;
                        continue;
                    }
                    Misuse::DoubleFree
                }
                Err(misuse) => misuse,
            };
            finding = finding.and(Err(misuse));
        }
        self.live -= count as u16;
        (count, finding)
    }
}

const _: () = assert!(size_of::<Span>() == 64);
