//! Windows of the measured part: a diagnostic of steadiness, never a sample of their own.

use crate::measurement::Measurement;
use std::time::Duration;

/// Windows in the measured part.
pub const COUNT: u32 = 20;

/// The part of the measured time spent warming up first.
pub fn warmup(measure: Duration) -> Duration {
    measure * 15 / 100
}

/// One window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Pairs allocated and freed in it.
    pub pairs: u64,
    /// Its length.
    pub wall: Duration,
}

/// Puts the windows and their sums into `measurement`.
pub fn record(measurement: &mut Measurement, windows: &[Window]) {
    let rate = |window: &Window| window.pairs as f64 / window.wall.as_secs_f64().max(1e-9);
    measurement.pairs = windows.iter().map(|window| window.pairs).sum();
    measurement.wall_ns = windows.iter().map(|window| window.wall.as_nanos() as u64).sum();
    measurement.windows_pairs_per_s = windows.iter().map(rate).collect();
    measurement.steady = steady(&measurement.windows_pairs_per_s);
}

/// Whether a straight line through the windows changes by less than 2 % of their mean from first to last.
fn steady(rates: &[f64]) -> Option<bool> {
    let n = rates.len() as f64;
    if rates.len() < 5 {
        return None;
    }
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, rates.iter().sum::<f64>() / n);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (x, y) in rates.iter().enumerate() {
        let dx = x as f64 - mean_x;
        xy += dx * (y - mean_y);
        xx += dx * dx;
    }
    Some((xy / xx * (n - 1.0) / mean_y).abs() < 0.02)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_flagged_and_a_plateau_is_not() {
        let flat: Vec<_> = (0..20).map(|i| 100.0 + f64::from(i % 2)).collect();
        let rising: Vec<_> = (0..20).map(|i| 100.0 + f64::from(i)).collect();
        assert_eq!(steady(&flat), Some(true));
        assert_eq!(steady(&rising), Some(false));
        assert_eq!(steady(&flat[..3]), None);
    }
}
