//! Blocks known by their address alone, as C knows them: the page map says what they are.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::allocator::{Perseq, dealloc_large, dealloc_run, dealloc_slow};
use crate::config::{MAX_SMALL, PAGE_SIZE};
use crate::emergency;
use crate::errno::out_of_memory;
use crate::front_end::fast;
use crate::hardened;
use crate::middle::back_end::BACK_END;
use crate::misuse::Misuse;
use crate::page_heap::directory::class_at;
use crate::page_heap::span::{SpanId, SpanState};
use crate::size_class::SizeClass;

/// What a live block is.
enum Block {
    Small(SizeClass),
    Large(SpanId),
    /// A small object in pages of its own: a sample of the heap profile.
    Sampled(SpanId, SizeClass),
    /// A large block of [`emergency`] memory.
    Apart {
        bytes: usize,
    },
}

#[inline]
fn block(pointer: *mut u8) -> Option<Block> {
    let Some(id) = BACK_END.pages.span_of(pointer as usize) else { return block_apart(pointer as usize) };
    let span = BACK_END.pages.span(id);
    match span.state() {
        SpanState::Small => Some(Block::Small(span.class())),
        SpanState::Large => Some(match span.sampled_class() {
            Some(class) => Block::Sampled(id, class),
            None => Block::Large(id),
        }),
        _ => None,
    }
}

/// Bytes of a large block that are the program's.
#[inline]
fn large_bytes(id: SpanId) -> usize {
    BACK_END.pages.span(id).pages() * PAGE_SIZE - hardened::guard_bytes()
}

/// A block of [`emergency`] memory.
#[cold]
fn block_apart(address: usize) -> Option<Block> {
    let small = emergency::object_at(address).map(|(class, _)| Block::Small(class));
    small.or_else(|| emergency::large_at(address).map(|bytes| Block::Apart { bytes }))
}

/// Frees a block. `check` is called where the fast path ends, which is always in the hardened mode.
///
/// # Safety
///
/// * As for [`Perseq::free`].
#[inline(always)]
unsafe fn free_with(pointer: *mut u8, check: impl FnOnce()) {
    match class_at(pointer as usize) {
        // SAFETY: the page map says that the object is of this class, so it is not null; the caller gave it up.
        Some(class) => unsafe {
            let object = NonNull::new_unchecked(pointer);
            if !fast::push(class, object) {
                check();
                dealloc_slow(class, object);
            }
        },
        None => {
            check();
            free_other(pointer);
        }
    }
}

/// In the hardened mode, ends the process unless the block at `pointer` is what this size and alignment ask for.
#[cold]
#[inline(never)]
fn check_size(pointer: *mut u8, size: usize, align: usize) {
    if !hardened::on() {
        return;
    }
    let asked = Layout::from_size_align(size.max(1), align).ok();
    match block(pointer) {
        Some(Block::Small(class) | Block::Sampled(_, class)) => {
            hardened::check_size(Some(class), class.size(), asked);
        }
        Some(Block::Large(id)) => hardened::check_size(None, large_bytes(id), asked),
        Some(Block::Apart { .. }) => {}
        None => {} // nothing, or not ours: `free_other` says so
    }
}

/// Hardened: whether `size` bytes aligned to 16 are a block of `usable` bytes, and no other.
fn same_block(size: usize, usable: usize) -> bool {
    Layout::from_size_align(size.max(1), 16).is_ok_and(|layout| match SizeClass::of(layout) {
        Some(class) => class.size() == usable,
        None => hardened::large_bytes(size) == usable,
    })
}

impl Perseq {
    /// Frees a block whatever its layout was. Null is allowed.
    ///
    /// An address that is not in a block of this allocator ends the process with a message.
    ///
    /// # Safety
    ///
    /// * `pointer` is null, or came from this allocator and is not used again.
    #[inline]
    pub unsafe fn free(&self, pointer: *mut u8) {
        // SAFETY: by our own contract.
        unsafe { free_with(pointer, || ()) };
    }

    /// As [`Perseq::free`], given the size and alignment the block was allocated with by [`Perseq::alloc_bytes`] or
    /// [`Perseq::resize`]. The hardened mode ends the process if it is another block's; otherwise they are not used.
    ///
    /// # Safety
    ///
    /// * As for [`Perseq::free`].
    #[inline]
    pub unsafe fn free_sized(&self, pointer: *mut u8, size: usize, align: usize) {
        // SAFETY: by our own contract.
        unsafe { free_with(pointer, || check_size(pointer, size, align)) };
    }

