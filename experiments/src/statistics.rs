//! Ratios of paired samples, and how sure they are.
//!
//! The process is the unit of replication: one value per block and subject. The ratio of two subjects is the
//! geometric mean of the paired ratios; its interval is the paired t interval of their logarithms. A
//! percentile bootstrap of the median stands beside it as a check. Where the two disagree about the side of
//! 1, nothing is claimed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, StudentsT};

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
    if let Some(twin) = twin.filter(|twin| !twin.holds_one())
        && !ratio.outside(1.0 / twin.reach(), twin.reach())
    {
        return Side::Unclear(Doubt::SameModeDiffers);
    }
    let below = ratio.high < 1.0;
    if (below && median.high >= 1.0) || (!below && median.low <= 1.0) {
        return Side::Unclear(Doubt::MedianDisagrees);
    }
    if below { Side::Below } else { Side::Above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(random: &mut ChaCha8Rng) -> f64 {
        // The sum of twelve uniform numbers has variance 1 and is near enough to normal.
        (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
    }

    fn noisy(random: &mut ChaCha8Rng, n: usize, ratio: f64, deviation: f64) -> Paired {
        let mut one = |mean: f64| (mean.ln() + deviation * normal(random)).exp();
        let pairs: Vec<_> = (0..n).map(|_| (one(100.0), one(100.0 * ratio))).collect();
        Paired::new(&pairs).unwrap()
    }

    #[test]
    fn the_t_interval_has_the_known_width() {
        // Logs 1, 2, 3, 4, 5: mean 3, standard error sqrt(0.5), t(0.975, 4) = 2.776445.
        let pairs: Vec<_> = (1..=5).map(|log| (1.0, f64::from(log).exp())).collect();
        let estimate = Paired::new(&pairs).unwrap().t().unwrap();
        let half = 2.776_445_105 * 0.5f64.sqrt();
        assert!((estimate.ratio.ln() - 3.0).abs() < 1e-9);
        assert!((estimate.low.ln() - (3.0 - half)).abs() < 1e-6);
        assert!((estimate.high.ln() - (3.0 + half)).abs() < 1e-6);
    }

    #[test]
    fn the_interval_covers_the_truth_95_times_in_100() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for n in [5, 10] {
            let covered = (0..4000).filter(|_| noisy(&mut random, n, 1.0, 0.05).t().unwrap().holds_one()).count();
            assert!((3720..=3880).contains(&covered), "n = {n}: {covered} of 4000");
        }
    }

    #[test]
    fn a_planted_slowdown_is_found_and_the_same_mode_is_not() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let twin = noisy(&mut random, 10, 1.0, 0.005);
        let slow = noisy(&mut random, 10, 1.03, 0.005);
        let twin_t = twin.t().unwrap();
        assert_eq!(side(slow.t().unwrap(), slow.median(1).unwrap(), Some(twin_t)), Side::Above);
        assert_eq!(side(twin_t, twin.median(1).unwrap(), Some(twin_t)), Side::Equivalent);
    }

    #[test]
    fn a_difference_no_larger_than_the_same_mode_shows_is_unclear() {
        let estimate = |low: f64, high: f64| Estimate { ratio: (low * high).sqrt(), low, high };
        let slow = estimate(1.02, 1.06);
        assert_eq!(side(slow, slow, Some(estimate(1.03, 1.09))), Side::Unclear(Doubt::SameModeDiffers));
        assert_eq!(side(slow, slow, Some(estimate(0.97, 1.09))), Side::Above);
        assert_eq!(side(slow, estimate(0.99, 1.06), None), Side::Unclear(Doubt::MedianDisagrees));
        assert_eq!(side(estimate(0.9, 1.1), slow, None), Side::Unclear(Doubt::Width));
    }

    #[test]
    fn the_resolution_is_the_one_in_the_tables() {
        // Standard deviation of a log ratio sqrt(2) x 1 %, n = 5: 2.4 %.
        let deviation = 0.01 * 2f64.sqrt();
        let shape = [-1.0, -0.5, 0.0, 0.5, 1.0].map(|x: f64| x / 0.625f64.sqrt() * deviation);
        let pairs = shape.map(|log| (1.0, log.exp()));
        let resolution = Paired::new(&pairs).unwrap().resolution().unwrap();
        assert!((resolution - 0.024).abs() < 0.001, "{resolution}");
    }

    #[test]
    fn equal_pairs_give_an_interval_of_no_width() {
        let paired = Paired::new(&[(2.0, 1.0), (4.0, 2.0), (6.0, 3.0)]).unwrap();
        assert!(paired.t().unwrap().within(0.499_999, 0.500_001));
        assert_eq!(paired.p(), Some(0.0));
    }

    #[test]
    fn zero_has_no_ratio_and_one_pair_no_interval() {
        assert_eq!(Paired::new(&[(0.0, 1.0)]), None);
        assert_eq!(Paired::new(&[(1.0, 2.0)]).unwrap().t(), None);
    }

    #[test]
    fn holm_is_stricter_the_more_is_tested() {
        assert_eq!(holm(&[0.03]), [true]);
        assert_eq!(holm(&[0.03, 0.04]), [false, false]);
        assert_eq!(holm(&[0.01, 0.04]), [true, true]);
    }
}
