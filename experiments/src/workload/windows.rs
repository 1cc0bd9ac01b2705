//! Windows of the measured part: a diagnostic of steadiness, never a sample of their own.

use crate::measurement::Measurement;
use perseq_statistics::steady;
use std::time::Duration;

/// Windows in the measured part.
pub const COUNT: u32 = 20;

/// One window.
#[derive(Clone, Copy, Default, Debug)]
pub struct Window {
    /// Pairs allocated and freed in it.
    pub pairs: u64,
    /// Its length: of the turns it is made of, without what lies between them.
    pub wall: Duration,
}

impl Window {
    /// A turn more.
    pub fn add(&mut self, pairs: u64, wall: Duration) {
        (self.pairs, self.wall) = (self.pairs + pairs, self.wall + wall);
    }
}

/// Puts the windows and their sums into `measurement`.
pub fn record(measurement: &mut Measurement, windows: &[Window]) {
    let rate = |window: &Window| {
        let rate = window.pairs as f64 / window.wall.as_secs_f64().max(1e-9);
        // Whole numbers: the digits behind them are noise, and would be a fifth of a row.
        if rate < 1e4 { rate } else { rate.round() }
    };
    measurement.pairs = windows.iter().map(|window| window.pairs).sum();
    measurement.wall_ns = windows.iter().map(|window| window.wall.as_nanos() as u64).sum();
    measurement.windows_pairs_per_s = windows.iter().map(rate).collect();
    measurement.steady = steady(&measurement.windows_pairs_per_s);
}
