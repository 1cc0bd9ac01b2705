//! `perseq selftest`: reasons to believe a run on this host, or not. A run begins with the same checks: E00.
//!
//! Each check runs in fresh processes, like a sample, and has an answer that is known beforehand.

use crate::counters::probe::Pmu;
use crate::experiment::{self, Experiments, Row, Sample};
use crate::failure::{Exit, Failure};
use crate::gate::Watch;
use crate::harness::row::Status;
use crate::harness::sample;
use crate::host::clock::Clock;
use crate::host::limits::Limits;
use crate::host::sequences::Sequences;
use crate::output;
use crate::subject::{Subject, TWINNED};
use crate::validity::{MISSES_CHECK, Outcome, TWIN_CHECK, Validity};
use crate::workload;
use perseq::{Mode, Owner};
use perseq_statistics::{Paired, resolution};
use std::time::Duration;

/// A check: what it found, or why it failed.
type Check = Result<String, String>;

/// Prints a line for each check.
pub fn main(as_json: bool) -> Result<Exit, Failure> {
    let mut listed = Vec::new();
    for validity in checks(Mode::ALL.into()) {
        if !as_json {
            output::print(&format!("{:<30} {}: {}\n", validity.check, validity.status, validity.detail))?;
        }
        listed.push(validity);
    }
    if as_json {
        output::print_json(&listed)?;
    }
    let failed = listed.iter().filter(|validity| validity.status == Outcome::Failed).count();
    if failed > 0 {
        eprintln!("{failed} checks failed: do not believe a run on this host");
        return Ok(Exit::Invalid);
    }
    Ok(Exit::Done)
}

/// Every check, made as it is asked for; those of a mode only for these modes.
pub fn checks(modes: Vec<Mode>) -> impl Iterator<Item = Validity> {
    type Lazy = Box<dyn FnOnce() -> Validity>;
    fn lazily(check: impl Into<String>, ask: impl FnOnce() -> Check + 'static) -> Lazy {
        let check = check.into();
        Box::new(move || match ask() {
            Ok(detail) => Validity { check, status: Outcome::Ok, detail },
            Err(detail) => Validity { check, status: Outcome::Failed, detail },
        })
    }
    let mut all: Vec<Lazy> = vec![
        lazily("clock", clock),
        lazily("known sleep", known_sleep),
        Box::new(counters),
        Box::new(misses),
        Box::new(quiet),
        Box::new(slices),
    ];
    let limits = Limits::read();
    for mode in modes {
        if let Some(detail) = limits.refuse_subject(Subject::Perseq(mode)) {
            all.push(Box::new(move || Validity { check: mode.to_string(), status: Outcome::Unavailable, detail }));
            continue;
        }
        all.push(lazily(format!("{mode}: mode and objects"), move || mode_is_itself(mode)));
        all.push(lazily(format!("{mode}: known objects"), move || known_objects(mode)));
        all.push(lazily(format!("{mode}: preemption"), move || preemption(mode)));
        all.push(lazily(format!("{mode}: signals"), move || signals(mode)));
    }
    all.push(lazily("stranded bytes", stranded));
    all.push(lazily("known order", known_order));
    all.push(Box::new(same_mode_twice));
    all.into_iter().map(|check| check())
}

/// Takes one sample that must count.
fn sample(workload: &str, subject: Subject, parameters: &[(&str, u64)]) -> Result<Row, String> {
    let planned = planned(workload, subject, parameters);
    // A second attempt is kept whatever the gates say: a check is not a measurement.
    counting(sample::take(&Experiments, "selftest", &[&planned], 2).pop().ok_or("no row")?)
}

fn planned(workload: &str, subject: Subject, parameters: &[(&str, u64)]) -> Sample {
    let params = parameters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    experiment::single("selftest", workload, subject, params)
}

/// A row, if it counts.
fn counting(row: Row) -> Result<Row, String> {
    match row.status {
        Status::Ok => Ok(row),
        _ => Err(row.reason.unwrap_or_else(|| "no reason".into())),
    }
}

fn metric(row: &Row, name: &str) -> Result<f64, String> {
    experiment::value(row, name).ok_or_else(|| format!("the worker did not report `{name}`"))
}

