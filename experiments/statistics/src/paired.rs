//! Ratios paired by block, in a model of two levels: a process within a layout of the code.
//!
//! Samples that ran the same copy of the measured loop share what that copy adds or saves, so they are no independent
//! witnesses of the ratio. As in Kalibera and Jones (Rigorous benchmarking in reasonable time, ISMM 2013) the top level
//! decides: the values that count are the means of the layouts, each with the same weight, and the interval is the t
//! interval of those. Their spread has both levels in it, whatever the share of each. Where every pair has a layout of
//! its own, that is the paired t interval of the logarithms. Where all have the same one, it is that as well, and knows
//! nothing of other layouts.

use super::estimate::{Estimate, average, median, quantile, standard_error, units};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};
use statrs::function::factorial::binomial;

/// One pair per block, as logarithms of ratios.
#[derive(Clone, PartialEq, Debug)]
pub struct Paired {
    /// Each pair's logarithm and layout.
    pub(crate) logs: Vec<(u64, f64)>,
    /// The values that are independent of each other: a mean for each layout, or the logarithms if there is but one.
    units: Vec<f64>,
}

impl Paired {
    /// Pairs of `(baseline, value)` that all ran the same code. None if a value is not positive: then there is no ratio.
    pub fn new(pairs: &[(f64, f64)]) -> Option<Paired> {
        let pairs: Vec<_> = pairs.iter().map(|&(base, value)| (0, base, value)).collect();
        Paired::in_layouts(&pairs)
    }

    /// Pairs of `(layout, baseline, value)`. None if a value is not positive.
    pub fn in_layouts(pairs: &[(u64, f64, f64)]) -> Option<Paired> {
        let good = |value: f64| value > 0.0 && value.is_finite();
        let log = |&(layout, base, value): &(u64, f64, f64)| {
            (good(base) && good(value)).then(|| (layout, (value / base).ln()))
        };
        Some(Paired::of_logs(pairs.iter().map(log).collect::<Option<_>>()?))
    }

    /// Pairs of a layout and a logarithm.
    pub(crate) fn of_logs(logs: Vec<(u64, f64)>) -> Paired {
        let units = units(&logs);
        Paired { logs, units }
    }

    /// Pairs.
    pub fn n(&self) -> usize {
        self.logs.len()
    }

    /// Ratio: geometric mean over layouts of geometric means within them.
    pub fn ratio(&self) -> f64 {
        self.mean().exp()
    }

