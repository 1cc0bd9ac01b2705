//! Every sequence, aborted by the kernel at every one of its instructions.
//!
//! A child runs one sequence once. The parent single-steps it with ptrace, and at one chosen instruction
//! boundary makes the kernel abort the sequence: by a signal with a handler, by preemption, or by moving the
//! child to another CPU. Afterwards lists, rows and outcome must be those of the plain Rust version
//! of the operation, run once, on the index where the sequence ran last. This is repeated for each boundary that the
//! case passes through, loops included, and at the end the boundaries visited are compared with a
//! disassembly of the sequence.
//!
//! # Stepping without aborting
//!
//! Each stop of a traced thread counts as preemption, so a sequence that is stepped is aborted at its first
//! instruction, for ever. The parent therefore takes the descriptor's address out of the child's area at each
//! stop where nothing is to happen, and puts it back at the one where something is. The kernel looks at the
//! area when the child goes on, so the abort happens at exactly that boundary.
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rseq::slab::{Slot, make_array};
use rseq::{CpuId, Index, Miss, MmCid, Registration, Rows, Slab, local, sequence};

mod case;
mod child;
#[path = "../kit/mod.rs"]
mod kit;
mod sites;
mod world;

use case::*;
use child::*;
use kit::{allowed_cpus, pin, pin_to_any, thread_pointer};
use world::*;

/// How the kernel is made to abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Force {
    /// A signal whose handler runs before the sequence restarts, at the same boundary in this many passes.
    Signal(usize),
    /// Being scheduled out and in again, which every stop of a traced thread is.
    Preemption,
    /// Going on on this other CPU.
    Migration(usize),
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    descriptor: u64,
    start: u64,
    length: u64,
}

impl Sequence {
    fn contains(&self, instruction: u64) -> bool {
        (self.start..self.start + self.length).contains(&instruction)
    }
}

struct Outcome {
    report: Report,
    observed: Observed,
    objects: Vec<usize>,
    /// Whether the chosen boundary was there, and inside the sequence.
    forced: Option<bool>,
}

