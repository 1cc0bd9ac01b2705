//! Counts by where in a program's memory the data lay: in one of several tiers, or elsewhere.
//!
//! Accesses are counted by line, in [`Places`], and which line is whose is told afterwards, in [`Ranges`]: so memory that
//! changed hands while it was counted is that of its last owner, and who tells disturbs nothing.
//!
//! # Invariants
//!
//! * **apart**: no byte is in two ranges.
//! * **whole**: the counts of all tiers and of what is elsewhere add up to those that came in.

use crate::LINE_BYTES;
use crate::counts::Counts;
use crate::lines::Lines;

/// The half of the address space in which no program has memory.
const KERNEL: u64 = 1 << 63;

/// What was counted, by the line in which an access began.
#[derive(Debug, Default)]
pub struct Places(Lines<Counts>);

impl Places {
    /// Counts what an access to `address` changed.
    pub fn add(&mut self, address: u64, change: Counts) {
        *self.0.entry(address / LINE_BYTES).or_default() += change;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The counts of each tier below `tiers`, and after them of what lies in none.
    pub fn by_tier(&self, told: &Told, tiers: usize) -> Vec<Counts> {
        let mut sums = vec![Counts::default(); tiers + 1];
        for (line, counts) in &self.0 {
            sums[told.tier(*line).filter(|tier| *tier < tiers).unwrap_or(tiers)] += *counts;
        }
        sums
    }
}

/// A range of addresses: its first and its last byte, and its tier.
type Range = (u64, u64, usize);

/// Ranges of addresses as they are told: the first byte of each, then its last.
#[derive(Debug, Default)]
pub struct Ranges {
    whole: Vec<Range>,
    begun: Option<(u64, usize)>,
    fault: Option<String>,
}

impl Ranges {
    /// A range of `tier` begins at `address`.
    pub fn begin(&mut self, tier: usize, address: u64) {
        if let Some((before, _)) = self.begun.replace((address, tier)) {
            self.fault(format!("the range from {before:#x} has no end"));
        }
    }

    /// The range that began ends with the byte at `address`.
    pub fn last(&mut self, tier: usize, address: u64) {
        match self.begun.take() {
            Some((first, begun)) if begun == tier && first <= address && address < KERNEL => {
                self.whole.push((first, address, tier));
            }
            Some((first, begun)) => self
                .fault(format!("a range of tier {begun} from {first:#x} ends at {address:#x} as one of tier {tier}")),
            None => self.fault(format!("a range that did not begin ends at {address:#x}")),
        }
    }

    fn fault(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// Bytes of each tier below `tiers`.
    pub fn bytes(&self, tiers: usize) -> Vec<u64> {
        let of = |tier| self.whole.iter().filter(move |range| range.2 == tier);
        (0..tiers).map(|tier| of(tier).map(|(first, last, _)| last - first + 1).sum()).collect()
    }

    /// How many were told.
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// Whether none was told.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// All of them. The error says which ones cannot be: one without an end, one that is nobody's memory, two that have a
    /// byte in common.
    pub fn told(&self) -> Result<Told, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if let Some((first, _)) = self.begun {
            return Err(format!("the range from {first:#x} has no end"));
        }
        let mut ranges = self.whole.clone();
        ranges.sort_unstable();
        let together = ranges.windows(2).find(|pair| pair[0].1 >= pair[1].0);
        match together {
            Some(pair) => Err(format!(
                "ranges of tiers {} and {} have the byte at {:#x} in common",
                pair[0].2, pair[1].2, pair[1].0
            )),
            None => Ok(Told(ranges)),
        }
    }
}

/// Ranges that are **apart**, by address.
#[derive(Debug)]
pub struct Told(Vec<Range>);

impl Told {
    /// Whose a line is. Where several begin or end in one line, it is that of the lowest tier among them.
    fn tier(&self, line: u64) -> Option<usize> {
        let first = line * LINE_BYTES;
        let from = self.0.partition_point(|range| range.1 < first);
        let within = self.0[from..].iter().take_while(|range| range.0 < first + LINE_BYTES);
        within.map(|range| range.2).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Geometry, Model, Topology};

