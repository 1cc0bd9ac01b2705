//! Which CPUs share a last-level cache, from `/sys`.
//!
//! It is asked at the start, and then never again: a thread that is sandboxed or cancelled later opens no file. So it is
//! made cheap: only the CPUs that the process may use at the start are asked for, a file for each cache they have, and
//! none if there is one CPU.

use core::ffi::CStr;

use rseq::kernel::{cpu_list, read_file};
use rseq::syscall;

/// Most groups that are told apart. CPUs of further ones count as the last's.
pub const MAX_GROUPS: usize = 64;

/// CPUs of the largest machines that Linux is configured for.
pub const MOST_CPUS: usize = 8192;

/// A set of CPUs, a bit each.
pub struct Cpus([u64; MOST_CPUS / 64]);

impl Cpus {
    /// Those that the calling thread may run on, which are its process's unless it was told otherwise; none if the kernel
    /// does not say.
    pub fn allowed() -> Self {
        let mut set = [0; MOST_CPUS / 64];
        let arguments = [0, size_of_val(&set), set.as_mut_ptr() as usize];
        // SAFETY: `set` is ours and that long; 0 is the calling thread.
        _ = unsafe { syscall::call(libc::SYS_sched_getaffinity, arguments) };
        Cpus(set)
    }

    fn has(&self, cpu: usize) -> bool {
        self.0.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 != 0)
    }

    /// One more than the highest number of one of them.
    pub fn bound(&self) -> usize {
        let last = self.0.iter().rposition(|word| *word != 0);
        last.map_or(0, |word| (word + 1) * 64 - self.0[word].leading_zeros() as usize)
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// Writes each CPU's group to `groups`, numbered in the order of their first CPUs; returns how many there are. A machine
/// that does not say has one.
pub fn last_level_groups(groups: &mut [u8], allowed: &Cpus) -> usize {
    if allowed.count() < 2 {
        groups.fill(0);
        return 1;
    }
    group(groups, |cpu| allowed.has(cpu), read_shared_cpus)
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

fn group(
    groups: &mut [u8],
    allowed: impl Fn(usize) -> bool,
    mut read: impl FnMut(usize, &mut [u8]) -> Option<usize>,
) -> usize {
    const UNKNOWN: u8 = u8::MAX;
    groups.fill(UNKNOWN);
    let mut count = 0;
    for cpu in 0..groups.len() {
        if groups[cpu] != UNKNOWN || !allowed(cpu) {
            continue;
        }
        let mut text = [0; 1024];
        // A CPU that went offline has no list: it counts as the first group's, where it does no harm. A machine whose
        // first CPU has none says nothing.
        let Some(length) = read(cpu, &mut text) else {
            if count == 0 {
                break;
            }
            continue;
        };
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
        let count = group(
            &mut groups,
            |_| true,
            |cpu, text| {
                let list = lists[cpu].as_bytes();
                text[..list.len()].copy_from_slice(list);
                (!list.is_empty()).then_some(list.len())
            },
        );
        (groups, count)
    }

    #[test]
    fn lists_of_the_usual_shapes() {
        assert_eq!(grouped(["0-1\n", "0-1\n"]), ([0, 0], 1));
        assert_eq!(grouped(["0,2\n", "1,3\n", "0,2\n", "1,3\n"]), ([0, 1, 0, 1], 2));
        assert_eq!(grouped(["0-1,4\n", "0-1,4\n", "2-3\n", "2-3\n", "0-1,4\n"]), ([0, 0, 1, 1, 0], 2));
        assert_eq!(grouped(["0\n", "", "2\n"]), ([0, 0, 1], 2));
        assert_eq!(grouped(["", ""]), ([0, 0], 1), "a machine that says nothing");
        assert_eq!(grouped(["", "1\n"]), ([0, 0], 1), "nor whose first CPU does not");
        assert_eq!(grouped(["nonsense", "1-x,-,99999999999999999999"]), ([0, 1], 2));
    }

    #[test]
    fn this_machine_says_what_its_files_say() {
        extern crate std;
        let path = |cpu| std::format!("/sys/devices/system/cpu/cpu{cpu}/cache/index3/shared_cpu_list");
        let allowed = Cpus::allowed();
        let cpus = (0..allowed.bound()).filter(|cpu| allowed.has(*cpu));
        let mut lists: std::vec::Vec<_> = cpus.filter_map(|cpu| std::fs::read_to_string(path(cpu)).ok()).collect();
        lists.sort();
        lists.dedup();
        let mut groups = std::vec![0; allowed.bound()];
        assert_eq!(last_level_groups(&mut groups, &allowed), lists.len().clamp(1, MAX_GROUPS));
    }

    #[test]
    fn sets_of_cpus() {
        let mut set = [0; MOST_CPUS / 64];
        assert_eq!((Cpus(set).bound(), Cpus(set).count(), Cpus(set).has(0)), (0, 0, false));
        (set[0], set[1]) = (1 << 63 | 1, 2);
        let cpus = Cpus(set);
        assert_eq!((cpus.bound(), cpus.count()), (66, 3));
        assert_eq!([0, 1, 63, 64, 65, 9000].map(|cpu| cpus.has(cpu)), [true, false, true, false, true, false]);
        assert_eq!(last_level_groups(&mut [7; 3], &Cpus([0; MOST_CPUS / 64])), 1);
    }
}
