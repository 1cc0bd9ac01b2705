//! Estimates with their intervals, and what they are made of.

use statrs::distribution::{Beta, ChiSquared, ContinuousCDF, StudentsT};
use std::collections::BTreeMap;

/// A ratio, a mean or a difference with its 95 % interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The ratio, or what else is estimated.
    pub ratio: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// Whether the interval holds 1.
    pub fn holds_one(&self) -> bool {
        self.low <= 1.0 && 1.0 <= self.high
    }

    /// Whether the whole interval lies within these bounds.
    pub fn within(&self, low: f64, high: f64) -> bool {
        low <= self.low && self.high <= high
    }

    /// Whether the whole interval lies outside these bounds.
    pub fn outside(&self, low: f64, high: f64) -> bool {
        self.high < low || high < self.low
    }

    /// The bound furthest from 1, as a ratio above 1.
    pub(crate) fn reach(&self) -> f64 {
        self.low.ln().abs().max(self.high.ln().abs()).exp()
    }
}

/// The mean of `(layout, value)` with its t interval: over layouts, of the means within them. None: fewer than two
/// independent values.
pub fn mean(values: &[(u64, f64)]) -> Option<Estimate> {
    let units = units(values);
    let (mean, error) = (average(&units), standard_error(&units)?);
    let half = quantile(0.975, units.len() - 1)? * error;
    Some(Estimate { ratio: mean, low: mean - half, high: mean + half })
}

/// The values that are independent of each other, of some with their layouts: a mean for each layout, or the values if
/// there is but one.
pub(crate) fn units(values: &[(u64, f64)]) -> Vec<f64> {
    let mut layouts: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    values.iter().for_each(|(layout, value)| layouts.entry(*layout).or_default().push(*value));
    match layouts.len() {
        0 | 1 => layouts.into_values().flatten().collect(),
        _ => layouts.values().map(|values| average(values)).collect(),
    }
}

/// The exact 95 % interval of a share of which `count` of `of` were seen (Clopper and Pearson, *Biometrika* 26, 1934). Of
/// none: 0 to 1.
pub fn proportion(count: usize, of: usize) -> (f64, f64) {
    let (seen, unseen) = (count as f64, of.saturating_sub(count) as f64);
    let end = |a: f64, b: f64, share: f64| Beta::new(a, b).map_or(f64::NAN, |beta| beta.inverse_cdf(share));
    let low = if seen == 0.0 { 0.0 } else { end(seen, unseen + 1.0, 0.025) };
    let high = if unseen == 0.0 { 1.0 } else { end(seen + 1.0, unseen, 0.975) };
    (low, high)
}

/// The exact 95 % interval of the mean of a Poisson count. Of none seen: 0 to 3.7, never "none".
pub fn poisson(count: u64) -> (f64, f64) {
    let half = |share: f64, degrees: u64| chi_squared(share, degrees).unwrap_or(f64::NAN) / 2.0;
    (if count == 0 { 0.0 } else { half(0.025, 2 * count) }, half(0.975, 2 * count + 2))
}

/// The middle value. Sorts.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

pub(crate) fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of the mean. None: fewer than two values.
pub(crate) fn standard_error(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let (n, mean) = (values.len() as f64, average(values));
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (n - 1.0) / n).sqrt())
}

/// Of Student's distribution. None: no degree of freedom.
pub(crate) fn quantile(share: f64, degrees: usize) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, degrees as f64).ok()?.inverse_cdf(share))
}

/// Of the chi-squared distribution. None: no degree of freedom.
pub(crate) fn chi_squared(share: f64, degrees: u64) -> Option<f64> {
    Some(ChiSquared::new(degrees as f64).ok()?.inverse_cdf(share))
}