    fn ranges(told: &[(usize, u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for (tier, first, last) in told {
            ranges.begin(*tier, *first);
            ranges.last(*tier, *last);
        }
        ranges
    }

    #[test]
    fn a_line_is_that_of_the_range_it_lies_in() {
        // Told in no order. A page, a line within the next, and two that share a line.
        let told = ranges(&[(1, 0x2040, 0x207f), (0, 0x1000, 0x1fff), (2, 0x3000, 0x3007), (1, 0x3010, 0x301f)]);
        assert_eq!(told.bytes(3), [4096, 64 + 16, 8]);
        let told = told.told().unwrap();
        let tier = |address: u64| told.tier(address / LINE_BYTES);
        assert_eq!([0xfff, 0x1000, 0x1fff, 0x2000].map(tier), [None, Some(0), Some(0), None]);
        assert_eq!([0x203f, 0x2040, 0x207f, 0x2080].map(tier), [None, Some(1), Some(1), None]);
        assert_eq!([0x2fff, 0x3000, 0x303f, 0x3040, u64::MAX].map(tier), [None, Some(1), Some(1), None, None]);
    }

    #[test]
    fn ranges_that_are_told_wrongly_are_refused() {
        assert!(ranges(&[]).told().is_ok_and(|told| told.0.is_empty()));
        assert!(ranges(&[(0, 64, 127), (1, 128, 128)]).told().is_ok());
        for (wrong, named) in [
            (&[(0, 64, 128), (1, 128, 192)][..], "0x80 in common"),
            (&[(0, 64, 1024), (0, 128, 192)], "in common"),
            (&[(0, 64, 63)], "ends at 0x3f"),
            (&[(0, 64, 1 << 63)], "ends at"),
        ] {
            let refused = ranges(wrong).told().unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
        let mut open = ranges(&[(0, 64, 127)]);
        open.begin(1, 128);
        assert!(open.told().unwrap_err().contains("0x80 has no end"));
        open.begin(1, 256);
        open.last(1, 300);
        assert!(open.told().unwrap_err().contains("0x80 has no end"), "it is not forgotten");
        let mut other = Ranges::default();
        other.begin(0, 64);
        other.last(1, 127);
        assert!(other.told().unwrap_err().contains("as one of tier 1"));
        let mut never = Ranges::default();
        never.last(0, 127);
        assert!(never.told().unwrap_err().contains("did not begin"));
    }

    /// Two CPUs write a line of each tier in turn, one of them another's, and one reads all: what each access changed is
    /// counted where it was, and together they are what the model counted.
    #[test]
    fn what_is_counted_by_line_adds_up_to_the_model() {
        let topology = Topology::new(2, 1, &[0]).unwrap();
        let mut model = Model::new(&Geometry::named("zen3").unwrap(), topology, 2);
        let mut places = Places::default();
        let mut access = |cpu, write, address: u64| {
            let change = model.change(&Access { cpu, class: 1, write, address, bytes: 8, page: address >> 12 });
            places.add(address, change);
        };
        for turn in 0..10 {
            for cpu in 0..2 {
                access(cpu, true, 0x1000); // a line that goes back and forth
                access(cpu, true, 0x2000 + 64 * cpu as u64); // a line of the CPU's own
                access(cpu, false, 0x8000 + 64 * turn); // nobody writes it
            }
        }
        let told = ranges(&[(0, 0x1000, 0x103f), (1, 0x2000, 0x20ff)]).told().unwrap();
        let tiers = places.by_tier(&told, 2);
        // A line that is modified elsewhere comes from there at each access but the first.
        assert_eq!((tiers[0].accesses(), tiers[0].l2_misses, tiers[0].modified_transfers[0]), (20, 20, 19));
        assert_eq!((tiers[0].invalidations, tiers[0].invalidated), (19, 19));
        assert_eq!((tiers[1].writes, tiers[1].l1_misses, tiers[1].invalidations), (20, 2, 0));
        // Each line is read from memory once, and then from the one who had it.
        assert_eq!((tiers[2].reads, tiers[2].memory[0], tiers[2].clean_transfers[0]), (20, 10, 10));
        assert_eq!(tiers.iter().map(|counts| counts.dtlb_misses).collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(tiers.into_iter().sum::<Counts>(), model.class(1));
        // Without ranges all is elsewhere; after it is cleared nothing is.
        let none = ranges(&[]).told().unwrap();
        assert_eq!(places.by_tier(&none, 0), [model.class(1)]);
        places.clear();
        assert_eq!(places.by_tier(&none, 0), [Counts::default()]);
    }
}
