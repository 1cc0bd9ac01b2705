//! A profile of pprof's as a reader of tables needs it: stacks of names, and how sure the sums are.

use super::join::{ALLOCATORS, BLOCK, LIFETIME, probability};
use super::pprof::{Profile, Sample};
use perseq::live::{AGES, FIRST_AGE};
use regex::Regex;
use std::collections::{BTreeMap, HashMap};
use std::iter::Sum;
use std::ops::{AddAssign, Sub};

/// A sum over samples, and the variance that comes of which blocks were sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    pub value: f64,
    variance: f64,
}

impl Estimate {
    /// Half the width of its 95 % interval.
    pub fn half_width(self) -> f64 {
        1.96 * self.variance.sqrt()
    }

    /// This part of a whole, which has it in itself, and half the width of its 95 % interval: None of nothing. The variance
    /// of such a ratio is that of the parts less the ratio of the wholes (Särndal, Swensson and Wretman, 1992, 5.6).
    pub fn share_of(self, whole: Estimate) -> Option<(f64, f64)> {
        let share = (whole.value > 0.0).then(|| self.value / whole.value)?;
        let rest = (whole.variance - self.variance).max(0.0);
        let variance = (1.0 - share).powi(2) * self.variance + share.powi(2) * rest;
        Some((share, 1.96 * variance.sqrt() / whole.value))
    }

    /// Of `count` blocks, as samples stand for them, that are samples with probability `p` each: the variance that Horvitz
    /// and Thompson's estimator has for samples that are drawn independently.
    fn of(count: f64, size: f64, p: f64) -> Estimate {
        Estimate { value: count * size, variance: count * (1.0 - p) / p * size * size }
    }
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, other: Estimate) {
        self.value += other.value;
        self.variance += other.variance;
    }
}

impl Sub for Estimate {
    type Output = Estimate;
    fn sub(self, other: Estimate) -> Estimate {
        Estimate { value: self.value - other.value, variance: self.variance + other.variance }
    }
}

impl Sum for Estimate {
    fn sum<I: Iterator<Item = Estimate>>(estimates: I) -> Estimate {
        let mut sum = Estimate::default();
        estimates.for_each(|estimate| sum += estimate);
        sum
    }
}

/// A frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Of a function without a name: where it is.
    pub name: String,
    /// File and line, or nothing.
    pub place: String,
}

/// What was allocated with one stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub live_objects: f64,
    pub live_bytes: Estimate,
    pub objects: f64,
    pub bytes: Estimate,
    /// Of what was freed, as far as it is known how, and in groups of ages.
    pub freed: Estimate,
    pub other_cpu: Estimate,
    pub other_thread: Estimate,
    pub ages: [f64; AGES],
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.live_objects += other.live_objects;
        self.live_bytes += other.live_bytes;
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.freed += other.freed;
        self.other_cpu += other.other_cpu;
        self.other_thread += other.other_thread;
        self.ages.iter_mut().zip(other.ages).for_each(|(age, other)| *age += other);
    }
}

/// The stacks of a profile, innermost frame first, with what was allocated with each.
#[derive(Debug, Default)]
pub struct Sites(pub BTreeMap<Vec<Frame>, Counts>);

impl Sites {
    /// Those of a profile. The error says what is not in it.
    pub fn of(profile: &Profile) -> Result<Sites, String> {
        let known = |name: &str| profile.sample_type.iter().position(|kind| profile.text(kind.kind) == name);
        let place = |name: &str| known(name).ok_or_else(|| format!("no {name} is in it"));
        let places = [place("inuse_objects")?, place("inuse_space")?, place("alloc_objects")?, place("alloc_space")?];
        // What others do not write.
        let fates = ["freed", "freed_on_other_cpu", "freed_by_other_thread"]
            .map(|name| ["objects", "space"].map(|kind| known(&format!("{name}_{kind}"))));
        let names = Names::of(profile);
        let mut sites = Sites::default();
        for sample in &profile.sample {
            let value = |place: usize| sample.value.get(place).map_or(0.0, |value| *value as f64);
            let [live_objects, live_bytes, objects, bytes] = places.map(value);
            let p = probability_of(profile, sample);
            let estimate = |count: f64, bytes: f64| {
                if count > 0.0 { Estimate::of(count, bytes / count, p) } else { Estimate::default() }
            };
            let [freed, other_cpu, other_thread] = fates.map(|[objects, bytes]| {
                let [objects, bytes] = [objects, bytes].map(|place| place.map_or(0.0, value));
                estimate(objects, bytes)
            });
            let mut ages = [0.0; AGES];
            ages[age_of(profile, sample)] = freed.value;
            *sites.0.entry(names.stack(sample)).or_default() += Counts {
                live_objects,
                live_bytes: estimate(live_objects, live_bytes),
                objects,
                bytes: estimate(objects, bytes),
                freed,
                other_cpu,
                other_thread,
                ages,
            };
        }
        Ok(sites)
    }

