//! Simulations of what the intervals and the rule promise. `TIMES` has more of each:
//!
//! ```text
//! TIMES=20 cargo test --profile optimized -p perseq-statistics simulation -- --nocapture
//! ```

use super::shape::normal;
use super::*;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A noise model: the logarithm of one measured value, less that of its true one.
type Noise = fn(&mut ChaCha8Rng) -> f64;

/// The models of one level, and the coverage each may have: 93 to 97 %, and more in two cases. With two modes and n = 5
/// the truth is 97.3 %. With outliers the t interval is too wide at every n, 97 to 98 %: one of them widens
/// it more than it moves it. It errs on the side of saying nothing; it is nowhere narrow.
const MODELS: [(&str, Noise, [f64; 2]); 5] = [
    ("normal, 1 %", |random| 0.01 * normal(random), [0.93, 0.97]),
    ("normal, 5 %", |random| 0.05 * normal(random), [0.93, 0.97]),
    ("lognormal, skewed", |random| 0.05 * (0.5 * normal(random)).exp(), [0.93, 0.97]),
    (
        "two modes, 30 to 70",
        |random| 0.01 * normal(random) + if random.random_bool(0.3) { 0.1 } else { 0.0 },
        [0.93, 0.975],
    ),
    (
        "one in ten an outlier",
        |random| {
            let tail = if random.random_bool(0.1) { -0.2 * random.random::<f64>().max(1e-12).ln() } else { 0.0 };
            0.02 * normal(random) + tail
        },
        [0.93, 0.99],
    ),
];

/// An experiment of one cell: blocks, copies of the loop they are spread over, and what noise each level has, as the
/// standard deviation of a logarithm.
#[derive(Clone, Copy)]
struct Design {
    blocks: usize,
    copies: usize,
    layout: f64,
    process: f64,
}

impl Design {
    /// The copy of each block: from a shuffled deck, as a plan deals them.
    fn deal(&self, random: &mut ChaCha8Rng) -> Vec<u64> {
        let mut deck: Vec<_> = (0..self.blocks).map(|block| (block % self.copies) as u64).collect();
        deck.shuffle(random);
        deck
    }

    /// A comparison whose true ratio is `ratio`: what a copy adds differs between two modes, and is new in each cell.
    fn compare(&self, random: &mut ChaCha8Rng, ratio: f64) -> Paired {
        let layouts: Vec<_> = (0..self.copies).map(|_| self.layout * normal(random)).collect();
        self.pairs(random, ratio, &layouts)
    }

    /// One mode against itself: the same copy is the same code, so layouts add nothing.
    fn twin(&self, random: &mut ChaCha8Rng, ratio: f64) -> Paired {
        self.pairs(random, ratio, &vec![0.0; self.copies])
    }

    fn pairs(&self, random: &mut ChaCha8Rng, ratio: f64, layouts: &[f64]) -> Paired {
        let mut pairs = Vec::with_capacity(self.blocks);
        for layout in self.deal(random) {
            let mut process = || (self.process * normal(random)).exp();
            pairs.push((layout, process(), ratio * layouts[layout as usize].exp() * process()));
        }
        Paired::in_layouts(&pairs).unwrap()
    }

    /// What the whole rule says, in a family where a p value of `critical` stands.
    fn judge(&self, random: &mut ChaCha8Rng, paired: &Paired, critical: f64) -> Side {
        let twin = self.twin(random, 1.0).t();
        let side = side(paired.t().unwrap(), paired.median().unwrap(), twin);
        found(side, paired.p().unwrap() <= critical)
    }
}

/// Designs with both levels: none, some and much of the noise is the layout's.
const DESIGNS: [(&str, Design); 8] = [
    ("one copy for each block", Design { blocks: 10, copies: 10, layout: 0.05, process: 0.02 }),
    ("layouts add nothing", Design { blocks: 10, copies: 5, layout: 0.0, process: 0.02 }),
    ("as much as processes", Design { blocks: 10, copies: 5, layout: 0.02, process: 0.02 }),
    ("most of the noise", Design { blocks: 30, copies: 6, layout: 0.1, process: 0.02 }),
    ("some copies twice", Design { blocks: 10, copies: 8, layout: 0.02, process: 0.02 }),
    // What `standard` has: E01 and E02, the other loops that have copies, and E04, which has one.
    ("standard, half of the copies twice", Design { blocks: 48, copies: 32, layout: 0.05, process: 0.1 }),
    ("standard, one copy for each block", Design { blocks: 32, copies: 32, layout: 0.05, process: 0.1 }),
    ("standard, one copy", Design { blocks: 16, copies: 1, layout: 0.0, process: 0.05 }),
];

