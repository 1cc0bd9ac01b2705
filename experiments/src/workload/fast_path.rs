//! E01: one pinned thread, objects of one size, depth after depth.

use super::objects::Sizes;
use super::order::Order;
use super::team::thread_ns;
use super::windows::{self, Window};
use super::working_set::{Shares, WorkingSet, floor_length};
use crate::instrument::Part;
use crate::measurement::Measurement;
use std::alloc::GlobalAlloc;
use std::time::{Duration, Instant};

/// Pairs between two looks at the clock.
const BATCH: u64 = 4096;

/// Runs it.
pub fn run<A: GlobalAlloc>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let size = order.get("size_bytes")?;
    let sizes = Sizes::powers(size, size)?;
    let depth = order.get("depth")?.max(1);
    let measure = order.measure()?;
    let cpu = super::team::allowed()?[0];
    super::team::pin(cpu)?;
    let mut set = WorkingSet::new(allocator, order, &sizes, depth as usize, 0);
    let batch = (BATCH / depth).max(1);
    let floor = set.floor(floor_length(measure, 1, 1), batch, || ())?;

    let counting = crate::counters::start();
    // Warm-up, which also finds how many batches fill a window.
    let (start, length) = (Instant::now(), order.warmup()?.max(Duration::from_millis(1)));
    let mut warm_batches = 0;
    while start.elapsed() < length && set.run(batch) {
        warm_batches += 1;
    }
    let warmup = start.elapsed();
    let turns = order.turns();
    let turn = measure.as_secs_f64() / f64::from(windows::COUNT) / turns.of_window() as f64;
    let batches = ((f64::from(warm_batches) * turn / warmup.as_secs_f64()) as u64).max(1);
    let lead = turns.lead(batches);
    turns.pass()?;
    let (before_ns, before_rounds) = (thread_ns()?, set.made());

    let part = Part::begin(order.subject);
    let mut recorded = [Window::default(); windows::COUNT as usize];
    for window in &mut recorded {
        for _ in 0..turns.of_window() {
            let led = (0..lead).all(|_| set.run(batch));
            let start = Instant::now();
            let full = led && (0..batches).all(|_| set.run(batch));
            window.add(batches * batch * depth, start.elapsed());
            turns.pass()?;
            if !full {
                set.sums()?; // says why
            }
        }
    }
    let change = part.end();
    if let Some(counting) = counting {
        counting.stop();
    }
    let shares = Shares::default();
    shares.add((set.made() - before_rounds) * depth, thread_ns()? - before_ns, floor);
    let (sums, round) = (set.sums()?, set.made());
    let mut measurement = Measurement {
        threads: 1,
        ops_alloc: round * depth,
        ops_free: round * depth,
        warmup_ns: warmup.as_nanos() as u64,
        per_thread_pairs: vec![round * depth],
        checksum: sums.found,
        checksum_expected: sums.expected,
        ..Measurement::default()
    };
    windows::record(&mut measurement, &recorded);
    measurement.set("ns_per_pair", measurement.wall_ns as f64 / measurement.pairs as f64);
    shares.describe(&mut measurement);
    change.describe(&mut measurement, (round - before_rounds) * depth);
    Ok(measurement)
}
