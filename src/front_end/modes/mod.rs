//! The modes, each in the file that `mode.rs` names for it, and how what depends on the mode reaches it.

use crate::front_end::contract::{Fallback, FrontEnd, Prepared};
use crate::mode::{Mode, for_each_mode};
use crate::owner::Owner;

macro_rules! declare {
    ([] $($file:ident { $($mode:ident = $name:literal: $text:literal),+ $(,)? })+) => {
        $(pub mod $file;)+
    };
}
for_each_mode!(declare);

/// `in_mode!(mode, M => expression)`: the expression, in which `M` is the type of `mode`.
macro_rules! in_mode {
    ([($value:expr, $type:ident => $body:expr)]
        $($file:ident { $($mode:ident = $name:literal: $text:literal),+ $(,)? })+
    ) => {
        match $value {
            $($($crate::mode::Mode::$mode => {
                type $type = $crate::front_end::modes::$file::$mode;
                $body
            })+)+
        }
    };
    ($value:expr, $type:ident => $body:expr) => {
        $crate::mode::for_each_mode!(in_mode ($value, $type => $body))
    };
}
pub(crate) use in_mode;

impl Mode {
    /// Whether there are caches.
    #[must_use]
    pub const fn has_caches(self) -> bool {
        in_mode!(self, M => M::OWNER.is_some())
    }

    /// Whether caches belong to threads.
    #[must_use]
    pub const fn has_thread_caches(self) -> bool {
        in_mode!(self, M => M::THREADS)
    }

    /// Whether caches are changed in restartable sequences.
    #[must_use]
    pub const fn uses_sequences(self) -> bool {
        in_mode!(self, M => M::SEQUENCES)
    }

    /// Whether a thread can take objects out of a cache that is another's: so idle caches are emptied, caches lend one
    /// another what nobody uses of `PERSEQ_TOTAL_BYTES`, and [`drain`](crate::drain) empties all of them.
    #[must_use]
    pub const fn lends(self) -> bool {
        in_mode!(self, M => M::LENDS)
    }

    /// The owner of the cache with this number; `None` if the mode has no caches.
    #[must_use]
    pub fn owner(self, number: u32) -> Option<Owner> {
        in_mode!(self, M => M::OWNER.map(|owner| owner(number)))
    }
}

/// As [`FrontEnd::prepare`] of `mode`.
pub fn prepare(mode: Mode) -> Result<Prepared, Fallback> {
    in_mode!(mode, M => M::prepare())
}

/// As [`FrontEnd::rows`] of `mode`.
pub fn rows(mode: Mode) -> usize {
    in_mode!(mode, M => M::rows())
}
