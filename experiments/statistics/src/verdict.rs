//! The rule: what an interval allows to be said, and how small a difference the whole of it would find.

use super::estimate::{Estimate, average, chi_squared, quantile};
use super::paired::{Paired, Resampled};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

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
    /// Among so many that were tested, one may look like this by chance.
    Holm,
    /// The clock cannot tell the values apart from each other or from nothing.
    Clock,
    /// Samples of the one that looks better did not end in time, and would be worse than any that did.
    Late,
}

impl Side {
    /// Whether the two differ.
    pub fn decided(self) -> bool {
        matches!(self, Side::Below | Side::Above)
    }
}

/// What a difference has to exceed, and what an equivalence has to stay within, in percent.
const MARGIN: f64 = 0.01;
const EQUIVALENT: f64 = 0.02;

/// Weighs the interval against the A/A interval and the median's. Holm's procedure comes after it, see [`found`].
pub fn side(ratio: Estimate, median: Estimate, twin: Option<Estimate>) -> Side {
    if ratio.within(1.0 - EQUIVALENT, 1.0 + EQUIVALENT) {
        return Side::Equivalent;
    }
    if !ratio.outside(1.0 - MARGIN, 1.0 + MARGIN) {
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

/// The same after Holm's procedure, which kept it or did not.
pub fn found(side: Side, kept: bool) -> Side {
    if side.decided() && !kept { Side::Unclear(Doubt::Holm) } else { side }
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

/// The p value that one more hypothesis beside these may have at most, to fall with them.
pub fn holm_critical(others: &[f64]) -> f64 {
    let mut others = others.to_vec();
    others.sort_by(f64::total_cmp);
    let all = others.len() + 1;
    let threshold = |rank: usize| 0.05 / (all - rank) as f64;
    let before = others.iter().enumerate().take_while(|(rank, p)| **p <= threshold(*rank)).count();
    threshold(before)
}

/// How often the smallest difference is to be found.
const POWER: f64 = 0.8;
/// Resamples of a run's noise.
const RESAMPLES: usize = 400;

/// The smallest difference that the whole rule finds four times out of five, as a share: with pairs as noisy as `noise`,
/// held against the same mode as noisy as `twin`, and with a p value of `critical` at most.
///
/// Each of 400 resamples of both noises needs some difference before every part of the rule is content; 80 % need this
/// one or less. A few pairs may show less noise than there is, so each resample has another spread, of those that the
/// pairs' own leaves possible (the predictive distribution: Geisser, *Predictive Inference*, 1993). None: there is no
/// spread to resample.
pub fn resolution(noise: &Paired, twin: Option<&Paired>, critical: f64, seed: u64) -> Option<f64> {
    let (own, same) = (Noise::of(noise)?, twin.and_then(Noise::of));
    let medians = Resampled::of(noise.n());
    let wanted = quantile(0.975, own.degrees)?;
    let wanted_by_holm = quantile(1.0 - critical / 2.0, own.degrees)?;
    let wanted_of_twin = same.as_ref().and_then(|same| quantile(0.975, same.degrees));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut up, mut down) = (Vec::with_capacity(RESAMPLES), Vec::with_capacity(RESAMPLES));
    for _ in 0..RESAMPLES {
        // One for both: they may be the same pairs, and then have one spread.
        let share = random.random::<f64>();
        let drawn = own.draw(share, &mut random);
        let (mean, error) = (drawn.mean(), drawn.standard_error()?);
        let (half, holm) = (wanted * error, wanted_by_holm * error);
        let mut sorted: Vec<_> = drawn.logs.iter().map(|(_, log)| *log).collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = medians.interval(&sorted);
        // How far the ratio has to be from 1 for the same mode's sake.
        let beyond = match (&same, wanted_of_twin) {
            (Some(same), Some(wanted_of_twin)) => {
                let same = same.draw(share, &mut random);
                let (far, half_of_twin) = (same.mean().abs(), wanted_of_twin * same.standard_error()?);
                far + half_of_twin + if far <= half_of_twin { 0.0 } else { half }
            }
            _ => 0.0,
        };
        for (needed, mean, least, margin, equivalent) in [
            (&mut up, mean, low, (1.0 + MARGIN).ln(), (1.0 + EQUIVALENT).ln()),
            (&mut down, -mean, -high, -(1.0 - MARGIN).ln(), -(1.0 - EQUIVALENT).ln()),
        ] {
            let parts = [margin + half - mean, equivalent - half - mean, holm - mean, beyond - mean, -least];
            needed.push(parts.into_iter().fold(0.0, f64::max));
        }
    }
    let four_in_five = |mut needed: Vec<f64>| {
        needed.sort_by(f64::total_cmp);
        needed[(RESAMPLES as f64 * POWER).ceil() as usize - 1]
    };
    Some(four_in_five(up).max(four_in_five(down)).exp_m1())
}

/// What is left of a comparison without its ratio, to draw from: what layouts add, and what processes add to that. As in
/// Carpenter, Goldstein and Rasbash (Applied Statistics 2003) each is stretched to the spread its level has, for what is
/// left of few values is less than there was.
struct Noise {
    /// The layout of each pair, as an index.
    of: Vec<usize>,
    layouts: Vec<f64>,
    processes: Vec<f64>,
    /// Degrees of freedom of the error of the whole.
    degrees: usize,
}

impl Noise {
    fn of(paired: &Paired) -> Option<Noise> {
        let mut groups: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        paired.logs.iter().for_each(|(layout, log)| groups.entry(*layout).or_default().push(*log));
        let (n, k) = (paired.n(), groups.len());
        if n < 2 {
            return None;
        }
        let index = |layout: &u64| groups.keys().position(|key| key == layout).unwrap_or(0);
        let of: Vec<_> = paired.logs.iter().map(|(layout, _)| index(layout)).collect();
        // One layout, or one for each pair: the levels cannot be told apart and need not be.
        let single = k == 1 || k == n;
        let center = average(&paired.logs.iter().map(|(_, log)| *log).collect::<Vec<_>>());
        let means: Vec<_> = groups.values().map(|logs| if single { center } else { average(logs) }).collect();
        let lost = if single { 1 } else { k };
        let stretch = (n as f64 / (n - lost) as f64).sqrt();
        let processes: Vec<f64> =
            paired.logs.iter().zip(&of).map(|((_, log), of)| (log - means[*of]) * stretch).collect();
        let layouts = if single {
            vec![0.0; k]
        } else {
            let within = processes.iter().map(|value| value * value).sum::<f64>() / n as f64;
            let middle = average(&means);
            let squares: f64 = means.iter().map(|mean| (mean - middle).powi(2)).sum();
            let shared = groups.values().map(|logs| 1.0 / logs.len() as f64).sum::<f64>() / k as f64;
            let between = (squares / (k - 1) as f64 - within * shared).max(0.0);
            let stretch = if squares > 0.0 { (between * k as f64 / squares).sqrt() } else { 0.0 };
            means.iter().map(|mean| (mean - middle) * stretch).collect()
        };
        Some(Noise { of, layouts, processes, degrees: paired.degrees()? })
    }

    /// As many pairs in as many layouts, of a true ratio of 1. Their true spread is one that the pairs' own leaves possible:
    /// so large that this `share` of sets with it would show as little as they did, or less.
    fn draw(&self, share: f64, random: &mut ChaCha8Rng) -> Paired {
        let squares = chi_squared(share, self.degrees as u64).filter(|squares| *squares > 0.0);
        let spread = squares.map_or(1.0, |squares| (self.degrees as f64 / squares).sqrt());
        let mut any = |values: &[f64]| spread * values[random.random_range(0..values.len())];
        let layouts: Vec<_> = self.layouts.iter().map(|_| any(&self.layouts)).collect();
        let pair = |of: &usize| (*of as u64, layouts[*of] + any(&self.processes));
        Paired::of_logs(self.of.iter().map(pair).collect())
    }
}
