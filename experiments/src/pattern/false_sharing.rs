//! Small objects written by several threads: slow if an allocator puts them on one cache line.

use super::lanes::side_by_side;
use super::object::{Tally, block, release};
use super::setting::{Outcome, Setting};

/// Bytes of an object: eight fit on a line.
const BYTES: usize = 8;
/// Times each object is written.
const WRITES: u64 = 20_000;

/// cache-scratch: each thread first frees an object that the first thread allocated next to the others'.
pub fn scratch(setting: &Setting) -> Outcome {
    let handed: Vec<usize> = (0..setting.threads).map(|_| block(BYTES).expose_provenance()).collect();
    side_by_side(setting.threads, |number| {
        release(std::ptr::with_exposed_provenance_mut(handed[number]));
        write_objects(setting, number)
    })
    .into()
}

/// cache-thrash: the same without the object handed over.
pub fn thrash(setting: &Setting) -> Outcome {
    side_by_side(setting.threads, |number| write_objects(setting, number)).into()
}

fn write_objects(setting: &Setting, number: usize) -> Tally {
    let mut tally = Tally::new(number);
    for round in 0..setting.rounds(8000) {
        let object = block(BYTES).cast::<u64>();
        let first = round ^ number as u64;
        // SAFETY: the object has 8 bytes and is ours alone. Volatile, so that each write happens.
        unsafe { object.write_volatile(first) };
        for _ in 0..WRITES {
            // SAFETY: as above.
            let value = unsafe { object.read_volatile() };
            // SAFETY: as above.
            unsafe { object.write_volatile(value.wrapping_add(1)) };
        }
        tally.wrote(first.wrapping_add(WRITES));
        // SAFETY: as above.
        tally.read(unsafe { object.read_volatile() });
        tally.operations += 1;
        release(object.cast());
    }
    tally
}
