//! What this host can count, event by event.
//!
//! Generic events do not mean the same on every processor, so they are never compared across vendors.

use super::Status;
use crate::host_file::read;
use crate::known::Known;
use perf_event::Builder;
use perf_event::events::{Event, Hardware, Software};
use serde::Serialize;
use std::hint::black_box;

/// The counters of this host.
#[derive(Debug, Serialize)]
pub struct Pmu {
    /// Who may count: 2 lets users count themselves in user space, above that nothing.
    pub perf_event_paranoid: Known<String>,
    /// Each event that was tried.
    pub events: Vec<Counter>,
    /// The known-instruction loop, relative to its length. Null without hardware.
    pub known_loop: Known<f64>,
    /// The known-miss loop, relative to its length. Null without hardware, or for a processor that is in no table.
    pub known_misses: Known<f64>,
}

/// One event and whether it can be counted.
#[derive(Debug, Serialize)]
pub struct Counter {
    /// Its generic name.
    pub name: &'static str,
    /// Whether a processor or the kernel counts it.
    pub hardware: bool,
    /// The answer.
    pub status: Status,
    /// errno of a refusal.
    pub errno: Option<i32>,
}

const EVENTS: [(&str, Result<Hardware, Software>); 12] = [
    ("cycles", Ok(Hardware::CPU_CYCLES)),
    ("instructions", Ok(Hardware::INSTRUCTIONS)),
    ("branches", Ok(Hardware::BRANCH_INSTRUCTIONS)),
    ("branch-misses", Ok(Hardware::BRANCH_MISSES)),
    ("cache-references", Ok(Hardware::CACHE_REFERENCES)),
    ("cache-misses", Ok(Hardware::CACHE_MISSES)),
    ("stalled-cycles-backend", Ok(Hardware::STALLED_CYCLES_BACKEND)),
    ("task-clock", Err(Software::TASK_CLOCK)),
    ("page-faults", Err(Software::PAGE_FAULTS)),
    ("context-switches", Err(Software::CONTEXT_SWITCHES)),
    ("cpu-migrations", Err(Software::CPU_MIGRATIONS)),
    ("alignment-faults", Err(Software::ALIGNMENT_FAULTS)),
];

impl Pmu {
    /// Opens every event once.
    pub fn probe() -> Pmu {
        let events = EVENTS.map(|(name, event)| match event {
            Ok(event) => try_event(name, true, event.into()),
            Err(event) => try_event(name, false, event.into()),
        });
        Pmu {
            perf_event_paranoid: read("/proc/sys/kernel/perf_event_paranoid"),
            events: events.into(),
            known_loop: known_loop(),
            known_misses: known_misses(),
        }
    }

    /// Whether the processor's own counters work.
    pub fn hardware(&self) -> bool {
        self.events.iter().any(|event| event.hardware && event.status == Status::Ok)
    }
}

/// Which of cycles, instructions and these raw events cannot be counted here, each with the reason.
pub fn refused(events: &[super::vendor::Raw]) -> Vec<(&'static str, Status)> {
    let raw = events.iter().map(|raw| (raw.name, try_raw(raw.config)));
    let generic = || EVENTS.into_iter().filter_map(|(name, event)| Some((name, event.ok()?)));
    let generic = generic().map(|(name, event)| (name, try_event(name, true, event.into()).status));
    let all: Vec<_> = generic.filter(|(name, _)| matches!(*name, "cycles" | "instructions")).chain(raw).collect();
    all.into_iter().filter(|(_, status)| *status != Status::Ok).collect()
}

/// The kernel's number for raw events of the processor.
const PERF_TYPE_RAW: u32 = 4;

/// One raw event of the vendor's table, tried.
pub fn try_raw(config: u64) -> Status {
    let mut builder = Builder::new();
    let attributes = builder.attrs_mut();
    (attributes.type_, attributes.config) = (PERF_TYPE_RAW, config);
    match builder.build() {
        Ok(_) => Status::Ok,
        Err(error) => Status::of(&error),
    }
}

/// Counts a tracepoint of the kernel in this process and all it starts, while `body` runs.
pub fn count_tracepoint<T>(name: &str, body: impl FnOnce() -> T) -> Known<(u64, T)> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    let number = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .map(|root| read(&format!("{root}/events/{name}/id")))
        .into_iter()
        .reduce(|first, second| if first.value.is_some() { first } else { second });
    let id = match number {
        Some(Known { value: Some(text), .. }) => text.parse::<u64>().map_err(|error| error.to_string()),
        Some(Known { reason, .. }) => Err(reason.unwrap_or_default()),
        None => Err("no tracing".into()),
    };
    let id = match id {
        Ok(id) => id,
        Err(reason) => return Known::missing(reason),
    };
    let mut builder = Builder::new();
    builder.inherit(true).include_kernel();
    let attributes = builder.attrs_mut();
    (attributes.type_, attributes.config) = (PERF_TYPE_TRACEPOINT, id);
    let counted = builder.build().and_then(|mut counter| {
        counter.enable()?;
        let result = body();
        counter.disable()?;
        Ok((counter.read()?, result))
    });
    match counted {
        Ok(counted) => Known::is(counted),
        Err(error) => Known::missing(format!("{name}: {} ({error})", Status::of(&error))),
    }
}

