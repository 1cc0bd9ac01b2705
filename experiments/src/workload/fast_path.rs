//! E01: one pinned thread, objects of one size, depth after depth.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::order::Order;
use super::windows::{self, Window};
use crate::instrument::Reading;
use crate::measurement::Measurement;
use std::alloc::GlobalAlloc;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// Runs it.
pub fn run<A: GlobalAlloc>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let size = order.get("size_bytes")?;
    let sizes = Sizes::powers(size, size)?;
    let mut slots = vec![null_mut(); order.get("depth")?.max(1) as usize];
    let measure = order.measure()?;
    let cpu = super::team::allowed()?[0];
    super::team::pin(cpu)?;

    let (mut round, mut sums, mut failed) = (0u64, Sums::default(), false);
    let mut work = |rounds: u64| {
        for _ in 0..rounds {
            round += 1;
            let signature = signature(order.seed, 0, round);
            failed |= !fill(allocator, &sizes, &mut slots, signature);
            if failed {
                return;
            }
            sums.add(empty(allocator, &sizes, &mut slots, signature));
        }
    };

    let counting = crate::counters::start();
    // Warm-up, which also finds how many rounds fill a window.
    let (start, length) = (Instant::now(), windows::warmup(measure).max(Duration::from_millis(1)));
    let mut warm_rounds = 0;
    while start.elapsed() < length {
        work(64);
        warm_rounds += 64;
    }
    let warmup = start.elapsed();
    let window = measure.as_secs_f64() / f64::from(windows::COUNT);
    let rounds = ((warm_rounds as f64 * window / warmup.as_secs_f64()) as u64).max(1);

    let before = Reading::take(order.subject);
    let mut recorded = Vec::with_capacity(windows::COUNT as usize);
    for _ in 0..windows::COUNT {
        let start = Instant::now();
        work(rounds);
        recorded.push((rounds, start.elapsed()));
    }
    let change = Reading::take(order.subject).since(&before);
    if let Some(counting) = counting {
        counting.stop();
    }
    if failed {
        return Err("the allocator returned null".into());
    }

    let depth = slots.len() as u64;
    let recorded: Vec<_> = recorded.iter().map(|&(rounds, wall)| Window { pairs: rounds * depth, wall }).collect();
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
    change.describe(&mut measurement);
    Ok(measurement)
}