fn clock() -> Check {
    let clock = Clock::read();
    let source = clock.source.value.unwrap_or_else(|| "source not known".into());
    match (clock.resolution_ns.value, clock.overhead_ns.value) {
        (Some(step), Some(cost)) if step <= 1000 && cost <= 1000.0 => {
            Ok(format!("{source}, smallest step {step} ns, one reading {cost:.0} ns"))
        }
        (step, cost) => {
            Err(format!("{source}: smallest step {step:?} ns, one reading {cost:?} ns; expected at most 1000 each"))
        }
    }
}

/// The shortest of some: a busy host may wake any of them late, but none early.
fn known_sleep() -> Check {
    const MOST: usize = 20;
    const EXPECTED_MS: std::ops::Range<f64> = 100.0..130.0;
    let mut least = f64::INFINITY;
    for _ in 0..MOST {
        let row = sample("known-sleep", Subject::System, &[("measure_ms", 100)])?;
        least = least.min(row.report.map_or(0, |report| report.measurement.wall_ns) as f64 / 1e6);
        if least < EXPECTED_MS.end {
            break;
        }
    }
    let line = format!("100 ms of sleep measured as {least:.2} ms");
    if EXPECTED_MS.contains(&least) { Ok(line) } else { Err(format!("{line}; expected 100 to 130")) }
}

fn counters() -> Validity {
    let loop_ratio = Pmu::probe().known_loop;
    let (status, detail) = match loop_ratio.value {
        Some(ratio) if (0.99..=1.01).contains(&ratio) => {
            (Outcome::Ok, format!("a known loop counts {ratio:.4} of its instructions"))
        }
        Some(ratio) => {
            (Outcome::Failed, format!("a known loop counts {ratio:.4} of its instructions; expected 0.99 to 1.01"))
        }
        None => (Outcome::Unavailable, loop_ratio.reason.unwrap_or_default()),
    };
    Validity { check: "counters".into(), status, detail }
}

/// Whether misses are counted as they are: without it no claim about caches is made. It fails nothing else.
fn misses() -> Validity {
    let found = Pmu::probe().known_misses;
    let (status, detail) = match found.value {
        Some(ratio) if (0.9..=1.1).contains(&ratio) => {
            (Outcome::Ok, format!("a known loop counts {ratio:.3} of its misses"))
        }
        Some(ratio) => (
            Outcome::Unavailable,
            format!(
                "a known loop counts {ratio:.3} of its misses; expected 0.9 to 1.1, so nothing is claimed of caches"
            ),
        ),
        None => (Outcome::Unavailable, found.reason.unwrap_or_default()),
    };
    Validity { check: MISSES_CHECK.into(), status, detail }
}

/// Load and steal over a moment in which we do nothing. Noise is the gates' business: this fails nothing.
fn quiet() -> Validity {
    let watch = Watch::start();
    std::thread::sleep(Duration::from_millis(500));
    let seen = watch.stop();
    let show = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "not known".to_owned(), |value| format!("{value:.2}{unit}"))
    };
    let share = show(seen.steal_share.map(|share| share * 100.0), " %");
    let load = show(seen.other_load, " CPUs");
    let status = if seen.other_load.is_none() { Outcome::Unavailable } else { Outcome::Ok };
    let noisy = if seen.refusal().is_some() { "; beyond the gates' limits" } else { "" };
    Validity { check: "load and steal".into(), status, detail: format!("others used {load}, stolen {share}{noisy}") }
}

/// Whether the kernel gives a thread that holds a lock more time, for `PERSEQ_SLICE`. It fails nothing.
fn slices() -> Validity {
    let found = Sequences::read().slices;
    let (status, detail) = match found.reason {
        None => (Outcome::Ok, "the kernel gives a thread that asks more time".into()),
        Some(why) => (Outcome::Unavailable, why),
    };
    Validity { check: "slice extensions".into(), status, detail }
}

/// Threads that move freely and share nothing: the mode is proved by [`crate::proof`], the objects by their sums.
fn mode_is_itself(mode: Mode) -> Check {
    let parameters = [
        ("size_min_bytes", 16),
        ("size_max_bytes", 512),
        ("working_set_objects", 64),
        ("think_ns", 2),
        ("rounds_per_yield", 4),
        ("threads_per_cpu", 4),
        ("measure_ms", 200),
    ];
    let row = sample("oversubscription", Subject::Perseq(mode), &parameters)?;
    let report = row.report.ok_or("no report")?;
    let proof = report.mode_proof.ok_or("no proof")?;
    let caches = proof.cpu_caches + proof.cid_caches + proof.thread_caches + proof.shard_caches;
    // On a busy host some get no turn, and then they have no cache.
    let pairs = &report.measurement.per_thread_pairs;
    let (threads, worked) = (pairs.len() as u64, pairs.iter().filter(|pairs| **pairs > 0).count() as u64);
    let last = std::fs::read_to_string("/sys/devices/system/cpu/possible")
        .ok()
        .and_then(|list| list.trim().rsplit('-').next()?.parse::<u64>().ok());
    let line = format!(
        "{} operations through {caches} caches, {} past them, {worked} of {threads} threads; all objects back",
        proof.fast_ops, proof.fallback_ops
    );
    match unlike(mode, caches, worked, last) {
        Some(expected) => Err(format!("{line}; expected {expected}")),
        None => Ok(line),
    }
}

