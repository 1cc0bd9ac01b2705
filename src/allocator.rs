//! The front door. The first function is the fast path.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::back_end::BACK_END;
use crate::config::PAGE_SIZE;
use crate::fatal::fatal;
use crate::front_end;
use crate::hardened;
use crate::hits;
use crate::mode::Mode;
use crate::process;
use crate::size_class::SizeClass;
use crate::span::{SpanId, SpanState};

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
        if let Some(class) = SizeClass::of(layout) { self.alloc_class(class) } else { self.alloc_large(layout).0 }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(class) = SizeClass::of(layout) {
            // SAFETY: by GlobalAlloc's contract, `pointer` came from `alloc` with this layout, so it is an object
            // of this class: `realloc` does not keep a pointer when the class changes.
            unsafe {
                let object = NonNull::new_unchecked(pointer);
                if front_end::push(class, object) {
                    hits::freed(class);
                } else {
                    dealloc_slow(class, object);
                }
            }
        } else {
            dealloc_large(pointer);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (pointer, zero) = match SizeClass::of(layout) {
            // SAFETY: as `alloc`.
            Some(_) => (unsafe { self.alloc(layout) }, false),
            None => self.alloc_large(layout),
        };
        if !pointer.is_null() && !zero {
            // SAFETY: `layout.size()` bytes, just allocated.
            unsafe { ptr::write_bytes(pointer, 0, layout.size()) };
        }
        pointer
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by GlobalAlloc's contract, `new_size` rounded up to the alignment does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let fits = match (SizeClass::of(layout), SizeClass::of(new)) {
            (Some(old), Some(new)) => old == new,
            (None, None) => layout.size().div_ceil(PAGE_SIZE) == new_size.div_ceil(PAGE_SIZE),
            _ => false,
        };
        if fits {
            return pointer;
        }
        // SAFETY: `new` is a layout; `pointer` has `layout.size()` bytes and the new block has `new_size`.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(pointer, moved, layout.size().min(new_size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

impl Perseq {
    /// An object of `class`, or null.
    #[inline(always)]
    pub(crate) fn alloc_class(&self, class: SizeClass) -> *mut u8 {
        match front_end::pop(class) {
            Some(object) => {
                hits::allocated(class);
                object.as_ptr()
            }
            None => self.alloc_slow(class),
        }
    }

    /// The cache is empty, elsewhere, or does not exist yet.
    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, class: SizeClass) -> *mut u8 {
        if process::initialize(self.mode)
            && let Some(object) =
                or_after_release(|| if hardened::on() { hardened::allocate(class) } else { front_end::pop_slow(class) })
        {
            return object.as_ptr();
        }
        out_of_memory()
    }

    /// A run of pages, and whether it reads as zero.
    #[cold]
    #[inline(never)]
    fn alloc_large(&self, layout: Layout) -> (*mut u8, bool) {
        let pages = layout.size().div_ceil(PAGE_SIZE).max(1);
        if process::initialize(self.mode)
            && layout.size() <= BACK_END.pages.reserved_bytes()
            && let Some(run) = or_after_release(|| match hardened::on() {
                true => hardened::allocate_large(pages, layout.align()),
                false => BACK_END.pages.allocate(pages, layout.align(), SpanState::Large),
            })
        {
            return (BACK_END.pages.start(run.id) as *mut u8, run.zero);
        }
        (out_of_memory(), false)
    }
}

/// The cache is full or elsewhere.
///
/// # Safety
///
/// * `object` is of `class` and belongs to nobody.
#[cold]
#[inline(never)]
pub unsafe fn dealloc_slow(class: SizeClass, object: NonNull<u8>) {
    if hardened::on() {
        return hardened::free(class, object);
    }
    // SAFETY: by our own contract. Whoever has an object has initialized the process.
    unsafe { front_end::push_slow(class, object) };
}

/// Gives a run of pages back.
#[cold]
#[inline(never)]
pub fn dealloc_large(pointer: *mut u8) {
    match large_span(pointer) {
        Some(id) if hardened::on() => hardened::free_large(id),
        // SAFETY: the caller gave up the block that the span is.
        Some(id) => unsafe { BACK_END.pages.release(id) },
        None => fatal(&["free of a large block that was not allocated here, or was freed before"]),
    }
}

/// The large span that begins at `pointer`.
fn large_span(pointer: *mut u8) -> Option<SpanId> {
    let id = BACK_END.pages.span_of(pointer as usize)?;
    let begins = BACK_END.pages.start(id) == pointer as usize;
    (begins && BACK_END.pages.span(id).state() == SpanState::Large).then_some(id)
}

/// What `allocate` returns, if need be after more and more was given back: free pages, which then are joined however
/// they were used, and after that all that caches and free lists keep. Only then is memory exhausted. In per-thread
/// mode the caches of other threads stay as they are.
fn or_after_release<T>(allocate: impl Fn() -> Option<T>) -> Option<T> {
    allocate()
        .or_else(|| {
            BACK_END.pages.release_free();
            allocate()
        })
        .or_else(|| {
            process::release();
            allocate()
        })
}

/// Null, and why.
#[cold]
pub fn out_of_memory() -> *mut u8 {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    ptr::null_mut()
}
