//! What the environment may say: one table of all `PERSEQ_` variables, read once, at the first allocation.

use core::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use crate::config::MAX_SHARDS;
use crate::fatal::fatal;
use crate::front_end::budget;
use crate::front_end::modes::locked;
use crate::front_end::reclaim;
use crate::hardened;
use crate::lock_order::Rank;
use crate::message::message;
use crate::middle::back_end::BACK_END;
use crate::middle::shards;
use crate::middle::topology::MAX_GROUPS;
use crate::mode::Mode;
use crate::names;
use crate::page_heap::release::Policy;
use crate::page_heap::source::Thp;
use crate::process::background;
use crate::process::cgroup;
use crate::process::choice;
use crate::process::environment::{for_each_variable, is_heeded};
use crate::process::heap_profile;
use crate::process::reporter;
use crate::slices;
use crate::sync::Mutex;

/// A variable of the environment that perseq reads.
#[derive(Debug)]
#[non_exhaustive]
pub struct RuntimeOption {
    /// Its name.
    pub name: &'static str,
    /// What it sets.
    pub meaning: &'static str,
    /// What counts as a value.
    pub expected: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// Takes a value; false if it makes no sense.
    apply: fn(&str) -> bool,
}

/// Least bytes of caches: fewer hold nothing.
const LEAST_CACHE: usize = 4 << 10;
/// Least hard limit: the heap's tables and a first span of each common class. With less no program begins.
const LEAST_HARD_LIMIT: usize = 1 << 20;

const SOFT_LIMIT: &str = "bytes, above 0, as in 512M or 2G, or 1% to 100% of the memory this process may have";
const HARD_LIMIT: &str = "bytes, at least 1M, as in 512M or 2G, or 1% to 100% of the memory this process may have";
const BYTES: &str = "bytes, at least 4K, with K, M or G for a multiple of 1024, as in 512K; for no caches, \
                     PERSEQ_MODE=central";