/// What is expected of a mode in place of so many caches, with so many threads that worked on possible CPUs up to `last`.
fn unlike(mode: Mode, caches: u64, worked: u64, last: Option<u64>) -> Option<&'static str> {
    match mode.owner(0) {
        Some(Owner::Cpu(_) | Owner::Cid(_)) if caches == 0 || last.is_some_and(|last| caches > last + 1) => {
            Some("1 cache or more, and at most one for each possible CPU")
        }
        Some(Owner::Thread(_)) if caches != worked || worked < 2 => {
            Some("one cache for each thread that had a turn, and two or more of them")
        }
        _ => None,
    }
}

/// A known number of objects freed into caches: gained plus given back equals freed, to the object.
fn known_objects(mode: Mode) -> Check {
    let (objects, size) = (500.0, 64.0);
    let row =
        sample("known-objects", Subject::Perseq(mode), &[("objects", 500), ("size_bytes", 64), ("measure_ms", 0)])?;
    let (gained, flushed) = (metric(&row, "gained_objects")?, metric(&row, "flushed_objects")?);
    let (by_cache, by_total) = (metric(&row, "cached_bytes_by_cache")?, metric(&row, "cached_bytes_by_total")?);
    let (bytes, live) = (metric(&row, "gained_bytes")?, metric(&row, "live_bytes_while_held")?);
    let line =
        format!("500 of 64 bytes freed: caches gained {gained}, gave back {flushed}; caches hold {by_cache} bytes");
    let expected = if mode.has_caches() { objects } else { 0.0 };
    if gained + flushed != expected || (!mode.has_caches() && gained != 0.0) {
        Err(format!("{line}; expected {expected} together"))
    } else if bytes != gained * size {
        Err(format!("{line}; {gained} objects are not {bytes} bytes"))
    } else if by_cache != by_total {
        Err(format!("{line}; the total says {by_total}"))
    } else if live != objects * size {
        Err(format!("{line}; while held, {live} bytes were live instead of {}", objects * size))
    } else {
        Ok(line)
    }
}

/// Many threads on one CPU with others waking up between them. Lost and doubled objects fail in the worker.
fn preemption(mode: Mode) -> Check {
    let row = sample("preemption", Subject::Perseq(mode), &[("threads", 16), ("disturbers", 4), ("measure_ms", 1000)])?;
    let restarts = metric(&row, "restarts")?;
    let switches = metric(&row, "switches_per_s")?;
    let report = row.report.ok_or("no report")?;
    let ops = report.measurement.ops_alloc + report.measurement.ops_free;
    let seen = match mode.uses_sequences() {
        true if restarts > 0.0 => format!("{restarts} sequences restarted"),
        true => "no restart seen, so the abort path was not exercised".to_owned(),
        _ if restarts > 0.0 => return Err(format!("{restarts} restarts in a mode without sequences")),
        _ => "no sequences to restart".to_owned(),
    };
    Ok(format!("{ops} operations, {switches:.0} switches/s on one CPU, none lost or doubled; {seen}"))
}

/// A signal every 100 us to each thread, wherever it is. Lost and doubled objects fail in the worker.
fn signals(mode: Mode) -> Check {
    let parameters = [("depth", 64), ("signals_per_s", 10_000), ("threads_per_cpu", 2), ("measure_ms", 300)];
    let row = sample("signals", Subject::Perseq(mode), &parameters)?;
    let rate = metric(&row, "signals_per_s_per_thread")?;
    let restarts = metric(&row, "restarts_per_signal");
    let line = match restarts {
        Ok(restarts) => {
            format!("{rate:.0} signals/s to each thread, {restarts:.4} restarts for each; all objects back")
        }
        Err(_) => return Err("no signal was delivered".into()),
    };
    if rate < 100.0 { Err(format!("{line}; expected 10 000/s, at least 100")) } else { Ok(line) }
}

