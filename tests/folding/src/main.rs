//! Functions whose code a test reads. Each allocates and frees one block.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// A layout that the compiler knows.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pair_of_known_layout() {
    let layout = Layout::new::<[u64; 8]>();
    // SAFETY: the layout is not empty; the block is given back as it came.
    unsafe {
        let block = ALLOCATOR.alloc(layout);
        if !black_box(block).is_null() {
            ALLOCATOR.dealloc(block, layout);
        }
    }
}

/// The same through the global allocator.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pair_of_boxes() {
    drop(black_box(Box::new([1u64; 8])));
}

/// The half of such a pair.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn alloc_of_known_layout() -> *mut u8 {
    // SAFETY: the layout is not empty.
    unsafe { ALLOCATOR.alloc(Layout::new::<[u64; 8]>()) }
}

/// The other half.
///
/// # Safety
///
/// * `block` is from `alloc_of_known_layout`, and nobody uses it any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn free_of_known_layout(block: *mut u8) {
    // SAFETY: by our own contract.
    unsafe { ALLOCATOR.dealloc(block, Layout::new::<[u64; 8]>()) };
}

/// A layout it does not know: the class has to be looked up.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn pair_of_any_layout(size: usize) {
    let layout = Layout::from_size_align(size.clamp(1, 1 << 20), 8).expect("a valid layout");
    // SAFETY: as above.
    unsafe {
        let block = ALLOCATOR.alloc(layout);
        if !black_box(block).is_null() {
            ALLOCATOR.dealloc(block, layout);
        }
    }
}

fn main() {
    pair_of_known_layout();
    pair_of_boxes();
    let block = alloc_of_known_layout();
    assert!(!block.is_null());
    // SAFETY: just allocated.
    unsafe { free_of_known_layout(block) };
    pair_of_any_layout(std::env::args().count() * 64);
    println!("{}", perseq::stats().live_small_bytes);
}