static OPTIONS: [RuntimeOption; 17] = [
    RuntimeOption {
        name: "PERSEQ_MODE",
        meaning: "how a thread finds its cache",
        expected: Mode::NAMES,
        default: "percpu",
        apply: |text| Mode::from_name(text).map(choice::set_by_environment).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_CACHE_BYTES",
        meaning: "bytes each cache may hold; not together with PERSEQ_TOTAL_BYTES",
        expected: BYTES,
        default: "1M",
        apply: |text| bytes_from(text, LEAST_CACHE).map(budget::set_each).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_TOTAL_BYTES",
        meaning: "bytes all caches together may hold, in equal shares; not together with PERSEQ_CACHE_BYTES",
        expected: BYTES,
        default: "not set",
        apply: |text| bytes_from(text, LEAST_CACHE).map(budget::set_total).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_LENDING",
        meaning: "whether a cache borrows what others do not use of PERSEQ_TOTAL_BYTES, in the modes that can",
        expected: "0 or 1",
        default: "1",
        apply: |text| matches!(text, "0" | "1").then(|| budget::set_fixed(text == "0")).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_RELEASE",
        meaning: "when free pages go back to the kernel",
        expected: "now, never, or the milliseconds that nobody used them, 1 to 4294967294",
        default: "2000",
        apply: |text| Policy::from_name(text).map(|policy| BACK_END.pages.releases.set_policy(policy)).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_BACKGROUND",
        meaning: "whether a thread gives memory back, also when the process is idle",
        expected: "0 or 1",
        default: "0",
        apply: |text| matches!(text, "0" | "1").then(|| background::set(text == "1")).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_SOFT_LIMIT",
        meaning: "bytes held above which free pages go back before more memory is taken",
        expected: SOFT_LIMIT,
        default: "not set",
        apply: |text| bytes_or_share(text, 1).map(|bytes| BACK_END.pages.limits.set_soft(bytes)).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_HARD_LIMIT",
        meaning: "bytes held above which allocation fails; percent are of the least of the physical memory and the \
                  limits of this process's control groups (cgroup), under which the kernel would kill it",
        expected: HARD_LIMIT,
        default: "not set",
        apply: |text| {
            bytes_or_share(text, LEAST_HARD_LIMIT).map(|bytes| BACK_END.pages.limits.set_hard(bytes)).is_some()
        },
    },
    RuntimeOption {
        name: "PERSEQ_THP",
        meaning: "what the kernel is told about transparent huge pages",
        expected: "default, always or never",
        default: "default",
        apply: |text| Thp::from_name(text).map(|thp| BACK_END.pages.source().set_thp(thp)).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_IDLE_DRAIN",
        meaning: "milliseconds after which the cache of an idle CPU or thread is emptied",
        expected: "milliseconds, 1 to 86400000, or off",
        default: "10000",
        apply: |text| idle_drain(text).map(reclaim::set_idle_drain).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_SHARDS",
        meaning: "caches in the mode sharded",
        expected: "a number from 1 to 4096",
        default: "4 for each CPU",
        apply: |text| number(text, 1..=MAX_SHARDS).map(locked::set_shards).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_TRANSFER_SHARDS",
        meaning: "shards of the transfer caches, among which CPUs are dealt out in turn",
        expected: "a number from 1 to 64",
        default: "1 for each last-level cache, as /sys says",
        apply: |text| number(text, 1..=MAX_GROUPS).map(shards::set_transfer_shards).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_NAMES",
        meaning: "whether mappings have names in /proc/PID/maps and smaps, as perseq:heap, where the kernel has \
                  that; prctl(2) is then among the calls that are made at any time",
        expected: "0 or 1",
        default: "0",
        apply: |text| matches!(text, "0" | "1").then(|| names::set(text == "1")).is_some(),
    },
    RuntimeOption {
        name: "PERSEQ_SLICE",
        meaning: "whether a thread that holds a lock of the allocator's asks the kernel not to preempt it for some \
                  microseconds (Linux 7.0 with CONFIG_RSEQ_SLICE_EXTENSION); observe only counts what becomes of holders; \
                  prctl(2) and rseq_slice_yield(2) are then among the calls that are made at any time",
        expected: "0, 1 or observe",
        default: "0",
        apply: slices::set,
    },
    RuntimeOption {
        name: "PERSEQ_STATS",
        meaning: "statistics at exit, to standard error (not of a forked child that closed it) or appended to a file; also \
                  every so many seconds, or when a signal arrives, which takes a thread",
        expected: "text, json, text:PATH or json:PATH, and behind it ,every=SECONDS (to 86400) or ,signal=USR1 or \
                   ,signal=USR2",
        default: "not set",
        apply: reporter::set,
    },
    RuntimeOption {
        name: heap_profile::NAME,
        meaning: "a heap profile by sampling, for pprof, written to PREFIX.PID.heap at exit: bytes from one sample to the \
                  next, in the mean",
        expected: "bytes, at least 4K, as in 512K, and behind it perhaps ,PREFIX",
        default: "not set; PREFIX is perseq",
        apply: |text| {
            let (bytes, prefix) = text.split_once(',').map_or((text, None), |(bytes, prefix)| (bytes, Some(prefix)));
            bytes_from(bytes, heap_profile::LEAST_RATE).is_some_and(|rate| heap_profile::set(rate, prefix))
        },
    },
    RuntimeOption {
        name: "PERSEQ_HARDENED",
        meaning: "1: no caches, and every operation is checked; for programs that may misuse memory",
        expected: "0 or 1",
        default: "0",
        apply: hardened::set,
    },
];

/// Pairs that say two things about one.
const EXCLUSIVE: [(&str, &str); 1] = [("PERSEQ_CACHE_BYTES", "PERSEQ_TOTAL_BYTES")];

/// Names that begin so are others': this project's tests', and the build script's.
const FOREIGN: [&str; 3] = ["PERSEQ_TEST_", "PERSEQ_CI_", "PERSEQ_BUILD_"];

/// Every variable of the environment that perseq reads, for programs that list them.
#[must_use]
pub fn options() -> &'static [RuntimeOption] {
    &OPTIONS
}

/// The environment was read.
static READ: AtomicBool = AtomicBool::new(false);
static READING: Mutex<()> = Mutex::new(Rank::Environment, ());

pub(crate) fn mutex() -> &'static Mutex<()> {
    &READING
}