    /// The sum of all.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.0.values().for_each(|counts| total += *counts);
        total
    }
}

/// That each of the sample's blocks was one. 1 where a profile does not say it: then nothing is known of its variance.
fn probability_of(profile: &Profile, sample: &Sample) -> f64 {
    let block = sample.label.iter().find(|label| profile.text(label.key) == BLOCK).map(|label| label.number);
    match block {
        Some(block) if block > 0 && profile.period > 0 => probability(block as f64, profile.period as f64),
        _ => 1.0,
    }
}

/// The group of ages that the sample is of.
fn age_of(profile: &Profile, sample: &Sample) -> usize {
    let lived = sample.label.iter().find(|label| profile.text(label.key) == LIFETIME).map_or(0, |label| label.number);
    let ends = std::iter::successors(Some(FIRST_AGE as i64), |end| end.checked_mul(10));
    ends.take(AGES - 1).take_while(|end| lived >= *end).count()
}

/// The frames of every location.
struct Names {
    frames: HashMap<u64, Vec<Frame>>,
    /// Functions that only allocate for their callers.
    allocators: Regex,
}

impl Names {
    fn of(profile: &Profile) -> Names {
        let functions: HashMap<_, _> = profile.function.iter().map(|function| (function.id, function)).collect();
        let mappings: HashMap<_, _> = profile.mapping.iter().map(|mapping| (mapping.id, mapping)).collect();
        let frames = profile.location.iter().map(|location| {
            let named = location.line.iter().filter_map(|line| {
                let function = functions.get(&line.function_id)?;
                let file = short(profile.text(function.filename));
                let place = match (file.is_empty(), line.line) {
                    (true, _) => String::new(),
                    (false, 0) => file,
                    (false, line) => format!("{file}:{line}"),
                };
                Some(Frame { name: profile.text(function.name).to_owned(), place })
            });
            let mut named: Vec<_> = named.collect();
            if named.is_empty() {
                let nameless = match mappings.get(&location.mapping_id) {
                    Some(mapping) => {
                        let offset =
                            location.address.wrapping_sub(mapping.memory_start).wrapping_add(mapping.file_offset);
                        format!("[{}+{offset:#x}]", last(profile.text(mapping.filename), 1))
                    }
                    None => format!("[{:#x}]", location.address),
                };
                named.push(Frame { name: nameless, place: String::new() });
            }
            (location.id, named)
        });
        let allocators = Regex::new(&format!("^(?:{ALLOCATORS})$")).expect("a pattern of ours");
        Names { frames: frames.collect(), allocators }
    }

    /// The stack of a sample, from who allocated outwards.
    fn stack(&self, sample: &Sample) -> Vec<Frame> {
        let all = sample.location_id.iter().filter_map(|id| self.frames.get(id)).flatten();
        let all: Vec<_> = all.cloned().collect();
        // As pprof does: from the outermost such function on, but never all.
        let is_theirs = |frame: &Frame| !self.allocators.is_match(without_arguments(&frame.name));
        let first = all.iter().rposition(is_theirs).unwrap_or(0);
        let allocator = all[..first].iter().rposition(|frame| !is_theirs(frame));
        all[allocator.map_or(0, |place| place + 1)..].to_vec()
    }
}

fn without_arguments(name: &str) -> &str {
    name.split_once('(').map_or(name, |(name, _)| name)
}

/// A path that can be read in a table.
fn short(path: &str) -> String {
    last(path, 2)
}

