//! Threads that start together, work until told to stop, and stay alive until they have been looked at.

use super::objects::Sums;
use super::order::Order;
use super::windows::{self, Window};
use crate::counters::{self, Running};
use crate::harness::turns::Turns;
use crate::instrument::Part;
use crate::measurement::Measurement;
use crate::subject::Subject;
use core_affinity::CoreId;
use nix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Condvar, Mutex, PoisonError};
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

/// Whether the members are to work, to halt or to stop, as the leader says.
#[derive(Default)]
struct Say {
    word: AtomicU32,
    /// Members that halt, or have left their work.
    halted: Mutex<usize>,
    changed: Condvar,
}

const WORK: u32 = 0;
const HALT: u32 = 1;
const STOP: u32 = 2;

/// How long the leader waits for members to halt. On a host that is this busy nothing can be measured in turns.
const PATIENCE: Duration = Duration::from_secs(10);

impl Say {
    /// Whether to go on working. Waits while all are to halt.
    #[inline(always)]
    fn working(&self) -> bool {
        // Relaxed: the barrier after the work orders everything that matters.
        self.word.load(Relaxed) == WORK || self.go_on()
    }

    #[cold]
    fn go_on(&self) -> bool {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        *halted += 1;
        self.changed.notify_all();
        let halting = |_: &mut usize| self.word.load(Relaxed) == HALT;
        halted = self.changed.wait_while(halted, halting).unwrap_or_else(PoisonError::into_inner);
        *halted -= 1;
        self.word.load(Relaxed) == WORK
    }

    /// The leader's word from now on.
    fn say(&self, word: u32) {
        let _members = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        self.word.store(word, Relaxed);
        self.changed.notify_all();
    }

    /// Of a member that has left its work, for want of memory say, and halts for good.
    fn leave(&self) {
        *self.halted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Has all of so many members halt. Fails if one works on: it would in the turns of others.
    fn halt(&self, members: usize, patience: Duration) -> Result<(), String> {
        self.say(HALT);
        let halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(halted, patience, |halted| *halted < members);
        let (halted, late) = waited.unwrap_or_else(PoisonError::into_inner);
        let (seconds, halted) = (patience.as_secs_f64(), *halted);
        if late.timed_out() { Err(format!("{halted} of {members} threads halted within {seconds} s")) } else { Ok(()) }
    }
}

/// What a thread that works for a member needs: where to count, and when to stop.
#[derive(Clone, Copy)]
pub struct Pace<'a> {
    /// The member's count.
    pub count: &'a Count,
    say: &'a Say,
}

impl Pace<'_> {
    /// Whether to go on working.
    pub fn working(&self) -> bool {
        self.say.working()
    }
}

/// What a thread sees of its team.
pub struct Member<'a> {
    /// Its number, from 0.
    pub number: usize,
    /// Its count.
    pub count: &'a Count,
    say: &'a Say,
    gate: &'a Barrier,
    meetings: usize,
    met: Cell<usize>,
    counting: Cell<Option<Running>>,
}

impl<'a> Member<'a> {
    /// For a thread that works in this member's place.
    pub fn pace(&self) -> Pace<'a> {
        Pace { count: self.count, say: self.say }
    }

    /// Whether to go on working.
    #[inline(always)]
    pub fn working(&self) -> bool {
        self.say.working()
    }

    /// Waits for every member and the leader.
    ///
    /// Counters, if any are wanted, run between the start and the meeting after the work.
    pub fn meet(&self) {
        self.met.set(self.met.get() + 1);
        if self.met.get() == self.meetings + 1 {
            if let Some(counting) = self.counting.take() {
                counting.stop();
            }
            self.say.leave();
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
    /// When to work, and when to wait for other samples.
    pub turns: Turns,
}

/// Outcome of a member: sums of its objects, or why it stopped.
pub type Outcome = Result<Sums, String>;

impl Team {
    /// So many threads that prepare themselves until so many meetings, and work for as long as the order says.
    pub fn new(order: &Order, threads: usize, meetings: usize) -> Result<Team, String> {
        let (warmup, measure) = (order.warmup()?, order.measure()?);
        Ok(Team { threads, meetings, warmup, measure, subject: order.subject, turns: order.turns() })
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
        let (say, gate) = (Say::default(), Barrier::new(self.threads + 1));
        let mut measurement = Measurement { threads: self.threads as u64, ..Measurement::default() };
        let total = || counts.iter().map(|count| count.pairs.load(Relaxed)).sum::<u64>();

        let outcomes = std::thread::scope(|scope| {
            let mut handles = Vec::with_capacity(self.threads);
            for (number, count) in counts.iter().enumerate() {
                let (member, say, gate, meetings) = (&member, &say, &gate, self.meetings);
                let body = move || {
                    let (met, counting) = (Cell::new(0), Cell::new(None));
                    member(&Member { number, count, say, gate, meetings, met, counting })
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
            measurement.warmup_ns = start.elapsed().as_nanos() as u64;
            let part = Part::begin(self.subject);
            let before = total();
            let recorded = if self.turns.alone() { self.without_a_pause(&total) } else { self.in_turns(&say, &total) };
            let (change, pairs) = (part.end(), total() - before);
            say.say(STOP);
            gate.wait();
            windows::record(&mut measurement, &recorded);
            change.describe(&mut measurement, pairs);
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

    /// The windows of the measured part, one behind the other.
    fn without_a_pause(&self, total: &impl Fn() -> u64) -> Vec<Window> {
        let (mut then, mut pairs) = (Instant::now(), total());
        let begin = then;
        let window = |window| {
            let due = begin + self.measure * window / windows::COUNT;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (now, sum) = (Instant::now(), total());
            let window = Window { pairs: sum - pairs, wall: now - then };
            (then, pairs) = (now, sum);
            window
        };
        (1..=windows::COUNT).map(window).collect()
    }

    /// The windows, made of turns between which everybody halts.
    fn in_turns(&self, say: &Say, total: &impl Fn() -> u64) -> Vec<Window> {
        let pass = || {
            say.halt(self.threads, PATIENCE).and_then(|()| self.turns.pass()).unwrap_or_else(|error| fatal(&error));
            say.say(WORK);
        };
        let turn = self.measure / windows::COUNT / self.turns.of_window() as u32;
        let lead = Duration::from_nanos(self.turns.lead(turn.as_nanos() as u64));
        let mut windows = vec![Window::default(); windows::COUNT as usize];
        for window in &mut windows {
            for _ in 0..self.turns.of_window() {
                pass();
                std::thread::sleep(lead);
                let (start, pairs) = (Instant::now(), total());
                std::thread::sleep(turn);
                window.add(total() - pairs, start.elapsed());
            }
        }
        pass();
        windows
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_holds_up_no_turn_and_who_works_on_is_an_error() {
        let say = Say::default();
        say.leave();
        assert_eq!(say.halt(1, PATIENCE), Ok(()));
        let late = say.halt(2, Duration::from_millis(1)).unwrap_err();
        assert_eq!(late, "1 of 2 threads halted within 0.001 s");
    }
}
