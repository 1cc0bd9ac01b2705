//! What is asked of the running system: version, possible CPUs, a small file; and signals held off for a moment.

use core::ffi::CStr;
use core::fmt;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::syscall;

/// A kernel's version, as `uname` gives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Release {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number; 0 if there is none.
    pub patch: u32,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Release {
    /// `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Release { major, minor, patch }
    }

    /// Reads the numbers at the beginning of a release string such as `6.18.44-rc1+deb`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = [0_u32; 3];
        let mut rest = text;
        for (place, number) in numbers.iter_mut().enumerate() {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                // A version such as `7.0-rc1` has two numbers.
                return if place == 2 { Some(Release::new(numbers[0], numbers[1], 0)) } else { None };
            }
            for &digit in &rest[..digits] {
                *number = number.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
            }
            rest = match rest.get(digits) {
                Some(b'.') => &rest[digits + 1..],
                _ => &[],
            };
        }
        Some(Release::new(numbers[0], numbers[1], numbers[2]))
    }

    /// The running kernel's version, if it says one.
    #[must_use]
    pub fn running() -> Option<Self> {
        // SAFETY: all-zero bytes are a valid `utsname`.
        let mut name: libc::utsname = unsafe { core::mem::zeroed() };
        // SAFETY: `name` is ours to be filled.
        unsafe { syscall::call(libc::SYS_uname, [&raw mut name as usize]) }.ok()?;
        // `c_char` is signed on one architecture and not on the other.
        let bytes = name.release.map(|letter| letter.to_ne_bytes()[0]);
        Self::parse(&bytes)
    }

    /// Whether a thread that is preempted on this kernel may go on in the middle of a sequence: on arm64 the check was
    /// lost in 6.19 and came back with 7.0.14 (commit 411c1cf43039; not in 6.19's stable series). A kernel that has the
    /// fix under an older number is refused as well.
    #[must_use]
    pub fn breaks_sequences(self, arm64: bool) -> bool {
        arm64 && self >= Release::new(6, 19, 0) && self < Release::new(7, 0, 14)
    }

    /// How this kernel treats a registration of `length` bytes.
    #[must_use]
    pub fn mode(self, length: u32) -> Mode {
        let longer = length > crate::abi::ORIGINAL_LENGTH;
        if self < Release::new(6, 19, 0) {
            Mode::Legacy
        } else if self < Release::new(7, 0, 10) {
            Mode::Optimized
        } else if longer {
            Mode::OptimizedEnforced
        } else {
            Mode::Legacy
        }
    }
}

/// When the kernel writes the area and checks for a running sequence. Sequences of this crate rely on what all modes
/// promise; the mode matters for what a return to user space costs. Read from the kernel's commits (39a167560a61 in
/// 6.19, b9eac6a9, 82f572449cfe and 99428157dcf3 in 7.0.10); only the legacy mode has been run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mode {
    /// At every preemption and signal.
    Legacy,
    /// When a number changed, or when a sequence may have been running (Linux 6.19 to 7.0.9).
    Optimized,
    /// As optimized; a process that changes the kernel's fields is killed (Linux 7.0.10, lengths above 32).
    OptimizedEnforced,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Legacy => "legacy",
            Mode::Optimized => "optimized",
            Mode::OptimizedEnforced => "optimized, enforced",
        })
    }
}

/// The most CPUs that Linux can be configured for.
const MOST_CPUS: usize = 8192;

/// One more than the highest number a CPU of this machine can ever have; without `/sys`, of any machine.
///
/// Reads a file the first time it is asked in a process, and allocates nothing: libc's own answer (`sysconf`) does in
/// glibc before 2.36, and an allocator asks before it can.
#[must_use]
pub fn possible_cpus() -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: a number that is the same whoever finds it.
    match KNOWN.load(Relaxed) {
        0 => {
            let count = read_possible_cpus().unwrap_or(MOST_CPUS);
            KNOWN.store(count, Relaxed);
            count
        }
        known => known,
    }
}

/// At least [`possible_cpus`], seldom more than 63 above it: for tables that must have room for every CPU, when opening
/// a file takes too long. One system call: the kernel says how large its own sets of CPUs are.
#[must_use]
pub fn cpu_bound() -> usize {
    let mut set = [0_u64; MOST_CPUS / 64];
    // SAFETY: `set` is ours and that long; 0 is the calling thread.
    let bytes =
        unsafe { syscall::call(libc::SYS_sched_getaffinity, [0, size_of_val(&set), set.as_mut_ptr() as usize]) };
    bytes.map_or(MOST_CPUS, |bytes| bytes * 8)
}

fn read_possible_cpus() -> Option<usize> {
    let mut text = [0_u8; 256];
    let length = read_file(c"/sys/devices/system/cpu/possible", &mut text).ok()?;
    highest(&text[..length])?.checked_add(1)
}

