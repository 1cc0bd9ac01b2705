//! The modes by name: which index the front end uses, and why. What they do is in `front_end/modes`.

use core::ffi::CStr;
use core::fmt;

use rseq::Unavailable;

use crate::slices::Slices;

/// Calls the macro `$make` with every mode: the file in `front_end/modes` that makes it and, for each mode made there,
/// its name in the program, which is also a type of that file, its name for users, and what it is.
///
/// A new mode is its file and an entry here. The first is the default; reports list them in this order.
macro_rules! for_each_mode {
    ($make:ident $($arguments:tt)*) => { $make! { [$($arguments)*]
        indexed {
            PerCpu = "percpu": "One cache per CPU, indexed by the kernel's `cpu_id`, changed in restartable sequences.",
            PerCpuMmCid = "percpu-mmcid": "One cache per concurrency id (`mm_cid`, Linux 6.3), at most as many as \
                running threads; changed in restartable sequences.",
        }
        owned { PerThread = "perthread": "A cache per thread, changed by plain loads and stores, flushed at its exit." }
        gated {
            PerThreadDrain = "perthread-drain": "As `perthread`, but a thread says that it is inside its cache: others \
                can empty the cache of an idle thread. Needs membarrier (Linux 4.14).",
        }
        locked {
            Sharded = "sharded": "A fixed number of caches with locks; a thread's is chosen by a hash of its id.",
            PerCpuLock = "percpu-lock": "One cache per CPU, with a lock: the index of `percpu` without its sequences.",
        }
        uncached { Central = "central": "No cache: each operation takes the lock of its size class." }
    } };
}
pub(crate) use for_each_mode;

macro_rules! make_modes {
    ([] $($file:ident { $($mode:ident = $name:literal: $text:literal),+ $(,)? })+) => {
        /// How the front end chooses a cache. Everything behind it is the same in each mode.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Mode {
            $($(#[doc = $text] $mode,)+)+
        }

        impl Mode {
            /// Every mode, in the order reports list them.
            pub const ALL: [Mode; [$($($name),+),+].len()] = [$($(Mode::$mode),+),+];

            /// All names, with commas between them.
            pub(crate) const NAMES: &'static str = concat!($($(", ", $name),+),+).split_at(2).1;

            /// The name used by `PERSEQ_MODE`, by reports and by [`Mode::from_name`].
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Mode::$mode => $name,)+)+ }
            }

            /// [`Mode::name`] for C.
            #[must_use]
            pub const fn c_name(self) -> &'static CStr {
                match self { $($(Mode::$mode => const { c_string(concat!($name, "\0")) },)+)+ }
            }

            /// What the mode is, in a sentence or two.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $($(Mode::$mode => $text,)+)+ }
            }
        }
    };
}
for_each_mode!(make_modes);

const fn c_string(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a name of a mode has a zero in it"),
    }
}

impl Mode {
    /// The mode called `name`, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// A number above 0, for an atomic word where 0 means none.
    pub(crate) const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The mode of such a number.
    #[inline]
    pub(crate) fn from_number(number: u8) -> Option<Mode> {
        Mode::ALL.get((number as usize).wrapping_sub(1)).copied()
    }
}

impl Default for Mode {
    /// The first of [`Mode::ALL`].
    fn default() -> Self {
        Mode::ALL[0]
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The mode asked for, the mode that runs, and why they differ if they do. And what else was asked of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveMode {
    /// What `PERSEQ_MODE`, [`crate::set_mode`] or the default asked for.
    pub requested: Mode,
    /// What every thread of this process uses.
    pub active: Mode,
    /// Why `active` was chosen.
    pub reason: Reason,
    /// Whether threads that hold a lock ask for more time (`PERSEQ_SLICE`), and why not.
    pub slices: Slices,
}

impl fmt::Display for ActiveMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.active, self.reason)?;
        if self.slices != Slices::Off { write!(f, ", slices {}", self.slices) } else { Ok(()) }
    }
}

/// Why the active mode is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It was asked for.
    AsRequested,
    /// A per-CPU mode was asked for, but restartable sequences are not available.
    NoRseq(Unavailable),
    /// A mode was asked for whose caches are emptied by others, but the kernel refused the fences that this needs
    /// (membarrier) with this errno.
    NoFence(i32),
    /// Concurrency ids were asked for, but this kernel does not give them.
    NoMmCid,
    /// Caches of threads were asked for, but the program had taken every key of thread-specific data (`pthread_key_create`)
    /// before the first allocation, so none would say that a thread ends.
    NoKey,
    /// `PERSEQ_HARDENED` checks every operation, which leaves no place for caches.
    Hardened,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AsRequested => f.write_str("as requested"),
            Reason::NoRseq(why) => why.fmt(f),
            Reason::NoFence(errno) => write!(f, "membarrier was refused (errno {errno})"),
            Reason::Hardened => f.write_str("hardened: every operation is checked"),
            Reason::NoKey => f.write_str("no key of thread-specific data is left"),
            Reason::NoMmCid => f.write_str("the kernel gives no mm_cid (Linux 6.3)"),
        }
    }
}

/// The mode cannot be changed any more: this is the active one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyActive(pub ActiveMode);

impl fmt::Display for AlreadyActive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mode was decided by the first allocation: {}", self.0)
    }
}

impl core::error::Error for AlreadyActive {}
