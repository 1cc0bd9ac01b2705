//! The front door. The first function is the fast path.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::by_layout;
use crate::config::PAGE_SIZE;
use crate::decided;
use crate::emergency;
use crate::errno::out_of_memory;
use crate::front_end::fast;
use crate::front_end::slow;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::misuse::Misuse;
use crate::mode::Mode;
use crate::page_heap::large;
use crate::page_heap::span::SpanId;
use crate::process::background::tend;
use crate::process::exhaustion::or_reclaim;
use crate::process::start;
use crate::profile::samples;
use crate::size_class::SizeClass;

/// The allocator. All values of the type are the same heap.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();
///
/// fn main() {
///     let words: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
///     println!("{} words, {}", words.len(), perseq::active_mode());
/// }
/// ```
///
/// Out of memory is a null pointer, with errno set to ENOMEM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Perseq {
    mode: Option<Mode>,
}

impl Perseq {
    /// The mode is `PERSEQ_MODE`'s, else [`crate::set_mode`]'s, else per CPU.
    #[must_use]
    pub const fn new() -> Self {
        Perseq { mode: None }
    }

    /// As [`Perseq::new`], with `mode` in place of per CPU. It counts if the first thing that happens is an
    /// allocation; a question such as [`crate::active_mode`] that comes before decides without it.
    #[must_use]
    pub const fn with_mode(mode: Mode) -> Self {
        Perseq { mode: Some(mode) }
    }
}

// SAFETY: `alloc` hands out memory that belongs to nobody, of the size and alignment asked for: an object of a
// class that fits, or a run of pages. It stays where it is until `dealloc`.
unsafe impl GlobalAlloc for Perseq {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(class) = SizeClass::of(layout) { self.alloc_class(class) } else { self.alloc_large_block(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: by GlobalAlloc's contract, `pointer` came from `alloc` with this layout, so it is an object
            // of this class: `realloc` does not keep a pointer when the class changes.
            unsafe {
                let object = NonNull::new_unchecked(pointer);
                if !fast::push(class, object) {
                    dealloc_slow(class, object);
                }
            }
        } else {
            dealloc_large(pointer);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = match SizeClass::of(layout) {
            // SAFETY: as `alloc`.
            Some(_) => (unsafe { self.alloc(layout) }, false),
            None => self.alloc_large(layout),
        };
        // SAFETY: just allocated, of this layout.
        unsafe { by_layout::zeroed(block, layout.size()) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by our own contract.
        unsafe { by_layout::realloc(self, pointer, layout, new_size, |block, new| self.resize_large(block, new)) }
    }
}

impl Perseq {
    /// An object of `class`, or null.
    #[inline(always)]
    pub(crate) fn alloc_class(&self, class: SizeClass) -> *mut u8 {
        match fast::pop(class) {
            Some(object) => object.as_ptr(),
            None => self.alloc_slow(class),
        }
    }

    /// Nothing was found where the inlined modes look.
    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, class: SizeClass) -> *mut u8 {
        match fast::pop_gated(class) {
            Some(object) => object.as_ptr(),
            None => self.alloc_slower(class),
        }
    }

    /// The cache is empty, elsewhere, does not exist yet, or has a lock.
    #[inline(never)]
    fn alloc_slower(&self, class: SizeClass) -> *mut u8 {
        if samples::on()
            && let Some(object) = samples::sample_small(class).or_else(|| fast::pop_behind(class))
        {
            return object.as_ptr();
        }
        if emergency::is_now() {
            return emergency::allocate(class).map_or_else(out_of_memory, NonNull::as_ptr);
        }
        let go = || match hardened::on() {
            true => hardened::allocate(class),
            false => slow::pop(class),
        };
        let for_want_of_lock = || emergency::allocate_for_want_of_lock(class);
        let object = if start::initialize(self.mode) {
            or_reclaim(class.size(), || go().or_else(for_want_of_lock))
        } else {
            for_want_of_lock()
        };
        let Some(object) = object else { return out_of_memory() };
        tend();
        object.as_ptr()
    }

    /// A run of pages, and whether it reads as zero.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_large(&self, layout: Layout) -> (*mut u8, bool) {
        let block = self.take_large(layout);
        samples::sample_large(block.0);
        block
    }

    /// As [`alloc_large`](Self::alloc_large), whatever the block reads as: what returns it needs no frame.
    #[cold]
    #[inline(never)]
    fn alloc_large_block(&self, layout: Layout) -> *mut u8 {
        let (block, _) = self.take_large(layout);
        samples::sample_large(block);
        block
    }

    #[inline(never)]
    fn take_large(&self, layout: Layout) -> (*mut u8, bool) {
        if emergency::is_now() {
            return (emergency::allocate_large(layout).map_or_else(out_of_memory, NonNull::as_ptr), true);
        }
        let go = || match hardened::on() {
            true => hardened::allocate_large(layout),
            false => large::allocate(&BACK_END.pages, layout),
        };
        let go = || go().map(|run| (BACK_END.pages.start(run.id) as *mut u8, run.zero));
        let for_want_of_lock =
            || emergency::allocate_large_for_want_of_lock(layout).map(|block| (block.as_ptr(), true));
        let block = if start::initialize(self.mode) {
            or_reclaim(layout.size(), || go().or_else(for_want_of_lock))
        } else {
            for_want_of_lock()
        };
        let Some(block) = block else { return (out_of_memory(), false) };
        tend();
        block
    }

