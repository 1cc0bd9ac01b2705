//! The page allocator without objects: on the kernel's memory, and in a fixed array.
//!
//! ```sh
//! cargo run --release --example pages
//! ```

use perseq::pages::{Mmap, PAGE_SIZE, PageAllocator};

fn main() {
    let pages = PageAllocator::new(Mmap::new(), 1 << 30); // at most so much address space
    let run = pages.allocate(5 << 20, 1).expect("memory");
    println!("{} pages of {PAGE_SIZE} bytes, zero: {}", run.bytes / PAGE_SIZE, run.zero);
    // SAFETY: the run is ours and so long; after `resize` only the new one is used, after `release` neither.
    unsafe {
        run.start.write_bytes(7, run.bytes);
        let longer = pages.resize(run.start, 50 << 20).expect("memory");
        assert_eq!(longer.start.add(run.bytes - 1).read(), 7, "what it held moved along");
        pages.release(longer.start);
    }
    println!("{} bytes of free pages, {} given back", pages.stats().free_bytes, pages.release_free());
}