/// Restarts that the allocator counts in one sample under signals, for a second opinion of the kernel's.
pub fn restarts_under_signals() -> Result<u64, String> {
    let parameters = [("depth", 64), ("signals_per_s", 10_000), ("threads_per_cpu", 2), ("measure_ms", 300)];
    let row = sample("signals", TWINNED, &parameters)?;
    let totals = row.report.and_then(|report| report.allocator).ok_or("the worker did not report its totals")?;
    Ok(totals.restarts)
}

/// E04's sum over caches must be the allocator's own total, and idle threads must strand what they hold.
fn stranded() -> Check {
    let parameters = [
        ("fill_bytes", 65536),
        ("fill_rounds", 2),
        ("rounds_per_fill", 1 << 40),
        ("size_min_bytes", 64),
        ("size_max_bytes", 256),
        ("working_set_objects", 16),
        ("threads_per_cpu", 8),
        ("measure_ms", 100),
    ];
    let row = sample("stranded-memory", Subject::Perseq(Mode::PerThread), &parameters)?;
    let (cached, total) = (metric(&row, "cached_bytes")?, metric(&row, "cached_bytes_by_total")?);
    let (stranded, touched) = (metric(&row, "stranded_bytes")?, metric(&row, "caches_touched")?);
    let threads = row.report.ok_or("no report")?.measurement.threads as f64;
    let line = format!("{threads} threads, {touched} caches hold {cached} bytes, {stranded} of them out of reach");
    if cached != total {
        Err(format!("{line}; the allocator's total says {total}"))
    } else if touched != threads || stranded <= 0.0 || stranded >= cached {
        Err(format!("{line}; expected one cache per thread, the sleeping ones' out of reach"))
    } else {
        Ok(line)
    }
}

/// A lock per operation costs more than none, alone and where many threads contend for one CPU. In CPU time and the best of three, so that a busy host does not decide;
/// without optimisation the difference to a lock nobody else wants is too small to ask for.
fn known_order() -> Check {
    let best = |arm: u64, subject: Subject| -> Result<f64, String> {
        let sizes = [("working_set_objects", 64), ("size_min_bytes", 64), ("size_max_bytes", 64)];
        let parameters: Vec<_> = sizes.into_iter().chain([("arm", arm), ("measure_ms", 60)]).collect();
        let once = || metric(&sample("unfavourable", subject, &parameters)?, "cpu_ns_per_pair");
        Ok(once()?.min(once()?).min(once()?))
    };
    let locked: &[&str] = if cfg!(debug_assertions) { &["central"] } else { &["central", "percpu-lock"] };
    let mut line = "CPU time of a pair".to_owned();
    let mut slower = true;
    // The arms of E13: one thread, and four for each CPU that are all bound to the first.
    for (arm, words) in [(1, "one thread"), (3, "many on one CPU")] {
        let free = best(arm, TWINNED)?;
        line += &format!("; {words}: {TWINNED} {free:.1} ns");
        for subject in locked.iter().filter_map(|name| Subject::from_name(name)) {
            let found = best(arm, subject)?;
            line += &format!(", {subject} {found:.1} ns");
            slower &= found > free;
        }
    }
    if slower { Ok(line) } else { Err(format!("{line}; expected every locked mode above {TWINNED}")) }
}

/// Measurements of one mode against itself, at most.
const TWIN_ATTEMPTS: u32 = 5;

/// One mode against itself. A 95 % interval misses the truth once in twenty times, and a moment of noise widens it, so
/// there are further measurements until one is as it should be. What decides in a cell is the cell's own A/A.
fn same_mode_twice() -> Validity {
    let attempts = (0..TWIN_ATTEMPTS).map(|_| twin_measurement().unwrap_or_else(|reason| (Outcome::Failed, reason)));
    let (status, detail) = best_attempt(attempts);
    Validity { check: TWIN_CHECK.into(), status, detail }
}

/// The first attempt that is as it should be, or else that says nothing, or else the last: what drifts drifts each time.
fn best_attempt(attempts: impl Iterator<Item = (Outcome, String)>) -> (Outcome, String) {
    let mut best = (Outcome::Failed, String::new());
    for found in attempts {
        if found.0 == Outcome::Ok {
            return found;
        }
        if best.0 == Outcome::Failed {
            best = found;
        }
    }
    best
}

/// Blocks of the comparison.
const TWIN_BLOCKS: u64 = 16;

