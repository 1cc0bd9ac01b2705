//! What is asked of the running system: version, possible CPUs, errno.

use core::fmt;

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
        if unsafe { libc::uname(&mut name) } != 0 {
            return None;
        }
        // `c_char` is signed on one architecture and not on the other.
        let bytes = name.release.map(|letter| letter.to_ne_bytes()[0]);
        Self::parse(&bytes)
    }

    /// Whether a thread that is preempted on this kernel may go on in the middle of a sequence: on arm64
    /// the check was lost in 6.19 and came back with 7.0.14 (commit 411c1cf43039; not in 6.19's stable series). A kernel that has the
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
/// promise; the mode matters for what a return to user space costs. Read from the kernel's commits (39a167560a61 in 6.19,
/// b9eac6a9, 82f572449cfe and 99428157dcf3 in 7.0.10); only the legacy mode has been run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
/// Allocates nothing: libc's own answer (`sysconf`) does in glibc before 2.36, and an allocator asks before it can.
#[must_use]
pub fn possible_cpus() -> usize {
    keep_errno(read_possible_cpus).unwrap_or(MOST_CPUS)
}

/// At least [`possible_cpus`], seldom more than 63 above it: for tables that must have room for every CPU, when opening a
/// file takes too long. One system call: the kernel says how large its own sets of CPUs are.
#[must_use]
pub fn cpu_bound() -> usize {
    let mut set = [0_u64; MOST_CPUS / 64];
    // libc's wrapper hides the number of bytes.
    // SAFETY: `set` is ours and that long; 0 is the calling thread.
    let bytes = keep_errno(|| unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&set), &mut set) });
    usize::try_from(bytes).map_or(MOST_CPUS, |bytes| bytes * 8)
}

fn read_possible_cpus() -> Option<usize> {
    let mut text = [0_u8; 256];
    let path = c"/sys/devices/system/cpu/possible";
    // SAFETY: a C string; no memory of ours is touched.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    // SAFETY: `text` is ours and that long; the file is open.
    let length = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: the file is ours to close.
    unsafe { libc::close(file) };
    highest(&text[..usize::try_from(length).ok()?])?.checked_add(1)
}

/// The last number of a CPU list such as `0-3,8-11`.
fn highest(list: &[u8]) -> Option<usize> {
    let mut number = None;
    for &byte in list {
        number = match byte {
            b'0'..=b'9' => Some(number.unwrap_or(0_usize).checked_mul(10)?.checked_add(usize::from(byte - b'0'))?),
            b'\n' => break,
            _ => None,
        };
    }
    number
}

/// errno of the calling thread.
pub(crate) fn errno() -> i32 {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() }
}

/// Runs `f` and puts errno back: sequences and what they need may run in a signal handler.
pub(crate) fn keep_errno<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: errno is this thread's.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *place };
    let result = f();
    // SAFETY: as above.
    unsafe { *place = before };
    result
}

/// Runs `f` while no signal handler of this thread can.
pub(crate) fn without_signals<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: all-zero bytes are a valid set, which is overwritten.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { core::mem::zeroed() };
    // SAFETY: two sets of ours; they answer with an error, not in errno, and do not fail.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before);
    }
    let result = f();
    // SAFETY: the set from before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, core::ptr::null_mut()) };
    result
}

#[cfg(test)]
mod tests {
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
    fn cpu_lists_end_with_the_highest() {
        assert_eq!(highest(b"0-1\n"), Some(1));
        assert_eq!(highest(b"0,2-5,64-127\n"), Some(127));
        assert_eq!(highest(b"\n"), None);
        assert!(possible_cpus() >= 1);
        assert!((possible_cpus()..=MOST_CPUS).contains(&cpu_bound()));
    }
}
