//! Large blocks grow and shrink in place where they can, and are moved without a copy where they cannot.

mod kit;

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc};

use kit::in_every_mode;
use kit::object::{Object, layout};
use perseq::stats;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const MIB: usize = 1 << 20;

/// A block whose neighbour behind is free grows into it; what it does not need any more is free at once.
#[test]
fn in_place() {
    in_every_mode("in_place", || {
        // SAFETY: sizes are not 0; each block is freed once, with its last layout.
        unsafe {
            perseq::release(); // what this needs for the first time takes pages, which are not to come from the hole below
            let place = alloc(layout(8 * MIB, 8));
            let wall = std::hint::black_box(alloc(layout(MIB, 8)));
            place.write_bytes(0x5a, 8 * MIB);
            let mut size = 8 * MIB;
            let before = stats();
            // Down and up again, over every kind of free neighbour: with old data, released, and both.
            for (to, release) in [(MIB, false), (5 * MIB, true), (2 * MIB, false), (3 * MIB, false), (8 * MIB, false)] {
                let now = realloc(place, layout(size, 8), to);
                assert_eq!(now, place, "{size} to {to}");
                let live = stats().live_large_bytes;
                assert_eq!(live, before.live_large_bytes - (8 * MIB - to) as u64, "{size} to {to}");
                size = to;
                if release {
                    perseq::release();
                }
            }
            assert!((0..MIB).all(|at| *place.add(at) == 0x5a), "what was kept throughout");
            dealloc(place, layout(size, 8));
            dealloc(wall, layout(MIB, 8));
        }
    });
}

/// The last block of the heap grows into what was never used.
#[test]
fn at_the_end() {
    in_every_mode("at_the_end", || {
        perseq::release();
        let mut block = Object::new(layout(600 * MIB, 8), 1); // longer than any hole
        let (address, before) = (block.address(), stats());
        for step in 2..10 {
            block.try_resize(600 * MIB + step * 7 * MIB, step as u64).expect("address space");
            assert_eq!(block.address(), address);
        }
        assert_eq!(stats().relocated_bytes, before.relocated_bytes);
        block.free();
    });
}

/// A block between others moves. Its contents are all there, its old place reads as zero and can be used, and nothing
/// more became resident than the growth.
#[test]
fn moved_without_a_copy() {
    in_every_mode("moved_without_a_copy", || {
        // SAFETY: sizes are not 0; each block is freed once, with its last layout.
        unsafe {
            for round in 0..20 {
                let size = (1 + round % 5) * 4 * MIB;
                let block = alloc(layout(size, 8)).cast::<u64>();
                let wall = std::hint::black_box(alloc(layout(MIB, 8)));
                for word in 0..size / 8 {
                    block.add(word).write(word as u64 ^ round as u64);
                }
                let before = stats();
                let moved = realloc(block.cast(), layout(size, 8), 2 * size).cast::<u64>();
                assert!((0..size / 8).all(|word| *moved.add(word) == word as u64 ^ round as u64), "round {round}");
                let relocated = stats().relocated_bytes - before.relocated_bytes;
                // A range put together from moved ones may be refused by kernels before 6.17, then it is copied.
                if round == 0 {
                    assert_ne!(moved, block);
                    assert_eq!(relocated, size as u64, "{:?}", stats());
                }
                moved.add(size / 8).write(7);
                // The old place again, by its size: zero without anybody's clearing it, or cleared.
                let again = alloc_zeroed(layout(size, 8));
                assert!((0..size).all(|at| *again.add(at) == 0), "round {round}");
                again.write_bytes(0xff, size);
                assert!((0..size / 8).all(|word| *moved.add(word) == word as u64 ^ round as u64), "round {round}");
                dealloc(again, layout(size, 8));
                dealloc(moved.cast(), layout(2 * size, 8));
                dealloc(wall, layout(MIB, 8));
            }
        }
    });
}