/// The resolution, as a share, beyond which the check says nothing: the mode might differ from itself by as much.
const LEAST_RESOLUTION: f64 = 0.2;

fn twin_measurement() -> Result<(Outcome, String), String> {
    let mut planned = planned("fast-path", TWINNED, &[("size_bytes", 64), ("depth", 64), ("measure_ms", 40)]);
    planned.task.turns = workload::turns("fast-path", planned.task.measure());
    let block = |number| -> Result<(f64, f64), String> {
        planned.invocation_seed = number;
        planned.task.addresses = Some(number);
        let rows = sample::take(&Experiments, "selftest", &[&planned, &planned], 2);
        let values: Vec<_> =
            rows.into_iter().map(|row| metric(&counting(row)?, "ns_per_pair")).collect::<Result<_, _>>()?;
        Ok((values[0], values[1]))
    };
    twins(&(0..TWIN_BLOCKS).map(block).collect::<Result<Vec<_>, _>>()?)
}

/// Fails if the 95 % interval lies beyond 5 %. Says nothing if the pairs could not have shown a difference of 20 %.
fn twins(pairs: &[(f64, f64)]) -> Result<(Outcome, String), String> {
    let paired = Paired::new(pairs).ok_or("a time is 0")?;
    let (ratio, resolution) = paired.t().zip(resolution(&paired, Some(&paired), 0.05, 1)).ok_or("too few pairs")?;
    let line = format!(
        "{TWINNED} against itself: {:.3} [{:.3} to {:.3}], resolution {:.1} %",
        ratio.ratio,
        ratio.low,
        ratio.high,
        resolution * 100.0
    );
    Ok(if ratio.outside(0.95, 1.05) {
        (Outcome::Failed, format!("{line}; the host drifts"))
    } else if resolution > LEAST_RESOLUTION {
        let expected = format!("expected {:.0} % or better", LEAST_RESOLUTION * 100.0);
        (Outcome::Unavailable, format!("{line}; {expected}: the host is too noisy to say"))
    } else {
        (Outcome::Ok, line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_as_many_as_their_owners_that_had_a_turn() {
        let fits = |mode, caches, worked| unlike(mode, caches, worked, Some(3)).is_none();
        for mode in [Mode::PerThread, Mode::PerThreadDrain] {
            assert!(fits(mode, 8, 8) && fits(mode, 7, 7), "one of eight had no turn");
            assert!(!fits(mode, 7, 8) && !fits(mode, 8, 7) && !fits(mode, 1, 1) && !fits(mode, 0, 0));
        }
        assert!(
            fits(Mode::PerCpu, 1, 8)
                && fits(Mode::PerCpu, 4, 8)
                && !fits(Mode::PerCpu, 0, 8)
                && !fits(Mode::PerCpu, 5, 8)
        );
        assert!(unlike(Mode::PerCpu, 5, 8, None).is_none(), "nobody says how many CPUs there are");
        assert!(fits(Mode::Central, 0, 8));
    }

    #[test]
    fn a_drift_that_is_not_there_each_time_is_noise() {
        use Outcome::{Failed, Ok, Unavailable};
        let best = |found: &[Outcome]| {
            best_attempt(found.iter().enumerate().map(|(index, outcome)| (*outcome, index.to_string())))
        };
        assert_eq!(best(&[Failed, Unavailable, Ok, Failed]), (Ok, "2".into()));
        assert_eq!(best(&[Unavailable, Failed, Unavailable, Failed]), (Unavailable, "0".into()));
        assert_eq!(best(&[Failed, Failed, Failed]), (Failed, "2".into()));
    }

    #[test]
    fn a_twin_that_drifts_or_cannot_be_resolved_is_not_ok() {
        let twins = |ratios: [f64; 6]| twins(&ratios.map(|ratio| (10.0, 10.0 * ratio))).unwrap();
        assert_eq!(twins([1.0, 1.01, 0.99, 1.0, 1.01, 0.99]).0, Outcome::Ok);
        let (status, detail) = twins([1.1, 1.11, 1.09, 1.1, 1.11, 1.09]);
        assert!(status == Outcome::Failed && detail.contains("drifts"), "{detail}");
        // The interval holds 1, and would hold nearly anything.
        let (status, detail) = twins([1.0, 2.0, 0.5, 1.0, 2.0, 0.5]);
        assert!(status == Outcome::Unavailable && detail.contains("expected 20 % or better"), "{detail}");
    }
}