    /// Makes a large block one of `layout`, large too; where it is, if it can be.
    #[cold]
    #[inline(never)]
    pub(crate) fn resize_large(&self, pointer: *mut u8, layout: Layout) -> *mut u8 {
        let Some(id) = large::at(&BACK_END.pages, pointer as usize) else {
            return match emergency::large_at(pointer as usize) {
                Some(bytes) => self.move_large(pointer, bytes, layout),
                None => Misuse::ResizeOfForeignLarge.end(),
            };
        };
        if hardened::on() {
            return self.move_hardened(id, layout);
        }
        let bytes = BACK_END.pages.span(id).pages() * PAGE_SIZE;
        if emergency::is_now() {
            return self.move_large(pointer, bytes, layout);
        }
        // A sample is freed, and what it becomes is counted as new.
        let sample = samples::unmark(id);
        let resized = or_reclaim(layout.size(), || {
            // SAFETY: the block is the caller's.
            let resized = unsafe { large::resize(&BACK_END.pages, id, layout) };
            resized.map(|address| address as *mut u8).or_else(|| {
                let target = emergency::allocate_large_for_want_of_lock(layout)?.as_ptr();
                // SAFETY: both blocks have the bytes copied, and are distinct; emergency memory is fresh.
                unsafe { large::copy(pointer, target, bytes.min(layout.size()), true) };
                dealloc_large(pointer);
                Some(target)
            })
        });
        match (resized, sample) {
            (None, Some(sample)) => samples::mark(id, sample),
            (Some(_), Some(sample)) => samples::count_free(sample),
            _ => {}
        }
        samples::sample_large(resized.unwrap_or(ptr::null_mut()));
        tend();
        resized.unwrap_or_else(out_of_memory)
    }
}

impl Perseq {
    /// Gives the large block at `pointer`, of so many `bytes`, another place.
    fn move_large(&self, pointer: *mut u8, bytes: usize, layout: Layout) -> *mut u8 {
        let (moved, zero) = self.alloc_large(layout);
        if !moved.is_null() {
            // SAFETY: both blocks have the bytes copied, and are distinct.
            unsafe { large::copy(pointer, moved, bytes.min(layout.size()), zero) };
            dealloc_large(pointer);
        }
        moved
    }

    /// As [`Perseq::resize_large`]: a block that changes its pages moves, so that the page behind it stays closed.
    fn move_hardened(&self, id: SpanId, layout: Layout) -> *mut u8 {
        let start = BACK_END.pages.start(id) as *mut u8;
        hardened::check_large(start as usize);
        let bytes = BACK_END.pages.span(id).pages() * PAGE_SIZE - hardened::guard_bytes();
        if hardened::large_bytes(layout.size()) == bytes && (start as usize).is_multiple_of(layout.align()) {
            return start;
        }
        self.move_large(start, bytes, layout)
    }
}

/// There was no room where the inlined modes look.
///
/// # Safety
///
/// * `object` is of `class` and belongs to nobody.
#[cold]
#[inline(never)]
pub unsafe fn dealloc_slow(class: SizeClass, object: NonNull<u8>) {
    // SAFETY: by our own contract.
    unsafe {
        if fast::push_gated(class, object) {
            return;
        }
        if samples::on() && !samples::may_be_small(object) && fast::push_behind(class, object) {
            return;
        }
        // An object from before the first allocation was done is of emergency memory.
        if emergency::is_now() || !decided::is_ready() {
            BACK_END.middle(class).count_free_elsewhere();
            return emergency::defer(object);
        }
        if let Some(id) = samples::sampled_small(class, object) {
            return dealloc_run(object.as_ptr(), id);
        }
        if hardened::on() {
            hardened::free(class, object);
        } else {
            slow::push(class, object);
        }
    }
    tend();
}

/// Gives a large block back.
#[cold]
#[inline(never)]
pub fn dealloc_large(pointer: *mut u8) {
    match large::at(&BACK_END.pages, pointer as usize) {
        Some(id) => dealloc_run(pointer, id),
        // SAFETY: the caller gave up the block, if there is such a one.
        None if unsafe { emergency::free_large(pointer as usize) } => {}
        None => Misuse::FreeOfForeignLarge.end(),
    }
}

/// Gives the large block at `pointer` back, which is the span `id`.
#[inline]
pub fn dealloc_run(pointer: *mut u8, id: SpanId) {
    if emergency::is_now() {
        let Some(block) = NonNull::new(pointer) else { return };
        // SAFETY: the caller gave up the block that the span is.
        return unsafe { emergency::defer(block) };
    }
    samples::note_free(id);
    if hardened::on() {
        hardened::free_large(id);
    } else {
        // SAFETY: as above.
        unsafe { BACK_END.pages.release(id, false) };
    }
    tend();
}
