//! E11: small objects, then few, then large ones, then few again, while every tier's bytes are recorded.

use super::objects::{Sizes, Sums, create, destroy, next, signature, words};
use super::order::Order;
use super::team::{Member, Team, allowed};
use crate::measurement::{Cache, Measurement};
use crate::subject::Subject;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Shares of the time at which a phase ends: small objects, few of them, large ones, few of them.
const ENDS: [f64; 4] = [0.35, 0.5, 0.85, 1.0];
/// Part of the live bytes that is left in the second and the last phase.
const FEW: u64 = 10;
/// Recorded moments.
const MOMENTS: u32 = 100;
/// The tiers from the program's own bytes downwards, as series are called.
const TIERS: [&str; 5] = ["live", "caches", "transfer", "spans", "free_pages"];

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let mixes = [
        Sizes::powers(order.get("small_min_bytes")?, order.get("small_max_bytes")?)?,
        Sizes::powers(order.get("large_min_bytes")?, order.get("large_max_bytes")?)?,
    ];
    let threads = order.threads(allowed()?.len())?;
    let target = order.get("live_bytes")? / threads as u64;
    let measure = order.measure()?;
    let all = measure + order.warmup()?;
    let (ops, moments) = (AtomicU64::new(0), Mutex::new(Vec::new()));

    let work = |member: &Member| {
        let mut held: Vec<(*mut u8, Layout, u64)> = Vec::new();
        let (mut sums, mut live, mut born) = (Sums::default(), 0u64, 0u64);
        let mut random = signature(order.seed, member.number as u64, 0) | 1;
        let mut full = true;
        let mut drop_one = |held: &mut Vec<(*mut u8, Layout, u64)>, at: usize, live: &mut u64| {
            let (object, layout, word) = held.swap_remove(at);
            // SAFETY: created below, and held by us alone.
            sums.found = sums.found.wrapping_add(unsafe { destroy(allocator, layout, object) });
            sums.expected = sums.expected.wrapping_add(words(word));
            *live -= layout.size() as u64;
        };
        let start = Instant::now();
        while member.working() && full {
            let phase = phase(start.elapsed(), all);
            let (mix, goal) = (&mixes[phase / 2], if phase.is_multiple_of(2) { target } else { target / FEW });
            for _ in 0..64 {
                // One is exchanged; one more goes or comes until the goal is reached.
                if !held.is_empty() && live >= goal {
                    let at = next(&mut random) as usize % held.len();
                    drop_one(&mut held, at, &mut live);
                }
                if live < goal {
                    born += 1;
                    let layout = mix.layout(next(&mut random) as usize);
                    let word = signature(order.seed, member.number as u64, born);
                    match create(allocator, layout, word) {
                        Some(object) => held.push((object, layout, word)),
                        None => full = false,
                    }
                    live += layout.size() as u64;
                }
            }
            member.count.add(64);
            std::thread::yield_now();
        }
        while let Some(last) = held.len().checked_sub(1) {
            drop_one(&mut held, last, &mut live);
        }
        ops.fetch_add(born, Relaxed);
        if full { Ok(sums) } else { Err("the allocator returned null".into()) }
    };
    let record = |member: &Member| {
        let start = Instant::now();
        let mut seen = Vec::with_capacity(MOMENTS as usize * 2);
        while member.working() {
            std::thread::sleep(all / MOMENTS);
            seen.push((start.elapsed().as_nanos() as u64, Moment::take(order.subject)));
        }
        if let Ok(mut moments) = moments.lock() {
            *moments = seen;
        }
        Ok(Sums::default())
    };
    let member = |member: &Member| {
        member.meet();
        let outcome = if member.number < threads { work(member) } else { record(member) };
        member.meet();
        member.meet();
        outcome
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team { measure, ..Team::new(order, threads + 1, 1)? };
    let mut measurement = team.run(member, look)?;
    measurement.threads = threads as u64;
    measurement.per_thread_pairs.truncate(threads);
    let ops = ops.into_inner();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    let moments = moments.into_inner().map_err(|_| "a thread panicked")?;
    describe(&mut measurement, order.subject, &moments)?;
    Ok(measurement)
}

fn phase(elapsed: Duration, all: Duration) -> usize {
    let share = elapsed.as_secs_f64() / all.as_secs_f64();
    ENDS.iter().position(|end| share < *end).unwrap_or(ENDS.len() - 1)
}

/// Bytes at one moment.
struct Moment {
    tiers: Option<[u64; TIERS.len()]>,
    rss: Option<u64>,
}

impl Moment {
    fn take(subject: Subject) -> Moment {
        let tiers = matches!(subject, Subject::Perseq(_)).then(|| {
            let stats = perseq::stats();
            let live = stats.live_small_bytes + stats.live_large_bytes;
            [live, stats.cached_bytes, stats.transfer_bytes, stats.central_bytes, stats.free_page_bytes]
        });
        Moment { tiers, rss: crate::memory::statm_bytes().ok().map(|(_, resident)| resident) }
    }
}

fn describe(measurement: &mut Measurement, subject: Subject, moments: &[(u64, Moment)]) -> Result<(), String> {
    let rss: Vec<_> = moments.iter().filter_map(|(at, moment)| Some((*at, moment.rss?))).collect();
    let mean = |values: &[u64]| values.iter().sum::<u64>() as f64 / values.len().max(1) as f64;
    let most = |values: &[u64]| values.iter().copied().max().unwrap_or(0) as f64;
    let resident: Vec<_> = rss.iter().map(|(_, bytes)| *bytes).collect();
    measurement.set("rss_peak_bytes", most(&resident));
    measurement.set("rss_mean_bytes", mean(&resident));
    measurement.series.insert("rss".into(), rss);
    let Subject::Perseq(_) = subject else {
        for metric in ["footprint_peak_bytes", "footprint_mean_bytes", "cached_mean_bytes", "span_waste_percent"] {
            measurement.lack(metric, "only perseq reports its tiers");
        }
        return Ok(());
    };
    let tiers: Vec<_> = moments.iter().filter_map(|(at, moment)| Some((*at, moment.tiers?))).collect();
    for (tier, name) in TIERS.iter().enumerate() {
        measurement.series.insert((*name).into(), tiers.iter().map(|(at, bytes)| (*at, bytes[tier])).collect());
    }
    let footprint: Vec<u64> = tiers.iter().map(|(_, bytes)| bytes.iter().sum()).collect();
    let cached: Vec<u64> = tiers.iter().map(|(_, bytes)| bytes[1]).collect();
    measurement.set("footprint_peak_bytes", most(&footprint));
    measurement.set("footprint_mean_bytes", mean(&footprint));
    measurement.set("cached_mean_bytes", mean(&cached));
    let fullest = tiers.iter().map(|(_, bytes)| bytes).max_by_key(|bytes| bytes[0]).ok_or("no moment was recorded")?;
    let spans: u64 = fullest[..4].iter().sum();
    measurement.set("span_waste_percent", 100.0 * fullest[3] as f64 / spans.max(1) as f64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_one_another_and_the_last_stays() {
        let at = |ms: u64| phase(Duration::from_millis(ms), Duration::from_millis(1000));
        assert_eq!([at(0), at(349), at(350), at(500), at(850), at(2000)], [0, 0, 1, 2, 3, 3]);
    }
}
