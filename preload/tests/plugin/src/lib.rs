//! A library with perseq for its allocator, to be opened by a program that has another one.

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// A block, or null.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_allocate(size: usize) -> *mut u8 {
    let strings: Vec<String> = (0..size % 10).map(|number| number.to_string()).collect(); // the standard library's own
    std::hint::black_box(&strings);
    ALLOCATOR.alloc_block(size)
}

/// Takes a block of [`plugin_allocate`] back.
///
/// # Safety
///
/// * `block` is null or came from [`plugin_allocate`] and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_free(block: *mut u8) {
    // SAFETY: by our own contract.
    unsafe { ALLOCATOR.free(block) };
}
