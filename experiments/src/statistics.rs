//! Ratios of paired samples, and how sure they are.
//!
//! The process is the unit of replication: one value per block and subject. The ratio of two subjects is the
//! geometric mean of the paired ratios; its interval is the paired t interval of their logarithms. A
//! percentile bootstrap of the median stands beside it as a check. Where the two disagree about the side of
//! 1, nothing is claimed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};

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
    fn reach(&self) -> f64 {
        self.low.ln().abs().max(self.high.ln().abs()).exp()
    }
}

/// One pair per block, as logarithms of ratios.
#[derive(Clone, PartialEq, Debug)]
pub struct Paired {
    logs: Vec<f64>,
}

impl Paired {
    /// Pairs of `(baseline, value)`. None if a value is not positive: then there is no ratio.
    pub fn new(pairs: &[(f64, f64)]) -> Option<Paired> {
        let good = |value: f64| value > 0.0 && value.is_finite();
        let log = |&(base, value): &(f64, f64)| (good(base) && good(value)).then(|| (value / base).ln());
        Some(Paired { logs: pairs.iter().map(log).collect::<Option<_>>()? })
    }

    /// Pairs.
    pub fn n(&self) -> usize {
        self.logs.len()
    }

    /// Geometric mean ratio with its paired t interval. None: fewer than two pairs.
    pub fn t(&self) -> Option<Estimate> {
        let half = self.quantile(0.975)? * self.standard_error()?;
        let mean = self.mean();
        Some(Estimate { ratio: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
    }

    /// Median ratio with a percentile bootstrap interval. None: fewer than two pairs.
    pub fn median(&self, seed: u64) -> Option<Estimate> {
        const RESAMPLES: usize = 2000;
        if self.n() < 2 {
            return None;
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut sample = vec![0.0; self.n()];
        let mut medians: Vec<_> = (0..RESAMPLES)
            .map(|_| {
                sample.iter_mut().for_each(|value| *value = self.logs[random.random_range(0..self.n())]);
                median(&mut sample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share).round() as usize];
        let middle = median(&mut self.logs.clone());
        Some(Estimate { ratio: middle.exp(), low: at(0.025).exp(), high: at(0.975).exp() })
    }

    /// The smallest difference that as many pairs with as much noise find four times out of five, as a share.
    pub fn resolution(&self) -> Option<f64> {
        let quantiles = self.quantile(0.975)? + self.quantile(0.8)?;
        Some((quantiles * self.standard_error()?).exp() - 1.0)
    }

    /// Two-sided p value of "the ratio is 1".
    pub fn p(&self) -> Option<f64> {
        let error = self.standard_error()?;
        if error == 0.0 {
            return Some(if self.mean() == 0.0 { 1.0 } else { 0.0 });
        }
        let t = StudentsT::new(0.0, 1.0, (self.n() - 1) as f64).ok()?;
        Some(2.0 * t.cdf(-(self.mean() / error).abs()))
    }

    fn mean(&self) -> f64 {
        self.logs.iter().sum::<f64>() / self.n() as f64
    }

    fn standard_error(&self) -> Option<f64> {
        if self.n() < 2 {
            return None;
        }
        let (n, mean) = (self.n() as f64, self.mean());
        let squares: f64 = self.logs.iter().map(|log| (log - mean).powi(2)).sum();
        Some((squares / (n - 1.0) / n).sqrt())
    }

    fn quantile(&self, share: f64) -> Option<f64> {
        Some(StudentsT::new(0.0, 1.0, self.n().checked_sub(1)? as f64).ok()?.inverse_cdf(share))
    }
}

/// The mean with its t interval. None: fewer than two values.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    let spread = Paired { logs: values.to_vec() };
    let (mean, half) = (spread.mean(), spread.quantile(0.975)? * spread.standard_error()?);
    Some(Estimate { ratio: mean, low: mean - half, high: mean + half })
}

/// The exact 95 % interval of the mean of a Poisson count. Of none seen: 0 to 3.7, never "none".
pub fn poisson(count: u64) -> (f64, f64) {
    let half =
        |share: f64, degrees: u64| ChiSquared::new(degrees as f64).map_or(f64::NAN, |chi| chi.inverse_cdf(share) / 2.0);
    (if count == 0 { 0.0 } else { half(0.025, 2 * count) }, half(0.975, 2 * count + 2))
}

/// Ratio of two independent sets of values, `after` to `before`: geometric means, with Welch's interval of the difference of
/// their logarithms. None: fewer than two values in one, or a value that is not positive.
pub fn unpaired(before: &[f64], after: &[f64]) -> Option<Estimate> {
    let logs = |values: &[f64]| -> Option<Paired> {
        let pairs: Vec<_> = values.iter().map(|value| (1.0, *value)).collect();
        Paired::new(&pairs)
    };
    let (before, after) = (logs(before)?, logs(after)?);
    difference(&before, &after)
}

/// Ratio of two independent sets of ratios: whether what one run found, another found as well.
pub fn difference(before: &Paired, after: &Paired) -> Option<Estimate> {
    let (a, b) = (before.standard_error()?.powi(2), after.standard_error()?.powi(2));
    let mean = after.mean() - before.mean();
    let half = if a + b == 0.0 {
        0.0
    } else {
        let degrees = |set: &Paired| (set.n() - 1) as f64;
        let freedom = (a + b).powi(2) / (a * a / degrees(before) + b * b / degrees(after));
        StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975) * (a + b).sqrt()
    };
    Some(Estimate { ratio: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
}

/// The middle value. Sorts.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// Holm's procedure at 5 %: which of these hypotheses fall although so many were tested.
pub fn holm(p: &[f64]) -> Vec<bool> {
    let mut order: Vec<_> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut rejected = vec![false; p.len()];
    for (rank, &index) in order.iter().enumerate() {
        if p[index] > 0.05 / (p.len() - rank) as f64 {
            break;
        }
        rejected[index] = true;
    }
    rejected
}

/// What an interval allows to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Wholly below 0.99.
    Below,
    /// Wholly above 1.01.
    Above,
    /// Wholly within 0.98 and 1.02.
    Equivalent,
    /// None of these.
    Unclear(Doubt),
}

/// Why nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The interval is too wide for either word.
    Width,
    /// Two runs of the same mode differ as much.
    SameModeDiffers,
    /// The median is on the other side of 1, or not clearly on this one.
    MedianDisagrees,
}

/// Weighs the interval against the A/A interval and the median's.
pub fn side(ratio: Estimate, median: Estimate, twin: Option<Estimate>) -> Side {
    if ratio.within(0.98, 1.02) {
        return Side::Equivalent;
    }
    if !ratio.outside(0.99, 1.01) {
        return Side::Unclear(Doubt::Width);
    }
    if let Some(twin) = twin {
        // The same mode may have been this far from itself: what is no farther is no difference. If it surely was not
        // itself, not even a part of the interval may reach so far.
        let same = Estimate { ratio: 1.0, low: 1.0 / twin.reach(), high: twin.reach() };
        let beyond = if twin.holds_one() {
            ratio.ratio < same.low || same.high < ratio.ratio
        } else {
            ratio.outside(same.low, same.high)
        };
        if !beyond {
            return Side::Unclear(Doubt::SameModeDiffers);
        }
    }
    let below = ratio.high < 1.0;
    if (below && median.high >= 1.0) || (!below && median.low <= 1.0) {
        return Side::Unclear(Doubt::MedianDisagrees);
    }
    if below { Side::Below } else { Side::Above }
}

#[cfg(test)]
mod tests;
