//! What was found of many objects as they were handed out: how their reuse distances are spread, and how many CPUs
//! touched them between two owners.

use crate::objects::HandedOut;
use std::collections::BTreeMap;

/// A sum over objects.
#[derive(Clone, Debug, Default)]
pub struct Reuse {
    /// How many had each distance.
    distances: BTreeMap<u64, u64>,
    /// How many lay on a line that the CPU had never touched.
    never: u64,
    /// How many had an owner before.
    passed: u64,
    /// CPUs that touched these in between, over all of them.
    touchers: u64,
}

impl Reuse {
    /// One object more.
    pub fn add(&mut self, found: HandedOut) {
        match found.distance {
            Some(distance) => *self.distances.entry(distance).or_default() += 1,
            None => self.never += 1,
        }
        if let Some(touchers) = found.touchers {
            self.passed += 1;
            self.touchers += u64::from(touchers);
        }
    }

    /// Objects that were handed out.
    pub fn handed_out(&self) -> u64 {
        self.known() + self.never
    }

    /// Those on a line that the CPU had never touched.
    pub fn never(&self) -> u64 {
        self.never
    }

    /// Those that had an owner before, and the CPUs that touched their lines since, over all of them.
    pub fn passed(&self) -> (u64, u64) {
        (self.passed, self.touchers)
    }

    /// Those that the CPU had touched, with at least so many other lines since: a fully associative cache of that many has
    /// lost them.
    pub fn beyond(&self, lines: u64) -> u64 {
        self.distances.range(lines..).map(|(_, count)| count).sum()
    }

    /// The least distance that `quarters` of four of those that the CPU had touched do not exceed. None: there are none.
    pub fn quartile(&self, quarters: u64) -> Option<u64> {
        let rank = (self.known() * quarters).div_ceil(4).max(1);
        let mut seen = 0;
        let reached = self.distances.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        reached.map(|(distance, _)| *distance)
    }

    /// How many distances have each number of binary digits: 0, 1, 2 to 3, 4 to 7 and so on, up to the largest there is.
    pub fn digits(&self) -> Vec<u64> {
        let mut digits = Vec::new();
        for (distance, count) in &self.distances {
            let at = (u64::BITS - distance.leading_zeros()) as usize;
            digits.resize(digits.len().max(at + 1), 0);
            digits[at] += count;
        }
        digits
    }

    fn known(&self) -> u64 {
        self.distances.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Geometry, LINE_BYTES, Model, Topology};

    fn of(distances: &[u64]) -> Reuse {
        let mut reuse = Reuse::default();
        distances.iter().for_each(|at| reuse.add(HandedOut { distance: Some(*at), touchers: None }));
        reuse
    }

    #[test]
    fn quartiles_are_distances_that_were_there() {
        let quartiles = |distances: &[u64]| [1, 2, 3].map(|quarters| of(distances).quartile(quarters));
        assert_eq!(quartiles(&[]), [None; 3]);
        assert_eq!(quartiles(&[9]), [Some(9); 3]);
        assert_eq!(quartiles(&[4, 3, 2, 1]), [Some(1), Some(2), Some(3)]);
        assert_eq!(quartiles(&[5, 1, 5, 5, 700]), [Some(5), Some(5), Some(5)]);
    }

    #[test]
    fn nothing_is_counted_twice_or_left_out() {
        let mut reuse = of(&[0, 1, 2, 3, 4, 1024]);
        reuse.add(HandedOut { distance: None, touchers: Some(2) });
        reuse.add(HandedOut { distance: None, touchers: Some(0) });
        assert_eq!((reuse.handed_out(), reuse.never(), reuse.passed()), (8, 2, (2, 2)));
        assert_eq!([0, 1, 4, 5, 1024, 1025].map(|lines| reuse.beyond(lines)), [6, 5, 2, 1, 1, 0]);
        assert_eq!(reuse.digits(), [1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Reuse::default().digits(), []);
    }

    /// CPUs that are handed objects of a line, write and give them back.
    struct Planted {
        model: Model,
        reuse: Reuse,
    }

    impl Planted {
        fn new() -> Planted {
            let topology = Topology::new(2, 1, &[0]).unwrap();
            let model = Model::new(&Geometry::named("zen3").unwrap(), topology, 1).with_objects();
            Planted { model, reuse: Reuse::default() }
        }

        fn write(&mut self, cpu: usize, object: u64) {
            let address = object * LINE_BYTES;
            self.model.access(&Access { cpu, class: 0, write: true, address, bytes: 8, page: address >> 12 });
        }

        fn take(&mut self, cpu: usize, object: u64) {
            let found = self.model.objects().unwrap().hand_out(cpu, object * LINE_BYTES);
            self.reuse.add(found);
            self.write(cpu, object);
        }

        fn give_back(&mut self, object: u64) {
            self.model.objects().unwrap().give_back(object * LINE_BYTES);
        }
    }

    /// One thread takes objects from the top of a stack, writes the 100 lines of its working set and puts them back.
    #[test]
    fn last_in_first_out_is_the_working_set_away() {
        let mut planted = Planted::new();
        for _ in 0..50 {
            planted.take(0, 7);
            (1000..1100).for_each(|line| planted.write(0, line));
            planted.give_back(7);
        }
        let reuse = planted.reuse;
        assert_eq!((reuse.never(), reuse.handed_out(), reuse.passed()), (1, 50, (49, 0)));
        assert_eq!([1, 2, 3].map(|quarters| reuse.quartile(quarters)), [Some(100); 3]);
    }

    /// Of 600 objects the one that waited longest is taken.
    #[test]
    fn first_in_first_out_is_all_other_objects_away() {
        let mut planted = Planted::new();
        for object in (0..600).cycle().take(6000) {
            planted.take(0, object);
            planted.give_back(object);
        }
        let reuse = planted.reuse;
        assert_eq!((reuse.never(), reuse.handed_out()), (600, 6000));
        assert_eq!([1, 3].map(|quarters| reuse.quartile(quarters)), [Some(599); 2]);
        assert_eq!((reuse.beyond(512), reuse.beyond(600)), (5400, 0));
    }

    /// CPU 0 gives an object back; CPU 1 has looked at its line before it is handed it, and the other way round.
    #[test]
    fn what_passes_between_two_cpus_has_one_toucher() {
        let mut planted = Planted::new();
        for turn in 0..20 {
            let cpu = turn % 2;
            if turn > 0 {
                planted.write(cpu, 3);
            }
            planted.take(cpu, 3);
            planted.give_back(3);
        }
        assert_eq!(planted.reuse.passed(), (19, 19));
    }
}