fn simulated(random: &mut ChaCha8Rng, n: usize, ratio: f64, noise: Noise) -> Paired {
    let pairs: Vec<_> = (0..n).map(|_| ((noise(random)).exp(), ratio * (noise(random)).exp())).collect();
    Paired::new(&pairs).unwrap()
}

/// How many times as many trials as usual, if that was asked for.
fn times() -> Option<usize> {
    Some(std::env::var("TIMES").ok()?.parse().expect("TIMES: a whole number"))
}

/// How many trials, where so many are usual.
fn trials(usual: usize) -> usize {
    usual * times().unwrap_or(1)
}

fn coverage_of_one_level(trials: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (model, noise, [least, most]) in MODELS {
        for n in [5, 10, 15, 30] {
            let covers = |_: &usize| simulated(&mut random, n, 1.0, noise).t().unwrap().holds_one();
            let covered = (0..trials).filter(covers).count() as f64 / trials as f64;
            println!("{model}, n = {n}: {:.1} %", 100.0 * covered);
            assert!((least..=most).contains(&covered), "{model}, n = {n}: {covered}");
        }
    }
}

/// Coverage of the interval, and of the one that takes blocks that share a copy for independent.
fn coverage_of_two_levels(trials: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for (model, design) in DESIGNS {
        let (mut covered, mut covered_by_one) = (0, 0);
        for _ in 0..trials {
            let paired = design.compare(&mut random, 1.0);
            covered += usize::from(paired.t().unwrap().holds_one());
            let level = Paired::of_logs(paired.logs.iter().map(|(_, log)| (0, *log)).collect());
            covered_by_one += usize::from(level.t().unwrap().holds_one());
        }
        let share = |covered: usize| covered as f64 / trials as f64;
        let [two, one] = [covered, covered_by_one].map(share);
        println!("{model}, {design}: two levels {:.1} %, one level {:.1} %", 100.0 * two, 100.0 * one);
        assert!((0.93..=0.97).contains(&two), "{model}: {two}");
        // Why there are two levels.
        assert!(design.layout < 0.1 || one < 0.75, "{model}: {one}");
    }
}

/// Families of `cells` cells in which nothing differs: how many hold any verdict, and how many verdicts there are. The
/// noise of the same mode twice is new in each cell.
fn false_verdicts(runs: usize, cells: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    for (model, design) in DESIGNS {
        let (mut bad_runs, mut verdicts) = (0, 0);
        for _ in 0..runs {
            let paired: Vec<_> = (0..cells).map(|_| design.compare(&mut random, 1.0)).collect();
            let kept = holm(&paired.iter().map(|paired| paired.p().unwrap()).collect::<Vec<_>>());
            let judged = paired.iter().zip(kept).map(|(paired, kept)| {
                let twin = design.twin(&mut random, 1.0).t();
                found(side(paired.t().unwrap(), paired.median().unwrap(), twin), kept)
            });
            let wrong = judged.filter(|side| side.decided()).count();
            bad_runs += usize::from(wrong > 0);
            verdicts += wrong;
        }
        let share = |count: usize, all: usize| 100.0 * count as f64 / all as f64;
        println!(
            "{model}, {design}: a false verdict in {:.1} % of {runs} families of {cells} cells; {:.2} % of all verdicts",
            share(bad_runs, runs),
            share(verdicts, runs * cells)
        );
        // The promise is one in twenty. What was asked for with `TIMES` comes nearer to the true share, which may be that
        // itself, and so has to have room for an error of its own.
        let error = times().map_or(0.0, |_| 2.0 * (5.0 * 95.0 / runs as f64).sqrt());
        assert!(share(bad_runs, runs) <= 5.0 + error, "{model}: {bad_runs} of {runs}");
    }
}

/// How often a difference of the printed resolution has to be found, in each design. Four times in five is the promise; of
/// a hundred trials 75 are within one standard error and a quarter of it, and with `TIMES` that error is smaller.
const LEAST: f64 = 0.75;

