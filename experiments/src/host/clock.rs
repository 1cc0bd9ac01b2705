//! The monotonic clock: what it is, how fine it is, what reading it costs.

use crate::host_file::read;
use crate::known::Known;
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// The clock.
#[derive(Debug, Serialize)]
pub struct Clock {
    /// The kernel's clock source.
    pub source: Known<String>,
    /// The smallest step seen between two readings.
    pub resolution_ns: Known<u64>,
    /// Time of one reading when nothing disturbs it.
    pub overhead_ns: Known<f64>,
}

/// Readings in a batch.
const READINGS: u32 = 1000;
/// Batches: the best counts, since a busy host interrupts some of them.
const BATCHES: u32 = 20;

/// Nanoseconds of one reading: the least over some batches.
pub fn overhead_ns() -> f64 {
    let batch = || {
        let start = Instant::now();
        (0..READINGS).for_each(|_| _ = black_box(Instant::now()));
        start.elapsed().as_nanos() as f64 / f64::from(READINGS)
    };
    (0..BATCHES).map(|_| batch()).fold(f64::INFINITY, f64::min)
}

impl Clock {
    /// Measures it.
    pub fn read() -> Clock {
        let (mut least, mut last) = (u64::MAX, Instant::now());
        for _ in 0..READINGS * BATCHES {
            let now = black_box(Instant::now());
            let step = (now - last).as_nanos() as u64;
            if step > 0 {
                least = least.min(step);
            }
            last = now;
        }
        let resolution = (least < u64::MAX).then_some(least).ok_or("the clock did not move");
        Clock {
            source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            resolution_ns: Known::from(resolution),
            overhead_ns: Known::is(overhead_ns()),
        }
    }
}
