//! E08: requests that arrive whether or not the last one is done, and how long they and their allocations take.
//!
//! A request's latency counts from the moment it was due, not from when its thread got round to it, so a thread that
//! was kept waiting shows in every request that waited behind it. The rate does not depend on the mode: it is a share
//! of what the CPUs can do of the work beside the allocations.

use super::objects::{Sizes, Sums, create, destroy, next, signature, words};
use super::order::Order;
use super::team::{Member, Team, allowed};
use super::think::think;
use crate::measurement::{Cache, Measurement};
use hdrhistogram::Histogram;
use std::alloc::GlobalAlloc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One operation in so many is timed.
const TIMED: u64 = 64;
/// Longest time a histogram holds; longer ones count as this.
const LONGEST_NS: u64 = 60_000_000_000;

type Histograms = (Histogram<u64>, Histogram<u64>);

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(order.get("size_min_bytes")?, order.get("size_max_bytes")?)?;
    let most = order.get("objects_per_request")?.max(1);
    let service = Duration::from_micros(order.get("service_us")?.max(1));
    let links = service.as_micros() as u64 * order.links_per_ms() / 1000;
    let cpus = allowed()?.len();
    let threads = order.threads(cpus)?;
    let load = order.get("load_percent")?.clamp(1, 100) as f64 / 100.0;
    let gap_ns = service.as_nanos() as f64 * threads as f64 / (cpus as f64 * load);
    let merged: Mutex<Histograms> = Mutex::new((histogram(), histogram()));
    let warm = order.warmup()?;

    let member = |member: &Member| {
        let mut objects = Vec::with_capacity(most as usize);
        let (mut sums, mut born, mut full) = (Sums::default(), 0u64, true);
        let mut random = signature(order.seed, member.number as u64, 0) | 1;
        let (mut operations, mut requests) = (histogram(), histogram());
        // The kernel may otherwise wake us 50 µs late.
        let slack = nix::sys::prctl::set_timerslack(1);
        member.meet();
        let begin = Instant::now();
        let mut due = begin;
        while member.working() && full {
            due += exponential(&mut random, gap_ns);
            let now = Instant::now();
            if due > now {
                std::thread::sleep(due - now);
            }
            let counts = due >= begin + warm;
            for place in 0..1 + next(&mut random) % most {
                born += 1;
                let (layout, word) = (sizes.layout(place as usize), signature(order.seed, member.number as u64, born));
                let start = born.is_multiple_of(TIMED).then(Instant::now);
                let object = create(allocator, layout, word);
                if let Some(start) = start.filter(|_| counts) {
                    operations.saturating_record(start.elapsed().as_nanos() as u64);
                }
                match object {
                    Some(object) => objects.push((object, layout, word)),
                    None => full = false,
                }
            }
            think(links);
            while let Some((object, layout, word)) = objects.pop() {
                let start = next(&mut random).is_multiple_of(TIMED).then(Instant::now);
                // SAFETY: created above and kept by nobody else.
                sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, object) });
                if let Some(start) = start.filter(|_| counts) {
                    operations.saturating_record(start.elapsed().as_nanos() as u64);
                }
                sums.expected = sums.expected.wrapping_add(words(word));
                member.count.add(1);
            }
            if counts {
                requests.saturating_record(Instant::now().saturating_duration_since(due).as_nanos() as u64);
            }
        }
        let added = merged.lock().map_err(|_| "a thread panicked").and_then(|mut merged| {
            merged.0.add(&operations).and_then(|()| merged.1.add(&requests)).map_err(|_| "a histogram overflowed")
        });
        member.meet();
        member.meet();
        slack.map_err(|error| format!("timer slack: {error}"))?;
        added?;
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team::new(order, threads, 1)?;
    let mut measurement = team.run(member, look)?;
    let ops = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let (operations, requests) = merged.into_inner().map_err(|_| "a thread panicked")?;
    describe(&mut measurement, "operation", &operations);
    describe(&mut measurement, "request", &requests);
    measurement.set("requests_per_s", requests.len() as f64 * 1e9 / measurement.wall_ns as f64);
    measurement.set("links_per_request", links as f64);
    measurement.set("clock_ns", crate::host::clock::overhead_ns());
    Ok(measurement)
}

fn histogram() -> Histogram<u64> {
    // Two digits: a bucket is never wider than 1 % of its value. The bounds are constants that make sense.
    Histogram::new_with_bounds(1, LONGEST_NS, 2).unwrap_or_else(|error| panic!("constant bounds: {error}"))
}

/// A gap between two arrivals, so that they form a Poisson process.
fn exponential(random: &mut u64, mean_ns: f64) -> Duration {
    let uniform = ((next(random) >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    Duration::from_nanos((-uniform.ln() * mean_ns) as u64)
}

/// Puts percentiles and the histogram itself into `measurement`. A percentile nobody could have seen is not given.
fn describe(measurement: &mut Measurement, name: &str, histogram: &Histogram<u64>) {
    const NINES: [(&str, f64, u64); 4] =
        [("p50", 0.5, 100), ("p90", 0.9, 100), ("p99", 0.99, 1_000), ("p999", 0.999, 10_000)];
    for (nine, share, least) in NINES {
        let metric = format!("{name}_{nine}_ns");
        if histogram.len() >= least {
            measurement.set(&metric, histogram.value_at_quantile(share) as f64);
        } else {
            measurement.lack(&metric, &format!("{} values; at least {least} are needed", histogram.len()));
        }
    }
    measurement.set(&format!("{name}_max_ns"), histogram.max() as f64);
    let buckets = histogram.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()));
    measurement.histograms.insert(name.into(), buckets.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_asked_for() {
        let mut random = 7;
        let sum: Duration = (0..20_000).map(|_| exponential(&mut random, 1000.0)).sum();
        let mean = sum.as_nanos() as f64 / 20_000.0;
        assert!((970.0..1030.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_percentile_needs_enough_values() {
        let mut few = histogram();
        (1..=500).for_each(|value| few.saturating_record(value));
        let mut measurement = Measurement::default();
        describe(&mut measurement, "operation", &few);
        let p90 = measurement.metrics["operation_p90_ns"];
        assert!((448.0..=454.0).contains(&p90), "{p90}");
        assert!(measurement.unavailable["operation_p99_ns"].starts_with("500 values"));
        assert_eq!(measurement.histograms["operation"].iter().map(|bucket| bucket.1).sum::<u64>(), 500);
    }
}