/// What the environment says and makes no sense, in the pieces of its message.
#[must_use = "it ends the process, once no lock is held"]
pub struct Refusal([&'static str; 5]);

impl Refusal {
    /// Says it and ends the process. The caller holds no lock.
    pub fn end(self) -> ! {
        fatal(&self.0)
    }
}

/// Reads the environment, once; when this returns, what it says holds, whichever thread read it. A value that makes no
/// sense ends the process; a variable that begins with `PERSEQ_` and is none of ours is reported and changes nothing.
/// An empty value counts as not set. A program that runs with more rights than its user (`AT_SECURE`) is not told by
/// its user's environment. The caller holds no lock.
pub fn read_environment() {
    if let Err(refusal) = try_read_environment() {
        refusal.end();
    }
}

/// As [`read_environment`], for a caller that holds a lock.
///
/// # Errors
///
/// The first value that makes no sense. All that does holds.
pub fn try_read_environment() -> Result<(), Refusal> {
    // Acquire pairs with the release below: we see what was set.
    if READ.load(Acquire) {
        return Ok(());
    }
    let _reading = READING.lock();
    if READ.load(Acquire) {
        return Ok(()); // somebody was faster
    }
    let applied = if is_heeded() { apply_all() } else { Ok(()) };
    READ.store(true, Release);
    applied
}

fn apply_all() -> Result<(), Refusal> {
    let (mut seen, mut finding) = ([false; OPTIONS.len()], Ok(()));
    let mut refuse = |parts| {
        if finding.is_ok() {
            finding = Err(Refusal(parts));
        }
    };
    for_each_variable(|variable| {
        let Some((name, value)) = variable else {
            let bad = "a PERSEQ_ variable of the environment is not UTF-8: expected one that perseq doctor lists";
            return refuse([bad, "", "", "", ""]);
        };
        if FOREIGN.iter().any(|prefix| name.starts_with(prefix)) || value.is_empty() {
            return;
        }
        let Some(index) = OPTIONS.iter().position(|option| option.name == name) else {
            message(&[name, ": there is no such option; perseq doctor lists them"]);
            return;
        };
        let option = &OPTIONS[index];
        if !(option.apply)(value) {
            return refuse([name, "=", value, ": expected ", option.expected]);
        }
        seen[index] = true;
    });
    let is_set = |name| OPTIONS.iter().zip(seen).any(|(option, seen)| seen && option.name == name);
    for (one, other) in EXCLUSIVE {
        if is_set(one) && is_set(other) {
            refuse([one, " and ", other, " are both set: expected one of them", ""]);
        }
    }
    finding
}

/// A period in milliseconds; `Some(None)` for never.
fn idle_drain(text: &str) -> Option<Option<u64>> {
    if text == "off" { Some(None) } else { number(text, 1..=86_400_000).map(|period| Some(period as u64)) }
}

fn number(text: &str, range: core::ops::RangeInclusive<usize>) -> Option<usize> {
    digits(text).filter(|number| range.contains(number))
}

/// A number of bytes, at least so many.
fn bytes_from(text: &str, least: usize) -> Option<usize> {
    parse_bytes(text).filter(|bytes| *bytes >= least)
}

/// As [`bytes_from`], or percent of what the process may have.
fn bytes_or_share(text: &str, least: usize) -> Option<usize> {
    let Some(percent) = text.strip_suffix('%') else { return bytes_from(text, least) };
    let percent = number(percent, 1..=100)?;
    Some((cgroup::available_memory() / 100).saturating_mul(percent)).filter(|bytes| *bytes >= least)
}

/// A number of bytes, with K, M or G for a multiple of 1024.
fn parse_bytes(text: &str) -> Option<usize> {
    let (number, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits(number)?.checked_mul(1 << shift)
}

/// A number without a sign.
fn digits(text: &str) -> Option<usize> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::{bytes_from, bytes_or_share, idle_drain, number};

    #[test]
    fn periods_and_numbers() {
        assert_eq!(idle_drain("off"), Some(None));
        assert_eq!(idle_drain("250"), Some(Some(250)));
        for bad in ["", "0", "-1", "never", "1s", "86400001"] {
            assert_eq!(idle_drain(bad), None, "{bad}");
        }
        assert_eq!((number("1", 1..=4), number("4", 1..=4), number("5", 1..=4)), (Some(1), Some(4), None));
    }

    #[test]
    fn bytes_with_and_without_suffix() {
        assert_eq!(bytes_from("4096", 4096), Some(4096));
        assert_eq!(bytes_from("512K", 1), Some(512 << 10));
        assert_eq!(bytes_from("3m", 1), Some(3 << 20));
        assert_eq!(bytes_from("1G", 1), Some(1 << 30));
        assert_eq!(bytes_from("4095", 4096), None);
        for bad in ["", "0", "K", "-1", "+1", "+1K", "1.5M", "1T", "99999999999999999999", "99999999999999G"] {
            assert_eq!(bytes_from(bad, 1), None, "{bad}");
        }
        assert_eq!(bytes_or_share("3m", 1), Some(3 << 20));
        assert_eq!(
            bytes_or_share("50%", 1).zip(bytes_or_share("100%", 1)).map(|(half, all)| all - 2 * half < 200),
            Some(true)
        );
        for bad in ["%", "0%", "101%", "-1%", "1.5%", "50 %", "50%%", "1K%", "+5%"] {
            assert_eq!(bytes_or_share(bad, 1), None, "{bad}");
        }
    }
}
