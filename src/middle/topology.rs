//! Which CPUs share a last-level cache, from `/sys`, read with plain system calls: an allocator asks while it
//! cannot allocate.

use core::ffi::CStr;

use rseq::kernel::{cpu_list, read_file};

/// Most groups that are told apart. CPUs of further ones count as the last's.
pub const MAX_GROUPS: usize = 64;

/// Writes each CPU's group to `groups`, numbered in the order of their first CPUs; returns how many there are. A machine
/// that does not say has one. It opens as many files as there are groups and offline CPUs.
pub fn last_level_groups(groups: &mut [u8]) -> usize {
    group(groups, read_shared_cpus)
}

/// The text of a CPU's list of those that share its last cache. 3 is the last level where there is one; machines
/// without share level 2 among few, and one group is then right.
fn read_shared_cpus(cpu: usize, text: &mut [u8]) -> Option<usize> {
    let mut path = *b"/sys/devices/system/cpu/cpu00000/cache/index3/shared_cpu_list\0";
    const NUMBER: usize = b"/sys/devices/system/cpu/cpu".len();
    let mut digits = [0; 5];
    let mut rest = cpu;
    let mut count = 0;
    while count == 0 || rest > 0 {
        *digits.get_mut(count)? = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    digits[..count].reverse();
    path[NUMBER..NUMBER + count].copy_from_slice(&digits[..count]);
    path.copy_within(NUMBER + digits.len().., NUMBER + count);
    read_file(CStr::from_bytes_until_nul(&path).ok()?, text).ok()
}

fn group(groups: &mut [u8], mut read: impl FnMut(usize, &mut [u8]) -> Option<usize>) -> usize {
    const UNKNOWN: u8 = u8::MAX;
    groups.fill(UNKNOWN);
    let mut count = 0;
    for cpu in 0..groups.len() {
        if groups[cpu] != UNKNOWN {
            continue;
        }
        let mut text = [0; 1024];
        // A CPU that is offline has no list: it counts as the first group's, where it does no harm.
        let Some(length) = read(cpu, &mut text) else { continue };
        let number = count.min(MAX_GROUPS - 1) as u8;
        groups[cpu] = number;
        for range in cpu_list(&text[..length]) {
            let end = groups.len().min(range.end().saturating_add(1));
            if let Some(groups) = groups.get_mut(*range.start()..end) {
                groups.fill(number);
            }
        }
        count += 1;
    }
    groups.iter_mut().filter(|group| **group == UNKNOWN).for_each(|group| *group = 0);
    count.clamp(1, MAX_GROUPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of a machine whose CPUs' lists are these; an empty one is an offline CPU's.
    fn grouped<const CPUS: usize>(lists: [&str; CPUS]) -> ([u8; CPUS], usize) {
        let mut groups = [0; CPUS];
        let count = group(&mut groups, |cpu, text| {
            let list = lists[cpu].as_bytes();
            text[..list.len()].copy_from_slice(list);
            (!list.is_empty()).then_some(list.len())
        });
        (groups, count)
    }

    #[test]
    fn lists_of_the_usual_shapes() {
        assert_eq!(grouped(["0-1\n", "0-1\n"]), ([0, 0], 1));
        assert_eq!(grouped(["0,2\n", "1,3\n", "0,2\n", "1,3\n"]), ([0, 1, 0, 1], 2));
        assert_eq!(grouped(["0-1,4\n", "0-1,4\n", "2-3\n", "2-3\n", "0-1,4\n"]), ([0, 0, 1, 1, 0], 2));
        assert_eq!(grouped(["0\n", "", "2\n"]), ([0, 0, 1], 2));
        assert_eq!(grouped(["", ""]), ([0, 0], 1), "no machine says nothing");
        assert_eq!(grouped(["nonsense", "1-x,-,99999999999999999999"]), ([0, 1], 2));
    }

    #[test]
    fn this_machine_says_what_its_files_say() {
        extern crate std;
        let path = |cpu| std::format!("/sys/devices/system/cpu/cpu{cpu}/cache/index3/shared_cpu_list");
        let cpus = rseq::kernel::possible_cpus();
        let mut lists: std::vec::Vec<_> = (0..cpus).filter_map(|cpu| std::fs::read_to_string(path(cpu)).ok()).collect();
        lists.sort();
        lists.dedup();
        let mut groups = std::vec![0; cpus];
        assert_eq!(last_level_groups(&mut groups), lists.len().clamp(1, MAX_GROUPS));
    }
}
