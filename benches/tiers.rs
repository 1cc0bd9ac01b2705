//! What each tier costs, per object or per run, without the tiers above it: the transfer cache and the central free
//! list behind it through a heap that has no caches, runs of pages, and the kernel. `cargo bench --bench tiers`

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::null_mut;

use criterion::{BenchmarkId, Throughput};
use perseq::Heap;
use perseq::pages::{Mmap, PageAllocator};

mod kit;

fn main() {
    let mut criterion = kit::criterion().configure_from_args();
    kit::pin();
    let mut group = criterion.benchmark_group("tiers");
    for size in [16, 64, 512, 4096, 32768] {
        // One object comes and goes: the transfer cache's array and its lock.
        objects(&mut group, "transfer", size, 1, false);
        // More objects than the array holds, freed in no order: spans' bitmaps and the central free list's lock.
        objects(&mut group, "central", size, 4096, true);
    }
    let pages = PageAllocator::new(Mmap::new(), 4 << 30);
    for (bytes, name) in [(8 << 10, "8 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("page heap", name), |b| {
            b.iter(|| {
                let run = pages.allocate(black_box(bytes), 1).expect("memory");
                // SAFETY: the run is ours.
                unsafe { pages.release(run.start) };
            });
        });
    }
    for (bytes, name) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB"), (16 << 20, "16 MiB")] {
        group.bench_function(BenchmarkId::new("os: touch and release", name), |b| {
            b.iter(|| {
                let run = pages.allocate(bytes, 1).expect("memory");
                // SAFETY: the run is ours, and so long.
                unsafe {
                    (0..bytes).step_by(4096).for_each(|at| run.start.add(at).write(1));
                    pages.release(run.start);
                }
                pages.release_free();
            });
        });
    }
    // Where moving a block's pages begins to be cheaper than copying it to pages that have to be touched.
    for (bytes, name) in [(128 << 10, "128 KiB"), (256 << 10, "256 KiB"), (1 << 20, "1 MiB"), (16 << 20, "16 MiB")] {
        group.bench_function(BenchmarkId::new("growth by a copy", name), |b| b.iter(|| grown(&pages, bytes, true)));
        group.bench_function(BenchmarkId::new("growth by resize", name), |b| b.iter(|| grown(&pages, bytes, false)));
    }
    group.finish();
    criterion.final_summary();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn objects(group: &mut Group<'_>, tier: &str, size: usize, count: usize, shuffled: bool) {
    let heap = Heap::with_reserve(Mmap::new(), 4 << 30);
    let layout = Layout::from_size_align(size, 8).expect("a layout");
    let mut objects = vec![null_mut(); count];
    // A permutation: the multiplier is odd and the count a power of two.
    let order: Vec<usize> = (0..count).map(|place| if shuffled { place * 2731 % count } else { place }).collect();
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function(BenchmarkId::new(tier, format!("{size} B")), |b| {
        b.iter(|| {
            // SAFETY: the layout is not empty, and each object is freed once with it.
            unsafe {
                objects.iter_mut().for_each(|object| *object = heap.alloc(layout));
                black_box(&objects);
                order.iter().for_each(|&place| heap.dealloc(objects[place], layout));
            }
        });
    });
}

/// A touched block with a neighbour becomes twice as long, and its new half is touched.
fn grown(pages: &PageAllocator, bytes: usize, by_copy: bool) {
    let block = pages.allocate(bytes, 1).expect("memory");
    let wall = pages.allocate(8192, 1).expect("memory");
    // SAFETY: the runs are ours and so long; the old one is not used after it was resized or released.
    unsafe {
        (0..bytes).step_by(4096).for_each(|at| block.start.add(at).write(1));
        let longer = if by_copy {
            let longer = pages.allocate(2 * bytes, 1).expect("memory");
            longer.start.copy_from_nonoverlapping(block.start, bytes);
            pages.release(block.start);
            longer
        } else {
            pages.resize(block.start, 2 * bytes).expect("memory")
        };
        (bytes..2 * bytes).step_by(4096).for_each(|at| longer.start.add(at).write(1));
        pages.release(longer.start);
        pages.release(wall.start);
    }
    pages.release_free();
}