/// What a first, undisturbed pass found.
#[derive(Default)]
struct Visits {
    /// Boundaries by sequence, over all cases.
    visited: BTreeMap<(&'static str, u64), (u64, BTreeSet<u64>)>,
    /// Instructions of an operation that succeeded, from the arming store to the commit, by what it answered.
    costs: BTreeSet<(&'static str, i64, usize)>,
    runs: usize,
    aborts: u64,
}

/// Runs `case` once, forcing an abort at the `target`th boundary.
fn run_once<I: Index>(
    case: Case,
    found: &Registration,
    target: usize,
    force: Force,
    visits: &mut Visits,
) -> (Box<World<I>>, Outcome) {
    let operation = case.operation;
    let mut world = World::<I>::new(case);
    let before = world.observe(&Here);
    let area = thread_pointer().wrapping_add_signed(found.offset());
    let world_pointer: *mut World<I> = &mut *world;
    // SAFETY: in the child, the world is its own copy, and the handle is of index `I`.
    let first = || unsafe {
        let index = found.handle::<I>().index::<I>();
        let world = &mut *world_pointer;
        let (slab, foreign): (&'static Slab<2>, &'static Slab<2>) =
            (&*ptr::from_ref(&world.slab), &*ptr::from_ref(&world.foreign));
        if case.place != Place::Stopped {
            slab.start::<I>(index);
        }
        cell().set(if case.place == Place::None { foreign } else { slab });
        world.report = Report { index_before: index, restarts: rseq::restarts(), ..Report::default() };
    };
    // SAFETY: as above.
    let life = || unsafe {
        let world = &mut *world_pointer;
        world.report.outcome = world.run(operation, found);
        world.report.restarts = rseq::restarts() - world.report.restarts;
        world.report.index_after = found.handle::<I>().index::<I>();
    };
    let child = Child::start(life, first);

    let mut fields = kernel_fields(&child.bytes(area));
    let mut sequence: Option<Sequence> = None;
    let (mut boundary, mut passes_forced, mut inside) = (0, 0, false);
    let mut forced = None;
    let mut at_end = None;
    let mut over = false;
    // Code before the sequence is stepped through once only, to find the sequence.
    let known = visits.visited.keys().find(|(name, _)| *name == operation.name());
    let mut stop = match known {
        Some(&(_, start)) => child.run_to(start),
        None => child.step(0),
    };
    loop {
        loop {
            if stop == Stop::Breakpoint {
                break;
            }
            assert_eq!(stop, Stop::Step, "{case:?}");
            let at = child.instruction();
            let bytes: [u8; 32] = child.bytes(area);
            assert_eq!(kernel_fields(&bytes), fields, "{case:?}: somebody else wrote a field of the kernel's");
            let armed = u64::from_ne_bytes(bytes[8..16].try_into().expect("eight bytes"));
            if armed != 0 && sequence.is_none() {
                let words: [[u8; 8]; 4] = std::array::from_fn(|word| child.bytes(armed as usize + 8 * word));
                let [header, start, length, _] = words.map(u64::from_ne_bytes);
                assert_eq!(header, 0, "version and flags");
                assert_eq!(armed % 32, 0, "alignment");
                sequence = Some(Sequence { descriptor: armed, start, length });
            }
            let Some(known) = sequence else { break };
            if at == known.start {
                boundary = 0;
            }
            let was_inside = std::mem::replace(&mut inside, known.contains(at));
            let left = was_inside && at == known.start + known.length;
            if !inside && !left {
                over = was_inside; // by a branch to the cold section
                break;
            }
            if passes_forced == 0 && forced.is_none() {
                let place = visits.visited.entry((operation.name(), known.start)).or_default();
                place.0 = known.length;
                place.1.insert(at);
                // All or nothing: up to the commit others see the old state.
                if boundary == target {
                    let seen = world.observe(&child);
                    if inside {
                        assert_eq!(seen, before, "{case:?}, boundary {boundary} at {at:#x}");
                    } else {
                        at_end = Some(seen);
                    }
                }
            }
            let times = if let Force::Signal(times) = force { times } else { 1 };
            let here = boundary == target && passes_forced < times && forced != Some(false);
            boundary += 1;
            if !here {
                child.set_word(area + 8, 0);
                over = left;
                break;
            }
            child.set_word(area + 8, known.descriptor);
            passes_forced += 1;
            forced = Some(!left);
            let signal = match force {
                Force::Signal(_) => libc::SIGUSR1,
                Force::Preemption => 0,
                Force::Migration(cpu) => {
                    assert!(pin(child.pid, cpu), "CPU {cpu} has gone offline");
                    0
                }
            };
            inside = false;
            stop = child.step(signal);
            if let Force::Migration(_) = force {
                fields = kernel_fields(&child.bytes(area)); // as the kernel wrote them when it moved the child
            }
        }
        if stop == Stop::Breakpoint {
            break;
        }
        // What follows the sequence needs no watching.
        stop = if over { child.go_on() } else { child.step(0) };
    }
    assert!(sequence.is_some(), "{case:?} never armed");
    // SAFETY: the report is plain numbers.
    let report: Report = unsafe {
        std::mem::transmute::<[u8; size_of::<Report>()], Report>(
            child.bytes((&raw const (*world_pointer).report) as usize),
        )
    };
    let outcome = Outcome {
        report,
        observed: world.observe(&child),
        objects: world.objects(&child, operation, report.outcome),
        forced,
    };
    if let Some(at_end) = at_end {
        assert_eq!(at_end, outcome.observed, "{case:?}: state changed after the commit");
    }
    visits.runs += 1;
    visits.aborts += report.restarts;
    (world, outcome)
}

/// Runs `case` with an abort at each boundary in turn and compares with the plain Rust operation.
fn run_case<I: Index>(case: Case, found: &Registration, force: Force, visits: &mut Visits) {
    for target in 0.. {
        let (_world, outcome) = run_once::<I>(case, found, target, force, visits);
        let what = format!("{case:?}, {force:?} at boundary {target}");
        let report = outcome.report;
        let mut model = World::<I>::new(case);
        let moved = report.index_before != report.index_after;
        if !matches!(force, Force::Migration(_)) {
            assert!(!moved, "{what}: the child is pinned");
        }
        // A sequence that restarted ran on the index of its last pass.
        let ran_on = if outcome.forced == Some(true) { report.index_after } else { report.index_before };
        let misses = case.place != Place::Own || (case.operation.is_on_slab() && ran_on != report.index_before);
        let expected = if misses { MOVED } else { model.run_local(case.operation, report.index_before, ran_on) };
        assert_eq!(report.outcome, expected, "{what}: outcome");
        assert_eq!(outcome.observed, model.observe(&Here), "{what}: state");
        assert_eq!(outcome.objects, model.objects(&Here, case.operation, expected), "{what}: objects");
        let aborts = match (outcome.forced, force) {
            (Some(true), Force::Signal(times)) => times as u64,
            (Some(true), _) => 1,
            _ => 0,
        };
        assert_eq!(report.restarts, aborts, "{what}: restarts");
        if outcome.forced.is_none() {
            if report.outcome >= 0 {
                visits.costs.insert((case.operation.name(), report.outcome, target - 1));
            }
            return; // the sequence has no such boundary: all were visited
        }
    }
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle_signal(_: i32) {
    HANDLED.fetch_add(1, Relaxed);
}

/// One test at a time: children of two at once would share CPUs and confuse nobody, but take longer to read.
static ONE: Mutex<()> = Mutex::new(());

fn abort_everywhere<I: Index>() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let found = match rseq::probe() {
        Ok(found) if found.has::<I>() => found,
        other => {
            let index = std::any::type_name::<I>();
            let absent = if other.is_ok() { "mm-cid" } else { "rseq" };
            return kit::not_tested(absent, format_args!("aborts of sequences on {index}"), format_args!("{other:?}"));
        }
    };
    rseq::fence::register().expect("membarrier");
    // SAFETY: the handler adds to an atomic only.
    unsafe { libc::signal(libc::SIGUSR1, handle_signal as extern "C" fn(i32) as libc::sighandler_t) };
    let cpus = allowed_cpus();
    let cpu = pin_to_any(0);
    let mut forces = vec![Force::Signal(1), Force::Signal(2), Force::Preemption];
    match cpus.iter().find(|&&other| other != cpu) {
        Some(&other) => forces.push(Force::Migration(other)),
        None => kit::not_tested("second-cpu", "aborts by migration", "one CPU only"),
    }
    let mut visits = Visits::default();
    for case in cases() {
        for &force in &forces {
            run_case::<I>(case, &found, force, &mut visits);
        }
    }

    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut total = 0;
    for (&(name, start), (length, visited)) in &visits.visited {
        let mut expected = boundaries(start, *length);
        let instructions = expected.len();
        expected.insert(start + length); // just after the commit
        assert_eq!(*visited, expected, "{name}: boundaries that were not visited, or are none");
        total += instructions;
        *places.entry(name).or_default() += 1;
    }
    check_documented_costs(&visits);
    let names: BTreeSet<_> = cases().iter().map(|case| case.operation.name()).collect();
    assert_eq!(places.keys().copied().collect::<BTreeSet<_>>(), names);
    assert!(places.values().all(|&places| places == 1), "one place per sequence: {places:?}");
    println!(
        "{}: {} sequences, {total} instructions, {} runs, {} forced aborts",
        std::any::type_name::<I>(),
        names.len(),
        visits.runs,
        visits.aborts
    );
}

/// The table of instructions in the documentation of `rseq::sequence` is what was stepped through.
fn check_documented_costs(visits: &Visits) {
    let mut documented: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for line in include_str!("../../src/sequence/mod.rs").lines().filter_map(|line| line.strip_prefix("//! | [`")) {
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        for pair in cells.chunks_exact(2).filter(|pair| !pair[0].is_empty()) {
            let (once, each) = pair[1].split_once(" + ").unwrap_or((pair[1], "0"));
            let number = |text: &str| text.trim_end_matches(" per object").parse().expect("a number of instructions");
            for name in pair[0].split(", ") {
                documented.insert(name.trim_matches(['[', ']', '`']), (number(once), number(each)));
            }
        }
    }
    let stepped: BTreeSet<&str> = visits.costs.iter().map(|&(name, ..)| name).collect();
    assert_eq!(stepped, documented.keys().copied().collect(), "every sequence has a cost in the documentation");
    for &(name, answer, instructions) in &visits.costs {
        let (once, each) = documented[name];
        let objects = if each == 0 { 0 } else { answer as usize };
        // A batch that ends at a sentinel has loaded and tested it.
        let sentinel = match name {
            "pop_batch" if objects < case::BATCH => 3,
            "push_batch" if objects < case::BATCH => 2,
            _ => 0,
        };
        assert!(
            instructions == once + each * objects || instructions == once + each * objects + sentinel,
            "{name} of {objects} objects: {instructions} instructions, documented are {once} + {each} per object"
        );
    }
}

/// Addresses of the instructions in `start..start + length`, by disassembly.
fn boundaries(start: u64, length: u64) -> BTreeSet<u64> {
    // SAFETY: the code of a sequence of this program.
    let code = unsafe { std::slice::from_raw_parts(start as *const u8, length as usize) };
    let mut decoder = iced_x86::Decoder::with_ip(64, code, start, iced_x86::DecoderOptions::NONE);
    let set =
        decoder.iter().inspect(|instruction| assert!(!instruction.is_invalid())).map(|found| found.ip()).collect();
    assert_eq!(decoder.ip(), start + length, "the sequence ends with an instruction");
    set
}

/// The test must be able to fail: a sequence that goes on after its commit adds twice when it is aborted there.
#[test]
fn a_sequence_that_commits_early_is_caught() {
    let found = match rseq::probe() {
        Ok(found) => found,
        Err(why) => return kit::not_tested("rseq", "a sequence that commits early", why),
    };
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    pin_to_any(0);
    let case = Case { operation: Operation::EarlyCommit, place: Place::Own, filled: 0 };
    let (_, undisturbed) = run_once::<CpuId>(case, &found, usize::MAX, Force::Preemption, &mut Visits::default());
    let (_, aborted) = run_once::<CpuId>(case, &found, 0, Force::Preemption, &mut Visits::default());
    assert_eq!(aborted.report.restarts, 1);
    assert_eq!(aborted.observed, undisturbed.observed, "aborted before its commit it is right");
    let caught =
        std::panic::catch_unwind(|| run_once::<CpuId>(case, &found, 1, Force::Preemption, &mut Visits::default()));
    assert!(caught.is_err(), "aborted after its commit it is not");
}

#[test]
fn every_sequence_by_cpu_id() {
    abort_everywhere::<CpuId>();
}

#[test]
fn every_sequence_by_mm_cid() {
    abort_everywhere::<MmCid>();
}