/// A difference of the size that the run's own A/A noise says can be found: how often it is.
fn misses(trials: usize, critical: f64) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for (model, design) in [
        ("noise 0.5 %", Design { blocks: 10, copies: 1, layout: 0.0, process: 0.005 }),
        ("noise 2 %", Design { blocks: 10, copies: 1, layout: 0.0, process: 0.02 }),
        ("noise 2 %", Design { blocks: 10, copies: 5, layout: 0.0, process: 0.02 }),
        ("noise 2 %", Design { blocks: 10, copies: 8, layout: 0.0, process: 0.02 }),
        ("noise 2 %", Design { blocks: 30, copies: 10, layout: 0.0, process: 0.02 }),
        ("noise 2 %", Design { blocks: 48, copies: 32, layout: 0.0, process: 0.02 }),
        ("noise 10 %", Design { blocks: 32, copies: 32, layout: 0.0, process: 0.1 }),
    ] {
        let (mut seen, mut wrong_way, mut printed) = (0, 0, 0.0);
        for trial in 0..trials {
            let twin = design.twin(&mut random, 1.0);
            let least = resolution(&twin, Some(&twin), critical, trial as u64).unwrap();
            printed += least / trials as f64;
            let planted = design.twin(&mut random, 1.0 + least);
            let side = design.judge(&mut random, &planted, critical);
            seen += usize::from(side == Side::Above);
            wrong_way += usize::from(side == Side::Below);
        }
        let share = seen as f64 / trials as f64;
        println!(
            "{model}, {design}, p at most {critical}: resolution {:.1} % on average, found {:.0} % of the time",
            printed * 100.0,
            share * 100.0
        );
        let error = (0.8 * 0.2 / trials as f64).sqrt();
        let least = times().map_or(LEAST, |_| LEAST.max(0.8 - error));
        assert!(share >= least, "{model}: {share}");
        assert_eq!(wrong_way, 0);
    }
}

impl std::fmt::Display for Design {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} blocks, {} copies, {} % of layout, {} % of process",
            self.blocks,
            self.copies,
            self.layout * 100.0,
            self.process * 100.0
        )
    }
}

#[test]
fn the_interval_covers_the_truth_93_to_97_times_in_100_and_more_only_under_outliers() {
    coverage_of_one_level(trials(2000));
}

#[test]
fn the_interval_of_two_levels_covers_the_truth_where_one_level_does_not() {
    coverage_of_two_levels(trials(2000));
}

#[test]
fn of_families_in_which_nothing_differs_at_most_one_in_twenty_holds_a_verdict() {
    // The families of `standard` have 1 to 27 comparisons.
    false_verdicts(trials(1000), 6);
    false_verdicts(trials(150), 40);
}

#[test]
fn a_difference_of_the_printed_resolution_is_found_four_times_in_five() {
    misses(trials(100), 0.05);
    misses(trials(100), 0.0005);
}

/// The reason for the t interval: a percentile bootstrap is too narrow where samples are few.
#[test]
fn a_bootstrap_of_few_means_would_cover_less() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let covers = |random: &mut ChaCha8Rng| {
        let paired = simulated(random, 5, 1.0, MODELS[1].1);
        let mut means: Vec<f64> =
            (0..400).map(|_| (0..5).map(|_| paired.logs[random.random_range(0..5)].1).sum::<f64>() / 5.0).collect();
        means.sort_by(f64::total_cmp);
        means[10] <= 0.0 && 0.0 <= means[389]
    };
    let covered = (0..1000).filter(|_| covers(&mut random)).count();
    assert!((770..=890).contains(&covered), "{covered} of 1000");
}

#[test]
fn a_planted_slowdown_of_3_percent_is_found_and_the_same_mode_is_not() {
    const TRIALS: usize = 200;
    let design = Design { blocks: 10, copies: 5, layout: 0.0, process: 0.01 };
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let (mut seen, mut false_alarms, mut wrong_way) = (0, 0, 0);
    for _ in 0..TRIALS {
        let slow = design.twin(&mut random, 1.03);
        let slow = design.judge(&mut random, &slow, 0.05);
        seen += usize::from(slow == Side::Above);
        wrong_way += usize::from(matches!(slow, Side::Below | Side::Equivalent));
        let same = design.twin(&mut random, 1.0);
        false_alarms += usize::from(design.judge(&mut random, &same, 0.05).decided());
    }
    assert!(seen >= TRIALS * 80 / 100, "{seen} of {TRIALS}");
    assert_eq!(wrong_way, 0);
    assert!(false_alarms <= TRIALS / 100, "{false_alarms} of {TRIALS}");
}
