//! Rung 3: a list for each size.
//!
//! A size is rounded up to one of 40: in steps of 16 bytes to 128, then four to a doubling. Objects of a class are
//! equally long, so whichever is free will do, and that is the first of its list.
//!
//! ```text
//!   class   0   16 bytes   ─► free ─► free            chunk of class 0  │ free │ in use │ free │ never used ...
//!           1   32         ─► free ─► free ─► free    chunk of class 1  │ in use │ free │ free │ free │ ...
//!          ...
//!          39   32 KiB
//! ```

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::Mutex;

use crate::bump::Bump;
use crate::lock;
use crate::tier::{Objects, Tier};

/// How many classes there are.
pub const CLASSES: usize = 40;
/// Bytes of an object of the largest. What is larger has a mapping of its own.
const LARGEST: usize = 32 << 10;
/// The largest alignment of an object; chunks begin on multiples of it.
const MOST_ALIGN: usize = 4096;
/// Bytes of a chunk that objects are cut from.
const CHUNK: usize = 64 << 10;

/// The class of blocks for `layout`, or `None` if it is larger or more aligned than any.
#[must_use]
pub fn class_of(layout: Layout) -> Option<usize> {
    let (mut size, align) = (layout.size(), layout.align());
    if size > LARGEST || align > MOST_ALIGN {
        return None;
    }
    if align > 16 {
        size = size.max(align).next_power_of_two(); // the size of a class, and a multiple of the alignment
    }
    let last = size.saturating_sub(1);
    if last < 128 {
        return Some(last / 16);
    }
    let doubling = last.ilog2() as usize; // 7 for sizes of 129 to 256
    Some(8 + (doubling - 7) * 4 + ((last >> (doubling - 2)) & 3))
}

/// Bytes of an object of `class`.
#[must_use]
pub fn object_bytes(class: usize) -> usize {
    match class.checked_sub(8) {
        None => (class + 1) * 16,
        Some(above) => (above % 4 + 5) << (above / 4 + 5),
    }
}

/// Takes an object from the list of its class, or cuts one from a chunk that is of this class for ever.
#[derive(Debug)]
pub struct SizeClasses {
    classes: [Mutex<Class>; CLASSES],
    chunks: Bump,
}

/// What there is of one class.
#[derive(Debug)]
struct Class {
    free: Objects,
    /// What is left of its last chunk, and how many bytes.
    rest: *mut u8,
    bytes: usize,
}

// SAFETY: what is left of a chunk is nobody's, until whoever has the lock hands it out.
unsafe impl Send for Class {}

impl SizeClasses {
    /// An allocator without memory. It takes some when it is first asked.
    #[must_use]
    pub const fn empty() -> Self {
        SizeClasses { classes: [const { Class::empty() }; CLASSES], chunks: Bump::empty() }
    }
}

impl Class {
    const fn empty() -> Mutex<Class> {
        Mutex::new(Class { free: Objects::NONE, rest: ptr::null_mut(), bytes: 0 })
    }

    /// An object that was never used.
    fn cut(&mut self, object: usize, chunks: &Bump) -> Option<*mut u8> {
        if self.bytes < object {
            let chunk = Layout::from_size_align(CHUNK, MOST_ALIGN).ok()?;
            // SAFETY: the layout is not empty.
            self.rest = unsafe { chunks.alloc(chunk) };
            self.bytes = if self.rest.is_null() { return None } else { CHUNK };
        }
        let first = self.rest;
        self.rest = first.wrapping_add(object);
        self.bytes -= object;
        Some(first)
    }
}

impl Tier for SizeClasses {
    fn take(&self, class: usize, out: &mut [*mut u8]) -> usize {
        let mut state = lock(&self.classes[class]);
        for (taken, place) in out.iter_mut().enumerate() {
            let object = state.free.pop();
            match object.or_else(|| state.cut(object_bytes(class), &self.chunks)) {
                Some(object) => *place = object,
                None => return taken,
            }
        }
        out.len()
    }

    unsafe fn give(&self, class: usize, objects: &[*mut u8]) {
        let mut state = lock(&self.classes[class]);
        for &object in objects {
            // SAFETY: by our own contract; objects are 16 bytes and more, and as aligned.
            unsafe { state.free.push(object) };
        }
    }
}

// SAFETY: an object is on its class's list or in one program's hands; it is as long and as aligned as its class says,
// which is enough for its layout.
unsafe impl GlobalAlloc for SizeClasses {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        class_of(layout).map_or_else(|| self.take_large(layout), |class| self.take_one(class))
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by GlobalAlloc's contract, it came from `alloc` for this layout.
        unsafe {
            match class_of(layout) {
                Some(class) => self.give(class, &[pointer]),
                None => self.give_large(pointer, layout),
            }
        }
    }
}
