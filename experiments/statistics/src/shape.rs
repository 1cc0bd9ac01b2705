//! Whether values lie in one heap or in two, and whether they go one way.

use super::estimate::{average, quantile};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Two heaps of values: the means of both, and how many lie in the lower.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Heaps {
    /// Mean of the lower values.
    pub low: f64,
    /// Mean of the upper values.
    pub high: f64,
    /// Values in the lower heap.
    pub lower: usize,
}

/// How much of the spread a split into two heaps may leave. Of 10,000 sets of as many values from one normal
/// distribution, one in a hundred leaves less.
const SETS: usize = 10_000;
const RARE: f64 = 0.01;
/// Heaps nearer than so much, as a share of the lower, are not worth a word.
const APART: f64 = 0.03;

/// The two heaps that positive values lie in, if they do: no heap holds fewer than two, or fewer than a fifth. None: one
/// heap is as good, or there are fewer than six values.
pub fn two_heaps(values: &[f64]) -> Option<Heaps> {
    if values.len() < 6 || values.iter().any(|value| *value <= 0.0) {
        return None;
    }
    let mut logs: Vec<_> = values.iter().map(|value| value.ln()).collect();
    let (left, lower) = split(&mut logs)?;
    let (low, high) = (average(&logs[..lower]).exp(), average(&logs[lower..]).exp());
    (high / low > 1.0 + APART && left < rare(values.len())).then_some(Heaps { low, high, lower })
}

/// The best split of the values, which are sorted: the share of their spread it leaves, and how many lie below.
fn split(values: &mut [f64]) -> Option<(f64, usize)> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let least = 2.max(n.div_ceil(5));
    let mean = average(values);
    let all: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let between = |lower: usize| {
        let (below, above) = values.split_at(lower);
        let apart = average(above) - average(below);
        apart * apart * (lower * (n - lower)) as f64 / n as f64
    };
    let best = (least..=n - least).max_by(|a, b| between(*a).total_cmp(&between(*b)))?;
    (all > 0.0).then(|| (1.0 - between(best) / all, best))
}

/// What a split leaves of one heap in one of a hundred sets.
fn rare(n: usize) -> f64 {
    static KNOWN: Mutex<BTreeMap<usize, f64>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *known.entry(n).or_insert_with(|| {
        let mut random = ChaCha8Rng::seed_from_u64(n as u64);
        let mut left: Vec<_> = (0..SETS)
            .filter_map(|_| {
                let mut values: Vec<_> = (0..n).map(|_| normal(&mut random)).collect();
                Some(split(&mut values)?.0)
            })
            .collect();
        left.sort_by(f64::total_cmp);
        left[(SETS as f64 * RARE) as usize]
    })
}

/// A value of the standard normal distribution.
pub(crate) fn normal(random: &mut ChaCha8Rng) -> f64 {
    Normal::standard().inverse_cdf(random.random::<f64>().max(1e-300))
}

/// A straight line through values that follow each other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trend {
    /// Its change from the first to the last, as a share of their mean.
    pub change: f64,
    /// Half of the 95 % interval of that change.
    pub half: f64,
}

/// The line through `values`, with the error that their own scatter around it leaves it. Values that follow each other may
/// be alike beyond the line; the error is widened by their first correlation, if it is positive. None: fewer than five.
pub fn trend(values: &[f64]) -> Option<Trend> {
    let n = values.len() as f64;
    let mean = average(values);
    if values.len() < 5 || mean <= 0.0 {
        return None;
    }
    let place = |index: usize| index as f64 - (n - 1.0) / 2.0;
    let points = || values.iter().enumerate().map(|(index, value)| (place(index), value - mean));
    let xx: f64 = points().map(|(x, _)| x * x).sum();
    let slope = points().map(|(x, y)| x * y).sum::<f64>() / xx;
    let residuals: Vec<_> = points().map(|(x, y)| y - slope * x).collect();
    let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let products: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let alike = if squares > 0.0 { (products / squares).clamp(0.0, 0.9) } else { 0.0 };
    let degrees = values.len() - 2;
    let error = (squares / degrees as f64 / xx * (1.0 + alike) / (1.0 - alike)).sqrt();
    let scale = (n - 1.0) / mean;
    Some(Trend { change: slope * scale, half: quantile(0.975, degrees)? * error * scale })
}

/// Whether a straight line through rates does not surely change by 2 % of their mean from first to last. Their scatter
/// around the line says how sure. None: too few to say.
pub fn steady(rates: &[f64]) -> Option<bool> {
    const CHANGE: f64 = 0.02;
    trend(rates).map(|trend| trend.change.abs() - trend.half < CHANGE)
}
