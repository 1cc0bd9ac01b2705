//! Laws that hold whatever is accessed: invariants after each access, sums, and two models that must agree.

use perseq_cache_model::{Access, Counts, Geometry, Inclusion, LINE_BYTES, Model, Shape, Topology};
use proptest::prelude::*;

const CPUS: usize = 8;

fn small(inclusion: Inclusion) -> Geometry {
    Geometry {
        name: "small".into(),
        l1d: Shape { sets: 2, ways: 2 },
        l2: Shape { sets: 2, ways: 3 },
        llc: Shape { sets: 3, ways: 4 },
        inclusion,
        llc_cpus: None,
        dtlb: Shape { sets: 1, ways: 2 },
        stlb: Shape { sets: 2, ways: 2 },
    }
}

fn topology() -> Topology {
    Topology::new(CPUS, 4, &[0, 20 * LINE_BYTES]).expect("four groups in two nodes")
}

/// CPU, whether it writes, line. Few lines, so that CPUs meet.
fn trace() -> impl Strategy<Value = Vec<(usize, bool, u64)>> {
    prop::collection::vec((0..CPUS, prop::bool::weighted(0.3), 0..40_u64), 1..400)
}

fn inclusion() -> impl Strategy<Value = Inclusion> {
    prop_oneof![Just(Inclusion::Inclusive), Just(Inclusion::Victim)]
}

fn access(&(cpu, write, line): &(usize, bool, u64)) -> Access {
    Access { cpu, class: cpu % 2, write, address: line * LINE_BYTES, bytes: 1, page: line / 4 }
}

/// Lines of one CPU, the last used first: the definition of least recently used.
#[derive(Default)]
struct List(Vec<u64>);

impl List {
    /// Uses a line and says whether it was among the last `ways` of its set.
    fn hits(&mut self, line: u64, shape: Shape) -> bool {
        let set = |line: u64| line % shape.sets as u64;
        let hit = self.0.iter().filter(|other| set(**other) == set(line)).take(shape.ways).any(|other| *other == line);
        self.0.retain(|other| *other != line);
        self.0.insert(0, line);
        hit
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Inclusion, exclusivity, the single writer, the directory and the sources of misses: `Model::check`.
    #[test]
    fn invariants_hold_after_each_access(trace in trace(), inclusion in inclusion()) {
        let mut model = Model::new(&small(inclusion), topology(), 2);
        for step in &trace {
            model.access(&access(step));
            prop_assert_eq!(model.check(), Ok(()), "after {:?}", step);
        }
        let total = model.total();
        prop_assert_eq!(total.accesses(), trace.len() as u64);
        prop_assert_eq!(total.invalidations, total.invalidated);
        if inclusion == Inclusion::Victim {
            prop_assert_eq!(total.back_invalidations, 0);
        }
    }

    /// The writer of a line has it: its next access hits. Everybody else has lost it: theirs misses both levels.
    #[test]
    fn after_a_write_nobody_else_has_the_line(trace in trace(), inclusion in inclusion(), other in 0..CPUS) {
        let mut model = Model::new(&small(inclusion), topology(), 2);
        trace.iter().for_each(|step| model.access(&access(step)));
        let (cpu, _, line) = trace[0];
        model.access(&access(&(cpu, true, line)));
        model.reset_counts();
        model.access(&access(&(cpu, true, line)));
        let again = Counts { dtlb_misses: 0, stlb_misses: 0, ..model.total() };
        prop_assert_eq!(again, Counts { writes: 1, ..Counts::default() });
        if other != cpu {
            model.reset_counts();
            model.access(&access(&(other, false, line)));
            let total = model.total();
            prop_assert_eq!(total.l2_misses, 1);
            prop_assert_eq!(total.modified_transfers.iter().sum::<u64>(), 1);
        }
    }

    /// Dirty lines are neither lost nor doubled: each was written once or more since it was last in memory.
    #[test]
    fn no_more_lines_are_written_back_than_written(trace in trace(), inclusion in inclusion()) {
        let mut model = Model::new(&small(inclusion), topology(), 2);
        trace.iter().for_each(|step| model.access(&access(step)));
        let total = model.total();
        prop_assert!(total.writebacks <= total.writes, "{:?}", total);
    }

    /// One CPU, second level wide enough to keep all: the first level and the TLB miss as lists say.
    #[test]
    fn one_cpu_misses_as_a_list_does(lines in prop::collection::vec(0..24_u64, 1..500)) {
        let geometry = Geometry { l2: Shape { sets: 1, ways: 24 }, ..small(Inclusion::Victim) };
        let mut model = Model::new(&geometry, Topology::new(1, 1, &[0]).expect("one CPU"), 1);
        let (mut l1, mut dtlb) = (List::default(), List::default());
        let (mut misses, mut untranslated) = (0, 0);
        for line in lines {
            misses += u64::from(!l1.hits(line, geometry.l1d));
            untranslated += u64::from(!dtlb.hits(line / 4, geometry.dtlb));
            model.access(&access(&(0, false, line)));
        }
        let total = model.total();
        prop_assert_eq!((total.l1_misses, total.dtlb_misses), (misses, untranslated));
    }

    /// Threads that touch nothing in common do not know of each other, but for the last level they share.
    #[test]
    fn strangers_do_not_disturb(trace in trace()) {
        let geometry = small(Inclusion::Victim);
        let mut together = Model::new(&geometry, topology(), 2);
        let own = |&(cpu, write, line): &(usize, bool, u64)| (cpu, write, line + 1000 * cpu as u64);
        trace.iter().for_each(|step| together.access(&access(&own(step))));
        for cpu in 0..CPUS {
            let mut alone = Model::new(&geometry, topology(), 2);
            trace.iter().filter(|step| step.0 == cpu).for_each(|step| alone.access(&access(&own(step))));
            let (a, b) = (together.counts(cpu, cpu % 2), alone.counts(cpu, cpu % 2));
            prop_assert_eq!((a.l1_misses, a.l2_misses, a.dtlb_misses), (b.l1_misses, b.l2_misses, b.dtlb_misses));
        }
        let total = together.total();
        let [clean, modified] = [total.clean_transfers, total.modified_transfers].map(|of| of.iter().sum::<u64>());
        prop_assert_eq!((clean, modified, total.upgrades, total.invalidations), (0, 0, 0, 0));
    }

    /// The same accesses give the same counts.
    #[test]
    fn counts_are_a_function_of_the_accesses(trace in trace(), inclusion in inclusion()) {
        let run = || {
            let mut model = Model::new(&small(inclusion), topology(), 2).with_objects();
            trace.iter().for_each(|step| model.access(&access(step)));
            (0..CPUS).flat_map(|cpu| [0, 1].map(|class| *model.counts(cpu, class))).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}