/// The last parts of a path.
fn last(path: &str, parts: usize) -> String {
    let mut all: Vec<_> = path.rsplitn(parts + 1, '/').take(parts).collect();
    all.reverse();
    all.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_variance_is_that_of_a_binomial_count() {
        // 4000 blocks of 100 bytes, a quarter of which are samples.
        let estimate = Estimate::of(4000.0, 100.0, 0.25);
        assert_eq!(estimate.value, 400_000.0);
        let deviation = (4000.0_f64 * 0.25 * 0.75).sqrt() / 0.25 * 100.0;
        assert!((estimate.half_width() - 1.96 * deviation).abs() < 1e-6);
        assert_eq!(Estimate::of(3.0, 100.0, 1.0).half_width(), 0.0);
        let sum: Estimate = [estimate, estimate].into_iter().sum();
        assert_eq!((sum.value, (sum - estimate).value), (800_000.0, 400_000.0));
        assert!((sum.half_width() / estimate.half_width() - 2.0_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_share_is_as_sure_as_its_samples() {
        // A census, and nothing at all.
        let whole = Estimate::of(400.0, 100.0, 1.0);
        assert_eq!(Estimate::of(100.0, 100.0, 1.0).share_of(whole), Some((0.25, 0.0)));
        assert_eq!(Estimate::default().share_of(Estimate::default()), None);
        // All of it, whatever was sampled.
        let whole = Estimate::of(400.0, 100.0, 0.1);
        assert_eq!(whole.share_of(whole), Some((1.0, 0.0)));
        // Half of 400 samples that stand for much more: as a binomial share.
        let [whole, half] = [400_000.0, 200_000.0].map(|count| Estimate::of(count, 100.0, 0.001));
        let (share, half_width) = half.share_of(whole).unwrap();
        assert!(share == 0.5 && (half_width - 1.96 * (0.25_f64 / 400.0).sqrt()).abs() < 1e-3, "{half_width}");
    }

    /// Of sums and of shares, where most blocks are no samples: simulated.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        const RATE: f64 = 65_536.0;
        const RUNS: usize = 300;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (mut sums, mut shares) = (0, 0);
        for _ in 0..RUNS {
            let (mut whole, mut part, mut truth) = (Estimate::default(), Estimate::default(), [0.0; 2]);
            // Bytes of a block, blocks, and those of them that the share is of.
            for (size, blocks, of_part) in [(512.0, 12_000, 3000), (8192.0, 1000, 600)] {
                let p = probability(size, RATE);
                let mut sampled = [0.0; 2];
                for block in 0..blocks {
                    if random.random_bool(p) {
                        sampled[usize::from(block < of_part)] += 1.0;
                    }
                }
                whole += Estimate::of((sampled[0] + sampled[1]) / p, size, p);
                part += Estimate::of(sampled[1] / p, size, p);
                truth[0] += f64::from(blocks) * size;
                truth[1] += f64::from(of_part) * size;
            }
            sums += usize::from((whole.value - truth[0]).abs() <= whole.half_width());
            let (share, half_width) = part.share_of(whole).unwrap();
            shares += usize::from((share - truth[1] / truth[0]).abs() <= half_width);
        }
        // Four deviations of such a count.
        for (what, held) in [("sums", sums), ("shares", shares)] {
            let held = held as f64 / RUNS as f64;
            assert!((held - 0.95).abs() < 4.0 * (0.95_f64 * 0.05 / RUNS as f64).sqrt(), "{what}: {held}");
        }
    }

    #[test]
    fn who_allocates_for_others_is_left_out() {
        let pattern = Regex::new(&format!("^(?:{ALLOCATORS})$")).unwrap();
        for name in [
            "<alloc::raw_vec::RawVecInner>::finish_grow",
            "alloc::vec::Vec<T,A>::push",
            "alloc::string::String::push",
            "<alloc::boxed::Box<[u8]>>::try_new_uninit_slice",
        ] {
            assert!(pattern.is_match(name), "{name}");
        }
        // Which may call what is the program's, or is its own.
        for name in ["alloc::vec::Vec<T,A>::extend", "mallocs", "my::malloc", "my::Box<T>::new"] {
            assert!(!pattern.is_match(name), "{name}");
        }
        let names =
            ["malloc", "operator new(unsigned long)", "callback", "alloc::raw_vec::finish_grow", "grow", "main"];
        let frames = names
            .iter()
            .zip(0..)
            .map(|(name, id)| (id, vec![Frame { name: (*name).to_owned(), place: String::new() }]));
        let names = Names { frames: frames.collect(), allocators: pattern };
        let stack = |ids: &[u64]| {
            let frames = names.stack(&Sample { location_id: ids.to_vec(), ..Sample::default() });
            frames.into_iter().map(|frame| frame.name).collect::<Vec<_>>()
        };
        assert_eq!(stack(&[0, 1, 4, 5]), ["grow", "main"]);
        assert_eq!(stack(&[0, 3, 4, 5]), ["grow", "main"]);
        assert_eq!(stack(&[4, 5]), ["grow", "main"]);
        // Nobody else is there to be named.
        assert_eq!(stack(&[0, 1]), ["malloc", "operator new(unsigned long)"]);
        assert_eq!(stack(&[5, 0]), ["main", "malloc"]);
    }

    #[test]
    fn paths_are_short() {
        assert_eq!(["/a/b/c.rs", "c.rs", "", "/c.rs"].map(short), ["b/c.rs", "c.rs", "", "/c.rs"]);
        assert_eq!(last("/usr/lib/libc.so.6", 1), "libc.so.6");
    }
}
