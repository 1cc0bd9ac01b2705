//! Heaps apart from the process's: each has its own memory, and dropping one gives all of it back at once.
//!
//! ```sh
//! cargo run --release --example heap
//! ```

use std::alloc::{GlobalAlloc, Layout};

use perseq::Heap;
use perseq::pages::Mmap;

/// A list that is never taken apart.
struct Node {
    next: *mut Node,
    value: u64,
}

fn main() {
    let heap = Heap::new(Mmap::new());
    let layout = Layout::new::<Node>();
    let mut head: *mut Node = std::ptr::null_mut();
    for value in 0..100_000 {
        // SAFETY: the layout is not empty; the block is written before it is read.
        unsafe {
            let node = heap.alloc(layout).cast::<Node>();
            assert!(!node.is_null(), "out of memory");
            node.write(Node { next: head, value });
            head = node;
        }
    }
    let mut sum = 0;
    let mut node = head;
    while !node.is_null() {
        // SAFETY: each node was written above, and the heap lives.
        unsafe {
            sum += (*node).value;
            node = (*node).next;
        }
    }
    println!("the sum is {sum}; {} bytes in use", heap.stats().live_small_bytes);
    drop(heap); // 100 000 nodes at once
}