/// A block that moves to pages that are resident is copied: what it leaves stays resident, too, and is the place of the
/// next, so blocks that grow again and again take no page faults. A long one moves all the same, and one that was hardly
/// touched.
#[test]
fn copied_to_what_is_resident() {
    in_every_mode("copied_to_what_is_resident", || {
        for (size, filled, copied) in [
            (MIB, true, true),
            (8 * MIB, true, true),
            (16 * MIB, true, false),
            (24 * MIB, true, false),
            (8 * MIB, false, false),
        ] {
            perseq::release(); // no other place is resident
            // SAFETY: sizes are not 0; each block is freed once, with its last layout.
            unsafe {
                let place = alloc(layout(3 * size, 8));
                let mut walls = vec![alloc(layout(MIB, 8))];
                let block = alloc(layout(size, 8)).cast::<u64>();
                while !walls.contains(&block.cast::<u8>().add(size)) {
                    walls.push(alloc(layout(MIB, 8))); // where it would grow
                }
                place.write_bytes(0xff, 3 * size);
                let words = if filled { size / 8 } else { size / 80 };
                (0..words).for_each(|word| block.add(word).write(word as u64 ^ size as u64));
                dealloc(place, layout(3 * size, 8));
                let before = (stats(), kit::resident_bytes());
                let moved = realloc(block.cast(), layout(size, 8), 2 * size).cast::<u64>();
                let after = (stats(), kit::resident_bytes());
                assert_ne!(moved, block);
                assert!((0..words).all(|word| *moved.add(word) == word as u64 ^ size as u64), "{size}");
                let relocated = after.0.relocated_bytes - before.0.relocated_bytes;
                assert_eq!(relocated, if copied { 0 } else { size as u64 }, "{size}: {:?}", after.0);
                if copied {
                    assert!(after.1.abs_diff(before.1) < MIB as u64 / 4, "{size}: {} then {}", before.1, after.1);
                } else {
                    assert!(after.1 + (size - MIB / 4) as u64 <= before.1, "{size}: {} then {}", before.1, after.1);
                }
                dealloc(moved.cast(), layout(2 * size, 8));
                walls.into_iter().for_each(|wall| dealloc(wall, layout(MIB, 8)));
            }
        }
    });
}

/// Alignment up to gigabytes, kept when a block grows, and without gigabytes becoming resident.
#[test]
fn great_alignment() {
    in_every_mode("great_alignment", || {
        let before = kit::resident_bytes();
        for bits in 13..=32 {
            let align = 1usize << bits;
            for size in [1, 5000, 100_000, 3 * MIB] {
                let mut block = Object::new(layout(size, align), 1);
                assert!(block.address().is_multiple_of(align));
                block.try_resize(2 * size + MIB, 2).expect("address space");
                assert!(block.address().is_multiple_of(align));
                block.free();
            }
        }
        perseq::release();
        let after = kit::resident_bytes();
        // Page tables for the page map over the gaps, and what caches keep.
        assert!(after < before + 24 * MIB as u64, "{before} bytes before, {after} after");
    });
}

/// Blocks of every size grow and shrink side by side, threads among themselves, and keep what they hold.
#[test]
fn many_at_once() {
    in_every_mode("many_at_once", || {
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                std::thread::spawn(move || {
                    let mut random = kit::random::Random::stream(seed);
                    let mut held: Vec<Object> = Vec::new();
                    for name in 0..600 {
                        let bits = 12 + random.below(12);
                        let size = 1 + random.below(1 << bits);
                        if held.len() < 8 {
                            let align = 1 << random.below(14);
                            held.push(Object::new(layout(size, align), name));
                        } else {
                            let index = random.below(held.len());
                            if random.once_in(4) {
                                held.swap_remove(index).free();
                            } else {
                                held[index].try_resize(size, name).expect("memory");
                            }
                        }
                        if name % 200 == 199 {
                            perseq::release();
                        }
                    }
                    held.into_iter().for_each(Object::free);
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("a worker does not panic");
        }
        assert_eq!(stats().live_large_bytes, 0, "{:?}", stats());
    });
}

/// A vector that grows alone is never copied: it grows where it is, or its pages move.
#[test]
fn growing_vector_is_not_copied() {
    in_every_mode("growing_vector_is_not_copied", || {
        perseq::release();
        let before = kit::resident_bytes();
        let mut vector: Vec<u64> = Vec::new();
        let mut most = 0;
        for number in 0..16 * MIB as u64 {
            if vector.len() == vector.capacity() {
                most = most.max(kit::resident_bytes());
            }
            vector.push(number);
        }
        most = most.max(kit::resident_bytes());
        assert!(vector.iter().copied().eq(0..16 * MIB as u64));
        let bytes = (vector.len() * 8) as u64;
        assert!(most - before <= bytes + bytes / 8, "{bytes} bytes of vector made {} resident", most - before);
    });
}
