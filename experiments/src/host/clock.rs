//! The monotonic clock: what it is, how fine it is, what reading it costs.

use super::read;
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
    /// Mean time of one reading.
    pub overhead_ns: Known<f64>,
}

/// Nanoseconds of one reading, from a short measurement.
pub fn overhead_ns() -> f64 {
    const READINGS: u32 = 1000;
    let start = Instant::now();
    (0..READINGS).for_each(|_| _ = black_box(Instant::now()));
    start.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

const READINGS: u32 = 20_000;

impl Clock {
    /// Measures it.
    pub fn read() -> Clock {
        let start = Instant::now();
        let (mut least, mut last) = (u64::MAX, start);
        for _ in 0..READINGS {
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
            overhead_ns: Known::is(start.elapsed().as_nanos() as f64 / f64::from(READINGS)),
        }
    }
}
