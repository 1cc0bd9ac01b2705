//! The middle of what was measured again and again, and how sure it is.

use std::fmt;

/// A median with its 95 % interval by order statistics.
#[derive(Clone, Copy)]
pub struct Estimate {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// Of one value at least.
    pub fn of(mut values: Vec<f64>) -> Estimate {
        values.sort_by(f64::total_cmp);
        // Half a binomial's 95 % width: 1.96 * sqrt(n) / 2 ranks to either side of the median.
        let (middle, half) = (values.len() / 2, (0.98 * (values.len() as f64).sqrt()).ceil() as usize);
        let at = |rank: usize| values[rank.min(values.len() - 1)];
        Estimate { middle: at(middle), low: at(middle.saturating_sub(half)), high: at(middle + half) }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        if f.sign_plus() {
            write!(f, "{:+.precision$} [{:+.precision$}, {:+.precision$}]", self.middle, self.low, self.high)
        } else {
            write!(f, "{:.precision$} [{:.precision$}, {:.precision$}]", self.middle, self.low, self.high)
        }
    }
}
