//! Small objects written by several threads: slow if an allocator puts them on one cache line.

use super::lanes::side_by_side;
use super::object::{Tally, block, release};
use super::setting::{Outcome, Setting};
use std::cmp::Reverse;
use std::collections::HashMap;

/// Bytes of an object: so many fit on a line as the allocator puts there.
const BYTES: usize = 1;
/// Objects of each thread, one after the other.
const OBJECTS: u64 = 1000;
/// Times a CPU writes each: 2 000 000 in the originals, in which the threads share the writes out.
const WRITES: u64 = 160_000;

/// Objects that are allocated for each that is handed over.
const CHOICE: usize = 8;
/// Bytes of a line.
const LINE: usize = 64;

/// cache-scratch: each thread first frees an object that the first thread allocated next to the others'.
///
/// Whether two neighbours share a line depends on what was allocated before them, so those are handed over that do.
pub fn scratch(setting: &Setting) -> Outcome {
    let mut objects: Vec<usize> = (0..setting.threads * CHOICE).map(|_| block(BYTES).expose_provenance()).collect();
    neighbours_first(&mut objects);
    let freed = |address: usize| release(std::ptr::with_exposed_provenance_mut(address));
    let tally = side_by_side(setting.threads, |number| {
        freed(objects[number]);
        write_objects(setting, number)
    });
    objects[setting.threads..].iter().copied().for_each(freed);
    tally.into()
}

/// Sorts addresses by how many of them are on the same line, most first.
fn neighbours_first(addresses: &mut [usize]) {
    let mut on_line: HashMap<usize, usize> = HashMap::new();
    addresses.iter().for_each(|address| *on_line.entry(address / LINE).or_default() += 1);
    addresses.sort_unstable_by_key(|address| (Reverse(on_line[&(address / LINE)]), *address));
}

/// cache-thrash: the same without the object handed over.
pub fn thrash(setting: &Setting) -> Outcome {
    side_by_side(setting.threads, |number| write_objects(setting, number)).into()
}

fn write_objects(setting: &Setting, number: usize) -> Tally {
    let mut tally = Tally::new(number);
    let writes = (WRITES / setting.per_cpu.max(1)).max(1);
    for round in 0..setting.rounds(OBJECTS) {
        let object = block(BYTES);
        let first = (round ^ number as u64) as u8;
        // SAFETY: the object has a byte and is ours alone. Volatile, so that each write happens.
        unsafe { object.write_volatile(first) };
        for _ in 0..writes {
            // SAFETY: as above.
            let value = unsafe { object.read_volatile() };
            // SAFETY: as above.
            unsafe { object.write_volatile(value.wrapping_add(1)) };
        }
        tally.wrote(u64::from(first.wrapping_add(writes as u8)));
        // SAFETY: as above.
        tally.read(u64::from(unsafe { object.read_volatile() }));
        tally.operations += 1;
        release(object);
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_share_a_line_come_first() {
        let mut addresses = [0x1000, 0x1030, 0x1040, 0x1058, 0x1070, 0x1080];
        neighbours_first(&mut addresses);
        assert_eq!(addresses, [0x1040, 0x1058, 0x1070, 0x1000, 0x1030, 0x1080]);
    }
}