fn try_event(name: &'static str, hardware: bool, event: Event) -> Counter {
    let mut builder = Builder::new().kind(event);
    if !hardware {
        // Switches and migrations happen in the kernel; without it they would read 0.
        builder.include_kernel();
    }
    let count = builder.build().and_then(|mut counter| {
        counter.enable()?;
        black_box((0..10_000u64).map(black_box).sum::<u64>());
        counter.disable()?;
        counter.read_count_and_time()
    });
    let (status, errno) = match count {
        Ok(count) if count.time_running == 0 => (Status::NotScheduled, None),
        Ok(_) => (Status::Ok, None),
        Err(error) => (Status::of(&error), error.raw_os_error()),
    };
    Counter { name, hardware, status, errno }
}

/// Iterations of the known loop.
pub(super) const ITERATIONS: u64 = 10_000_000;

/// Counts a loop of known length: 1.0 means the counter is right.
pub(super) fn known_loop() -> Known<f64> {
    let counted = Builder::new().kind(Hardware::INSTRUCTIONS).build().and_then(|mut counter| {
        counter.enable()?;
        let per_iteration = spin(ITERATIONS);
        counter.disable()?;
        Ok((counter.read_count_and_time()?, per_iteration))
    });
    match counted {
        Err(error) => Known::missing(format!("instructions: {} ({error})", Status::of(&error))),
        Ok((_, None)) => Known::missing("no loop of known length is written for this architecture"),
        Ok((count, _)) if count.time_running == 0 => Known::missing(format!("instructions: {}", Status::NotScheduled)),
        Ok((count, _)) if count.time_running < count.time_enabled => Known::missing("instructions: multiplexed"),
        Ok((count, Some(per_iteration))) => Known::is(count.count as f64 / (ITERATIONS * per_iteration) as f64),
    }
}

/// Runs `iterations` of a loop and says how many instructions each has.
#[cfg(target_arch = "x86_64")]
pub(super) fn spin(iterations: u64) -> Option<u64> {
    // SAFETY: counts a register down to zero and touches nothing else.
    unsafe {
        std::arch::asm!("2:", "nop", "nop", "dec {n}", "jnz 2b", n = inout(reg) iterations => _, options(nomem, nostack));
    }
    Some(4)
}

/// Runs `iterations` of a loop and says how many instructions each has.
#[cfg(target_arch = "aarch64")]
pub(super) fn spin(iterations: u64) -> Option<u64> {
    // SAFETY: counts a register down to zero and touches nothing else but the flags.
    unsafe {
        std::arch::asm!(
            "2:", "nop", "nop", "subs {n}, {n}, #1", "b.ne 2b",
            n = inout(reg) iterations => _, options(nomem, nostack)
        );
    }
    Some(4)
}

/// Lines of the known-miss loop: 16 MiB, several times a second cache, so that hardly any is in the first when it is
/// asked for.
const LINES: usize = 1 << 18;
/// Times it goes round.
const ROUNDS: usize = 4;

/// One line of a ring.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    next: u32,
}

/// A ring through all lines in an order that no prefetcher guesses: one cycle, by Sattolo's shuffle.
fn ring() -> Vec<Line> {
    let mut ring: Vec<Line> = (0..LINES as u32).map(|next| Line { next }).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for last in (1..LINES).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = ((state >> 33) as usize) % last;
        let next = ring[last].next;
        ring[last].next = ring[other].next;
        ring[other].next = next;
    }
    ring
}

/// Follows a ring, each step after the one before.
fn follow(ring: &[Line], steps: usize) -> u32 {
    let mut at = 0;
    for _ in 0..steps {
        at = black_box(ring[at as usize].next);
    }
    at
}

/// Counts the misses of a loop in which every load misses the first cache: 1.0 means the counter is right.
fn known_misses() -> Known<f64> {
    let Some(known) = super::this_processor() else {
        return Known::missing("this processor is in no table of events");
    };
    let mut builder = Builder::new();
    let attributes = builder.attrs_mut();
    (attributes.type_, attributes.config) = (PERF_TYPE_RAW, known.misses.config);
    let counted = builder.build().and_then(|mut counter| {
        let ring = ring();
        black_box(follow(&ring, LINES));
        counter.enable()?;
        black_box(follow(&ring, LINES * ROUNDS));
        counter.disable()?;
        counter.read_count_and_time()
    });
    match counted {
        Err(error) => Known::missing(format!("{}: {} ({error})", known.misses.name, Status::of(&error))),
        Ok(count) if count.time_running == 0 => {
            Known::missing(format!("{}: {}", known.misses.name, Status::NotScheduled))
        }
        Ok(count) if count.time_running < count.time_enabled => {
            Known::missing(format!("{}: multiplexed", known.misses.name))
        }
        Ok(count) => Known::is(count.count as f64 / (LINES * ROUNDS) as f64),
    }
}

/// Runs nothing: the length of a loop is known only where it is written in assembly.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn spin(_: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_passes_every_line_before_it_comes_back() {
        let ring = ring();
        let (mut seen, mut at) = (vec![false; LINES], 0);
        for _ in 0..LINES {
            assert!(!std::mem::replace(&mut seen[at as usize], true));
            at = ring[at as usize].next;
        }
        assert_eq!(at, 0);
        assert_eq!(follow(&ring, LINES), 0);
        assert_eq!(size_of::<Line>(), 64);
    }

    /// Where there is a counter, it counts what is known; where there is none, there is a reason and no number.
    #[test]
    fn known_loops_are_counted_or_there_is_a_reason() {
        for (found, low, high) in [(known_loop(), 0.99, 1.01), (known_misses(), 0.5, 1.5)] {
            assert_eq!(found.value.is_none(), found.reason.is_some());
            assert!(found.value.is_none_or(|ratio| (low..high).contains(&ratio)), "{found:?}");
        }
    }
}
