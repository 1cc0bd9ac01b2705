//! Memory that is taken away: perseq's own limits and policies, and the kernel's limits on a process.

use crate::torture::force::{Acting, Force, anywhere};
use crate::torture::heap::Door;
use crate::torture::order::Order;
use nix::libc;
use perseq::{Limits, ReleasePolicy};
use std::time::Duration;

/// Limits and policies of perseq.
pub const LIMITS: Force = Force {
    name: "limits",
    what: "changes of perseq's limits, release policy and background thread",
    takes_memory: true,
    absent: limits_absent,
    act: limits,
};

/// Limits of the kernel.
pub const RLIMITS: Force = Force {
    name: "rlimits",
    what: "changes of RLIMIT_AS and RLIMIT_DATA",
    takes_memory: true,
    absent: anywhere,
    act: rlimits,
};

fn limits_absent(order: &Order) -> Option<String> {
    (order.door != Door::Crate).then(|| "perseq's limits are set through the crate".into())
}

fn limits(acting: &mut Acting) {
    while acting.goes_on() {
        let held = perseq::stats().held_bytes as usize;
        let near = |random: usize| held.saturating_sub(4 << 20) + (random << 16);
        let limit = |wanted: bool, random: usize| wanted.then(|| near(random).max(1 << 16));
        let (soft, hard) = (acting.random.once_in(2), acting.random.once_in(2));
        let limits =
            Limits { soft: limit(soft, acting.random.below(128)), hard: limit(hard, acting.random.below(128)) };
        perseq::set_limits(limits);
        let usual = ReleasePolicy::After(Duration::from_millis(1 + acting.random.below(50) as u64));
        perseq::set_release(acting.random.of(&[ReleasePolicy::Now, ReleasePolicy::Never, usual]));
        perseq::set_background(acting.random.once_in(2));
        acting.sleep_us(500);
        acting.happened();
    }
    perseq::set_limits(Limits::default());
    perseq::set_background(false);
}

fn rlimits(acting: &mut Acting) {
    let kinds = [(libc::RLIMIT_AS, "VmSize:"), (libc::RLIMIT_DATA, "VmData:")];
    while acting.goes_on() {
        let (kind, field) = acting.random.of(&kinds);
        let used = status_bytes(field);
        if let Some(free) = limit(kind) {
            // A little above what is used, or below it.
            let room = acting.random.below(32) as u64;
            let tight = libc::rlimit { rlim_cur: (used + (room << 17)).saturating_sub(2 << 20), ..free };
            set(kind, &tight);
            acting.sleep_us(700);
            if set(kind, &free) {
                acting.happened();
            }
        }
        acting.sleep_us(300);
    }
}

fn limit(kind: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours to write.
    (unsafe { libc::getrlimit(kind, &mut limit) } == 0).then_some(limit)
}

fn set(kind: libc::__rlimit_resource_t, limit: &libc::rlimit) -> bool {
    // SAFETY: the structure is read only.
    unsafe { libc::setrlimit(kind, limit) == 0 }
}

/// A number of the kernel's about this process, read without allocating.
fn status_bytes(field: &str) -> u64 {
    use std::io::Read;
    let (mut bytes, mut length) = ([0; 4096], 0);
    if let Ok(mut file) = std::fs::File::open("/proc/self/status") {
        length = file.read(&mut bytes).unwrap_or(0);
    }
    let text = std::str::from_utf8(&bytes[..length]).unwrap_or("");
    let kib = text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