/// Reads the beginning of a file into `text`, as much as fits, and returns how much that is. For the kernel's own
/// files, whose reads are not interrupted half-way.
///
/// # Errors
///
/// The errno with which it could not be opened or read.
pub fn read_file(path: &CStr, text: &mut [u8]) -> Result<usize, i32> {
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: a C string; no memory of ours is written.
    let file = unsafe { syscall::call(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0]) }?;
    let mut length = 0;
    let outcome = loop {
        let rest = &mut text[length..];
        // SAFETY: `rest` is ours and that long; the file is open.
        match unsafe { syscall::call(libc::SYS_read, [file, rest.as_mut_ptr() as usize, rest.len()]) } {
            Ok(0) => break Ok(length),
            Ok(more) => length += more,
            Err(libc::EINTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    // SAFETY: the file is ours to close.
    let _ = unsafe { syscall::call(libc::SYS_close, [file]) };
    outcome
}

/// The ranges of a CPU list as the kernel writes them, such as `0-3,8-11`. What is no number ends the list.
pub fn cpu_list(text: &[u8]) -> impl Iterator<Item = RangeInclusive<usize>> + '_ {
    text.split(|&byte| byte == b',').map_while(|part| {
        let mut bounds = part.splitn(2, |&byte| byte == b'-').map(number);
        let first = bounds.next()??;
        let last = bounds.next().unwrap_or(Some(first))?;
        Some(first..=last)
    })
}

fn number(text: &[u8]) -> Option<usize> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit as usize)
    })
}

/// The last number of a CPU list.
fn highest(list: &[u8]) -> Option<usize> {
    cpu_list(list).last().map(|range| *range.end())
}

/// Runs `f` while no signal handler of this thread can, not even libc's own that cancel a thread.
pub fn without_signals<R>(f: impl FnOnce() -> R) -> R {
    let (all, mut before) = (u64::MAX, 0_u64);
    change_mask(libc::SIG_BLOCK, &all, &mut before);
    let result = f();
    change_mask(libc::SIG_SETMASK, &before, &mut 0);
    result
}

/// Sets of signals are the kernel's here, a bit each. It does not fail.
fn change_mask(how: i32, set: &u64, before: &mut u64) {
    let arguments = [how as usize, core::ptr::from_ref(set) as usize, core::ptr::from_mut(before) as usize, 8];
    // SAFETY: two sets of ours, of eight bytes.
    let _ = unsafe { syscall::call(libc::SYS_rt_sigprocmask, arguments) };
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(Release::parse(b"6.18.44-fc\0"), Some(Release::new(6, 18, 44)));
        assert_eq!(Release::parse(b"7.0-rc1"), Some(Release::new(7, 0, 0)));
        assert_eq!(Release::parse(b"7.1.0+"), Some(Release::new(7, 1, 0)));
        assert_eq!(Release::parse(b"what"), None);
        assert_eq!(Release::parse(b"6"), None);
    }

    #[test]
    fn arm64_kernels_that_lost_the_check_are_known() {
        for (release, broken) in
            [((6, 18, 99), false), ((6, 19, 0), true), ((6, 19, 44), true), ((7, 0, 13), true), ((7, 0, 14), false)]
        {
            let release = Release::new(release.0, release.1, release.2);
            assert_eq!(release.breaks_sequences(true), broken, "{release}");
            assert!(!release.breaks_sequences(false));
        }
    }

    #[test]
    fn modes_follow_version_and_length() {
        assert_eq!(Release::new(6, 18, 0).mode(64), Mode::Legacy);
        assert_eq!(Release::new(7, 0, 9).mode(32), Mode::Optimized);
        assert_eq!(Release::new(7, 0, 10).mode(32), Mode::Legacy);
        assert_eq!(Release::new(7, 1, 0).mode(33), Mode::OptimizedEnforced);
    }

    #[test]
    fn cpu_lists_are_ranges() {
        let ranges = |text: &'static [u8]| cpu_list(text).collect::<std::vec::Vec<_>>();
        assert_eq!(ranges(b"0-3,8-11\n"), [0..=3, 8..=11]);
        assert_eq!(ranges(b"5"), [5..=5]);
        assert_eq!(ranges(b"1, 2"), [1..=1, 2..=2]);
        assert_eq!(ranges(b"\n"), []);
        assert_eq!(ranges(b"0-2,x,4"), [0..=2]);
        assert_eq!(ranges(b"0-99999999999999999999"), []);
    }

    #[test]
    fn files_are_read_and_what_is_none_is_said() {
        let mut text = [0; 8];
        let length = read_file(c"/proc/self/comm", &mut text).expect("a file");
        assert!(length > 0);
        assert_eq!(read_file(c"/proc/self/maps", &mut text), Ok(8), "as much as fits");
        assert_eq!(read_file(c"/proc/self/no such file", &mut text), Err(libc::ENOENT));
    }

    #[test]
    fn signals_come_back() {
        let mut before = 0;
        change_mask(libc::SIG_BLOCK, &(1 << (libc::SIGUSR2 - 1)), &mut before);
        without_signals(|| {
            let mut now = 0;
            change_mask(libc::SIG_BLOCK, &0, &mut now);
            // SIGKILL and SIGSTOP cannot be.
            assert_eq!(now.count_zeros(), 2);
        });
        let mut now = 0;
        change_mask(libc::SIG_SETMASK, &before, &mut now);
        assert_eq!(now, before | 1 << (libc::SIGUSR2 - 1));
    }

    #[test]
    fn cpu_lists_end_with_the_highest() {
        assert_eq!(highest(b"0-1\n"), Some(1));
        assert_eq!(highest(b"0,2-5,64-127\n"), Some(127));
        assert_eq!(highest(b"\n"), None);
        assert!(possible_cpus() >= 1);
        assert!((possible_cpus()..=MOST_CPUS).contains(&cpu_bound()));
    }
}