    /// Bytes that may be used at `pointer`, at least as many as were asked for; 0 for null.
    ///
    /// An address that is not in a block of this allocator ends the process with a message.
    ///
    /// # Safety
    ///
    /// * `pointer` is null or a live block of this allocator.
    #[must_use]
    pub unsafe fn usable_size(&self, pointer: *mut u8) -> usize {
        if pointer.is_null() {
            return 0;
        }
        match block(pointer) {
            Some(Block::Small(class) | Block::Sampled(_, class)) => class.size(),
            Some(Block::Large(id)) => large_bytes(id),
            Some(Block::Apart { bytes }) => bytes,
            None => Misuse::SizeOfForeign.end(),
        }
    }

    /// Makes the block at `pointer` one of `size` bytes, aligned to 16, keeping what fits of its contents. A small
    /// block stays where it is if it fits and more than half of it is used; a large one if there is room behind it.
    /// Null, with ENOMEM, leaves the block as it was.
    ///
    /// # Safety
    ///
    /// * `pointer` is a live block of this allocator; if another address is returned, it is gone.
    pub unsafe fn resize(&self, pointer: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: by our own contract.
        let usable = unsafe { self.usable_size(pointer) };
        if usable > MAX_SMALL && size > MAX_SMALL {
            return match Layout::from_size_align(size, 16) {
                Ok(layout) => self.resize_large(pointer, layout),
                Err(_) => out_of_memory(),
            };
        }
        if size <= usable && (size > usable / 2 || usable <= 16) && (!hardened::on() || same_block(size, usable)) {
            return pointer;
        }
        // SAFETY: by our own contract; the two blocks are distinct, and each has the bytes copied.
        unsafe {
            let moved = self.alloc_block(size);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(pointer, moved, usable.min(size));
                self.free(pointer);
            } else if size <= usable {
                return pointer;
            }
            moved
        }
    }

    /// `size` bytes aligned to `align`; null, with ENOMEM, if there are none. Size 0 is a block of its own.
    #[inline]
    #[must_use]
    pub fn alloc_bytes(&self, size: usize, align: usize) -> *mut u8 {
        match Layout::from_size_align(size.max(1), align) {
            // SAFETY: the layout is not empty.
            Ok(layout) => unsafe { self.alloc(layout) },
            Err(_) => out_of_memory(),
        }
    }

    /// As [`Perseq::alloc_bytes`], aligned to 16.
    #[inline]
    #[must_use]
    pub fn alloc_block(&self, size: usize) -> *mut u8 {
        match SizeClass::of_fine_block(size) {
            Some(class) => self.alloc_class(class),
            None => self.alloc_bytes(size, 16),
        }
    }

    /// As [`Perseq::alloc_bytes`], aligned to 16 and zeroed, up to the last byte of its [`Perseq::usable_size`].
    #[inline]
    #[must_use]
    pub fn alloc_zeroed_bytes(&self, size: usize) -> *mut u8 {
        let Ok(layout) = Layout::from_size_align(size.max(1), 16) else { return out_of_memory() };
        let Some(class) = SizeClass::of(layout) else { return self.alloc_zeroed_large(layout) };
        let block = self.alloc_class(class);
        if !block.is_null() {
            // SAFETY: an object of the class, just allocated.
            unsafe { ptr::write_bytes(block, 0, class.size()) };
        }
        block
    }

    #[cold]
    #[inline(never)]
    fn alloc_zeroed_large(&self, layout: Layout) -> *mut u8 {
        let (block, zero) = self.alloc_large(layout);
        if !block.is_null() && !zero {
            // SAFETY: a block of so many bytes, just allocated.
            unsafe { ptr::write_bytes(block, 0, self.usable_size(block)) };
        }
        block
    }
}

/// Frees what is not a small object of a span: nothing, a large block, emergency memory, or what is not ours.
#[cold]
#[inline(never)]
fn free_other(pointer: *mut u8) {
    if pointer.is_null() {
        return; // often: before anything is looked up
    }
    match block(pointer) {
        Some(Block::Large(id) | Block::Sampled(id, _)) if BACK_END.pages.start(id) == pointer as usize => {
            dealloc_run(pointer, id)
        }
        Some(Block::Large(_) | Block::Apart { .. }) => dealloc_large(pointer),
        Some(Block::Small(class)) if emergency::object_at(pointer as usize) == Some((class, 0)) => {
            // SAFETY: an object of this class, which the caller gave up, so not null.
            unsafe {
                let object = NonNull::new_unchecked(pointer);
                if !fast::push(class, object) {
                    dealloc_slow(class, object);
                }
            }
        }
        _ => Misuse::FreeOfForeign.end(),
    }
}