    /// Ratio with its 95 % interval: geometric mean over layouts of geometric means within them. None: fewer than two
    /// independent values.
    pub fn t(&self) -> Option<Estimate> {
        let half = quantile(0.975, self.degrees()?)? * self.standard_error()?;
        let mean = self.mean();
        Some(Estimate { ratio: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
    }

    /// Median ratio over all pairs, with the percentile interval of its bootstrap. The distribution of the median of a
    /// resample is known, so none is drawn. None: fewer than two pairs.
    pub fn median(&self) -> Option<Estimate> {
        let mut logs: Vec<_> = self.logs.iter().map(|(_, log)| *log).collect();
        let middle = (logs.len() > 1).then(|| median(&mut logs))?;
        let (low, high) = Resampled::of(logs.len()).interval(&logs);
        Some(Estimate { ratio: middle.exp(), low: low.exp(), high: high.exp() })
    }

    /// Two-sided p value of "the ratio is 1".
    pub fn p(&self) -> Option<f64> {
        let error = self.standard_error()?;
        if error == 0.0 {
            return Some(if self.mean() == 0.0 { 1.0 } else { 0.0 });
        }
        let t = StudentsT::new(0.0, 1.0, self.degrees()? as f64).ok()?;
        Some(2.0 * t.cdf(-(self.mean() / error).abs()))
    }

    /// The logarithm of the ratio.
    pub(crate) fn mean(&self) -> f64 {
        average(&self.units)
    }

    /// Of that logarithm.
    pub(crate) fn standard_error(&self) -> Option<f64> {
        standard_error(&self.units)
    }

    /// Degrees of freedom of that error.
    pub(crate) fn degrees(&self) -> Option<usize> {
        self.units.len().checked_sub(1).filter(|degrees| *degrees > 0)
    }
}

/// Ratio of two independent sets of `(layout, value)`, `after` to `before`: geometric means, with Welch's interval of the
/// difference of their logarithms. None: fewer than two independent values in one, or a value that is not positive.
pub fn unpaired(before: &[(u64, f64)], after: &[(u64, f64)]) -> Option<Estimate> {
    let logs = |values: &[(u64, f64)]| -> Option<Paired> {
        let pairs: Vec<_> = values.iter().map(|(layout, value)| (*layout, 1.0, *value)).collect();
        Paired::in_layouts(&pairs)
    };
    difference(&logs(before)?, &logs(after)?)
}

/// Ratio of two independent sets of ratios: whether what one run found, another found as well.
pub fn difference(before: &Paired, after: &Paired) -> Option<Estimate> {
    let (a, b) = (before.standard_error()?.powi(2), after.standard_error()?.powi(2));
    let mean = after.mean() - before.mean();
    let half = if a + b == 0.0 {
        0.0
    } else {
        let degrees = |set: &Paired| set.degrees().map(|degrees| degrees as f64);
        let freedom = (a + b).powi(2) / (a * a / degrees(before)? + b * b / degrees(after)?);
        StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975) * (a + b).sqrt()
    };
    Some(Estimate { ratio: mean.exp(), low: (mean - half).exp(), high: (mean + half).exp() })
}

/// How often the median of `n` values, drawn from `n` with replacement, is the mean of two given ones of them.
pub(crate) struct Resampled {
    /// Ranks of the two middle values of a resample, from 0, and how probable they are.
    weights: Vec<(usize, usize, f64)>,
}

impl Resampled {
    /// For so many values, at least one.
    pub(crate) fn of(n: usize) -> Resampled {
        let share = |rank: usize| rank as f64 / n as f64;
        // The value of rank `of` (from 1) in a resample lies at or below the `rank` least of the values.
        let at_most = |of: usize, rank: usize| match rank {
            0 => 0.0,
            rank if rank == n => 1.0,
            rank => Binomial::new(share(rank), n as u64).map_or(f64::NAN, |drawn| drawn.sf(of as u64 - 1)),
        };
        let exactly = |of: usize, rank: usize| at_most(of, rank) - at_most(of, rank - 1);
        if !n.is_multiple_of(2) {
            let middle = n.div_ceil(2);
            return Resampled { weights: (1..=n).map(|rank| (rank - 1, rank - 1, exactly(middle, rank))).collect() };
        }
        let half = n / 2;
        let ways = binomial(n as u64, half as u64);
        let power = |rank: usize| share(rank).powi(half as i32);
        let mut weights = Vec::with_capacity(n * (n + 1) / 2);
        for lower in 1..=n {
            let mut apart = 0.0;
            for upper in lower + 1..=n {
                // Half of the draws at or below the one, and the one among them; the others likewise above.
                let below = power(lower) - power(lower - 1);
                let above = power(n - upper + 1) - power(n - upper);
                weights.push((lower - 1, upper - 1, ways * below * above));
                apart += ways * below * above;
            }
            weights.push((lower - 1, lower - 1, exactly(half, lower) - apart));
        }
        Resampled { weights }
    }

    /// The middle 95 % of the medians of resamples of these sorted values.
    pub(crate) fn interval(&self, sorted: &[f64]) -> (f64, f64) {
        let middle = |&(lower, upper, weight): &(usize, usize, f64)| ((sorted[lower] + sorted[upper]) / 2.0, weight);
        let mut medians: Vec<_> = self.weights.iter().map(middle).collect();
        medians.sort_by(|a, b| a.0.total_cmp(&b.0));
        let first = |medians: &mut dyn Iterator<Item = &(f64, f64)>| {
            let mut sum = 0.0;
            let mut last = f64::NAN;
            for (value, weight) in medians {
                (sum, last) = (sum + weight, *value);
                if sum >= 0.025 {
                    break;
                }
            }
            last
        };
        (first(&mut medians.iter()), first(&mut medians.iter().rev()))
    }
}
