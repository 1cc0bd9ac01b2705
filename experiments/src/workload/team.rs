//! Threads that start together, work until told to stop, and stay alive until they have been looked at.

use super::objects::Sums;
use super::order::Order;
use super::windows::{self, Window};
use crate::counters::{self, Running};
use crate::instrument::Part;
use crate::measurement::Measurement;
use crate::subject::Subject;
use core_affinity::CoreId;
use nix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Stack of each thread: small, so that thousands fit.
const STACK_BYTES: usize = 64 << 10;

/// CPUs this process may use, in order.
pub fn allowed() -> Result<Vec<usize>, String> {
    match core_affinity::get_core_ids() {
        Some(ids) if !ids.is_empty() => Ok(ids.into_iter().map(|id| id.id).collect()),
        _ => Err("the kernel did not say which CPUs this process may use".into()),
    }
}

/// Binds the calling thread to one CPU.
pub fn pin(cpu: usize) -> Result<(), String> {
    if core_affinity::set_for_current(CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(format!("cannot pin a thread to CPU {cpu}"))
    }
}

/// CPU time of the calling thread.
pub fn thread_ns() -> Result<u64, String> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(|error| format!("thread clock: {error}"))?;
    Ok(Duration::from(time).as_nanos() as u64)
}

/// What one thread counts, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Count {
    pairs: AtomicU64,
}

impl Count {
    /// Adds pairs. Only the owner writes, so a load and a store do.
    #[inline(always)]
    pub fn add(&self, pairs: u64) {
        // Relaxed: nothing else is published by this count.
        self.pairs.store(self.pairs.load(Relaxed) + pairs, Relaxed);
    }
}

/// What a thread that works for a member needs: where to count, and when to stop.
#[derive(Clone, Copy)]
pub struct Pace<'a> {
    /// The member's count.
    pub count: &'a Count,
    stop: &'a AtomicBool,
}

impl Pace<'_> {
    /// Whether to go on working.
    pub fn working(&self) -> bool {
        !self.stop.load(Relaxed) // as for the member
    }
}

/// What a thread sees of its team.
pub struct Member<'a> {
    /// Its number, from 0.
    pub number: usize,
    /// Its count.
    pub count: &'a Count,
    stop: &'a AtomicBool,
    gate: &'a Barrier,
    meetings: usize,
    met: Cell<usize>,
    counting: Cell<Option<Running>>,
}

impl<'a> Member<'a> {
    /// For a thread that works in this member's place.
    pub fn pace(&self) -> Pace<'a> {
        Pace { count: self.count, stop: self.stop }
    }

    /// Whether to go on working.
    #[inline(always)]
    pub fn working(&self) -> bool {
        // Relaxed: the barrier after the work orders everything that matters.
        !self.stop.load(Relaxed)
    }

    /// Waits for every member and the leader.
    ///
    /// Counters, if any are wanted, run between the start and the meeting after the work.
    pub fn meet(&self) {
        self.met.set(self.met.get() + 1);
        if self.met.get() == self.meetings + 1
            && let Some(counting) = self.counting.take()
        {
            counting.stop();
        }
        self.gate.wait();
        if self.met.get() == self.meetings {
            self.counting.set(counters::start());
        }
    }
}

/// How a team is led through its phases: meet, warm up, measure, stop, meet, look, meet, exit.
pub struct Team {
    /// Threads.
    pub threads: usize,
    /// Meetings members have before they start working, for their own preparation.
    pub meetings: usize,
    /// Time to warm up.
    pub warmup: Duration,
    /// Length of the measured part.
    pub measure: Duration,
    /// On what.
    pub subject: Subject,
}

/// Outcome of a member: sums of its objects, or why it stopped.
pub type Outcome = Result<Sums, String>;

impl Team {
    /// So many threads that prepare themselves until so many meetings, and work for as long as the order says.
    pub fn new(order: &Order, threads: usize, meetings: usize) -> Result<Team, String> {
        Ok(Team { threads, meetings, warmup: order.warmup()?, measure: order.measure()?, subject: order.subject })
    }

    /// Runs `member` on every thread. `look` is called when all are quiet and before any exits.
    ///
    /// A member calls [`Member::meet`] `meetings` times, works while [`Member::working`], calls `meet` when it
    /// has freed its objects, and `meet` again before it returns.
    pub fn run(
        &self,
        member: impl Fn(&Member) -> Outcome + Sync,
        look: impl FnOnce(&mut Measurement),
    ) -> Result<Measurement, String> {
        let counts: Vec<Count> = (0..self.threads).map(|_| Count::default()).collect();
        let (stop, gate) = (AtomicBool::new(false), Barrier::new(self.threads + 1));
        let mut measurement = Measurement { threads: self.threads as u64, ..Measurement::default() };
        let total = || counts.iter().map(|count| count.pairs.load(Relaxed)).sum::<u64>();

        let outcomes = std::thread::scope(|scope| {
            let mut handles = Vec::with_capacity(self.threads);
            for (number, count) in counts.iter().enumerate() {
                let (member, stop, gate, meetings) = (&member, &stop, &gate, self.meetings);
                let body = move || {
                    let (met, counting) = (Cell::new(0), Cell::new(None));
                    member(&Member { number, count, stop, gate, meetings, met, counting })
                };
                let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, body);
                match spawned {
                    Ok(handle) => handles.push(handle),
                    // The others wait at a barrier that can no longer fill; the process is the unit to give up.
                    Err(error) => fatal(&format!("thread {number} of {}: {error}", self.threads)),
                }
            }
            for _ in 0..self.meetings {
                gate.wait();
            }

            let start = Instant::now();
            std::thread::sleep(self.warmup);
            let part = Part::begin(self.subject);
            let (mut then, mut pairs) = (Instant::now(), total());
            measurement.warmup_ns = (then - start).as_nanos() as u64;
            let begin = then;
            let mut recorded = Vec::with_capacity(windows::COUNT as usize);
            for window in 1..=windows::COUNT {
                let due = begin + self.measure * window / windows::COUNT;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let (now, sum) = (Instant::now(), total());
                recorded.push(Window { pairs: sum - pairs, wall: now - then });
                (then, pairs) = (now, sum);
            }
            let change = part.end();
            stop.store(true, Relaxed);
            gate.wait();
            windows::record(&mut measurement, &recorded);
            change.describe(&mut measurement);
            look(&mut measurement);
            gate.wait();
            handles.into_iter().map(|handle| handle.join()).collect::<Vec<_>>()
        });

        let mut sums = Sums::default();
        for outcome in outcomes {
            sums.add(outcome.map_err(|_| "a thread panicked".to_owned())??);
        }
        measurement.per_thread_pairs = counts.iter().map(|count| count.pairs.load(Relaxed)).collect();
        (measurement.checksum, measurement.checksum_expected) = (sums.found, sums.expected);
        measurement.set("jain_fairness", jain(&measurement.per_thread_pairs));
        Ok(measurement)
    }
}

/// Jain's index: 1 if every thread got as much done, 1/n if one thread did it all.
fn jain(pairs: &[u64]) -> f64 {
    let sum: f64 = pairs.iter().map(|pairs| *pairs as f64).sum();
    let squares: f64 = pairs.iter().map(|pairs| (*pairs as f64).powi(2)).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (pairs.len() as f64 * squares) }
}

/// Ends the worker with one line; its parent records the sample as failed.
fn fatal(line: &str) -> ! {
    eprintln!("{line}");
    std::process::exit(1)
}
