//! Out of memory at any request: of a heap's source, once, for good or for a moment.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use perseq::Heap;
use perseq::pages::{Failing, Mmap, PageSource, Relocation};

use crate::MIB;
use crate::blocks::{Block, every_path, layout, nothing_is_lost};

/// The source fails at the n-th request, for every n: null comes back, nothing is lost, and all works once memory is
/// back.
#[test]
fn every_request_fails_once() {
    let heap = Heap::with_reserve(Failing::new(Mmap::new(), u64::MAX), 256 * MIB);
    assert_eq!(every_path(&heap, 800), 0);
    let requests = u64::MAX - heap.source().left();
    assert!(requests > 50, "{requests} requests only");
    drop(heap);
    let mut failures = 0;
    for good in 0..=requests {
        let heap = Heap::with_reserve(Failing::new(Mmap::new(), good), 256 * MIB);
        failures += every_path(&heap, 800);
        heap.source().allow(u64::MAX);
        let whole = nothing_is_lost(&heap);
        assert_eq!(every_path(&heap, 300), 0, "after {good} requests, memory came back");
        let again = nothing_is_lost(&heap);
        assert!(again >= whole, "{good}: {whole} bytes before, {again} after");
        assert_eq!(heap.stats().free_page_bytes, 0, "{good}");
    }
    assert!(failures > 0);
}

/// A source that refuses one request, the n-th, and no other.
struct RefusesOne {
    inner: Mmap,
    before: AtomicU64,
}

impl RefusesOne {
    fn passes(&self) -> bool {
        self.before.fetch_sub(1, Relaxed) != 0
    }
}

// SAFETY: does what `Mmap` does, or nothing.
unsafe impl PageSource for RefusesOne {
    fn most_bytes(&self) -> usize {
        self.inner.most_bytes()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.passes().then(|| self.inner.reserve(bytes)).flatten()
    }

    unsafe fn unreserve(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: by our own contract, here and below.
        unsafe { self.inner.unreserve(start, bytes) };
    }

    unsafe fn commit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        self.passes() && unsafe { self.inner.commit(start, bytes) }
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as above.
        self.passes() && unsafe { self.inner.release(start, bytes) }
    }

    unsafe fn relocate(&self, from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
        if !self.passes() {
            return Relocation::Refused;
        }
        // SAFETY: as above.
        unsafe { self.inner.relocate(from, to, bytes) }
    }
}

/// Any one request is refused and those after it are not, as when memory is short for a moment.
#[test]
fn every_request_fails_alone() {
    let heap = Heap::with_reserve(RefusesOne { inner: Mmap::new(), before: AtomicU64::new(u64::MAX) }, 256 * MIB);
    assert_eq!(every_path(&heap, 300), 0);
    let requests = u64::MAX - heap.source().before.load(Relaxed);
    drop(heap);
    for before in 0..=requests {
        let heap = Heap::with_reserve(RefusesOne { inner: Mmap::new(), before: AtomicU64::new(before) }, 256 * MIB);
        let failed = every_path(&heap, 300);
        assert!(failed <= 2, "{failed} calls failed because of one request, the one after {before}");
        nothing_is_lost(&heap);
        assert_eq!(every_path(&heap, 100), 0, "{before}");
        nothing_is_lost(&heap);
    }
}

/// One request fails, those after it succeed: a large block in use is kept when its resize fails halfway.
#[test]
fn a_moment_without_memory() {
    for at in 0..12 {
        let heap = Heap::with_reserve(Failing::new(Mmap::new(), u64::MAX), 512 * MIB);
        let mut block = Block::new(&heap, layout(3 * MIB, 8), 9).expect("memory");
        let wall = Block::new(&heap, layout(MIB, 8), 8).expect("memory");
        heap.source().allow(at);
        let grown = block.resize(&heap, 40 * MIB);
        heap.source().allow(u64::MAX);
        assert!(grown || block.resize(&heap, 40 * MIB), "{at}");
        block.free(&heap);
        wall.free(&heap);
        assert_eq!(heap.stats().live_large_bytes, 0);
    }
}
