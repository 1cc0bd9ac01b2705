//! Traces short enough to follow by hand, with the counts that come of it.

use perseq_cache_model::{Access, Counts, Geometry, Inclusion, Model, Shape, Topology};

const LINE: u64 = 64;

/// One set of two lines in the first level, of four in the second, of eight in the last; TLBs of two and four pages.
fn tiny(inclusion: Inclusion) -> Geometry {
    Geometry {
        name: "tiny".into(),
        l1d: Shape { sets: 1, ways: 2 },
        l2: Shape { sets: 1, ways: 4 },
        llc: Shape { sets: 1, ways: 8 },
        inclusion,
        llc_cpus: None,
        dtlb: Shape { sets: 1, ways: 2 },
        stlb: Shape { sets: 1, ways: 4 },
    }
}

/// CPUs 0 and 1 under one last level, 2 and 3 under another of the same node, 4 to 7 in the other node.
fn eight(inclusion: Inclusion) -> Model {
    let topology = Topology::new(8, 4, &[0, 1 << 20]).expect("four groups in two nodes");
    Model::new(&tiny(inclusion), topology, 2)
}

fn step(model: &mut Model, cpu: usize, write: bool, line: u64) {
    model.access(&Access { cpu, class: 0, write, address: line * LINE, bytes: 8, page: 0 });
    model.check().expect("the invariants hold after each access");
}

fn read(model: &mut Model, cpu: usize, line: u64) {
    step(model, cpu, false, line);
}

fn write(model: &mut Model, cpu: usize, line: u64) {
    step(model, cpu, true, line);
}

/// The counts of a CPU, without those of its TLBs.
fn of(model: &Model, cpu: usize) -> Counts {
    Counts { dtlb_misses: 0, stlb_misses: 0, ..*model.counts(cpu, 0) }
}

#[test]
fn a_line_falls_through_the_levels_and_comes_back() {
    let mut model = eight(Inclusion::Victim);
    // Five lines: the second level keeps 2 to 5, the first 4 and 5, and 1 is a victim in the last.
    (1..=5).for_each(|line| read(&mut model, 0, line));
    let cold = Counts { reads: 5, l1_misses: 5, l2_misses: 5, memory: [5, 0], ..Counts::default() };
    assert_eq!(of(&model, 0), cold);
    read(&mut model, 0, 5); // first level
    read(&mut model, 0, 3); // second level
    read(&mut model, 0, 1); // last level
    assert_eq!(of(&model, 0), Counts { reads: 8, l1_misses: 7, l2_misses: 6, llc_hits: 1, ..cold });
}

#[test]
fn a_modified_line_moves_and_is_counted_by_distance() {
    let mut model = eight(Inclusion::Victim);
    write(&mut model, 0, 1);
    write(&mut model, 1, 1); // from CPU 0: the same last level
    write(&mut model, 2, 1); // from CPU 1: another of the node
    write(&mut model, 4, 1); // from CPU 2: the other node
    let moved = Counts { writes: 1, l1_misses: 1, l2_misses: 1, invalidations: 1, invalidated: 1, ..Counts::default() };
    assert_eq!(of(&model, 1), Counts { modified_transfers: [1, 0, 0], ..moved });
    assert_eq!(of(&model, 2), Counts { modified_transfers: [0, 1, 0], ..moved });
    assert_eq!(of(&model, 4), Counts { modified_transfers: [0, 0, 1], invalidated: 0, ..moved });
    assert_eq!(of(&model, 0), Counts { memory: [1, 0], invalidations: 0, ..moved });
    assert_eq!(model.total().writebacks, 0, "it went from cache to cache");
}

#[test]
fn readers_share_and_a_writer_takes_all_copies() {
    let mut model = eight(Inclusion::Victim);
    read(&mut model, 0, 1); // exclusive
    read(&mut model, 1, 1); // both share
    read(&mut model, 2, 1);
    read(&mut model, 6, 1);
    write(&mut model, 1, 1);
    let reader = Counts { reads: 1, l1_misses: 1, l2_misses: 1, invalidated: 1, ..Counts::default() };
    assert_eq!(of(&model, 0), Counts { memory: [1, 0], ..reader });
    assert_eq!(of(&model, 2), Counts { clean_transfers: [0, 1, 0], ..reader });
    assert_eq!(of(&model, 6), Counts { clean_transfers: [0, 0, 1], ..reader });
    let writer = Counts { writes: 1, upgrades: 1, invalidations: 3, invalidated: 0, ..reader };
    assert_eq!(of(&model, 1), Counts { clean_transfers: [1, 0, 0], ..writer });
    write(&mut model, 1, 1);
    assert_eq!(model.total().upgrades, 1, "it is its own now");
}

#[test]
fn who_reads_alone_writes_without_asking() {
    let mut model = eight(Inclusion::Victim);
    read(&mut model, 0, 1);
    write(&mut model, 0, 1);
    read(&mut model, 3, 1); // so it was modified
    let total = model.total();
    assert_eq!((total.upgrades, total.invalidations), (0, 0));
    assert_eq!((total.modified_transfers, total.writebacks), ([0, 1, 0], 1));
}

#[test]
fn a_modified_victim_is_a_modified_line_of_its_group() {
    let mut model = eight(Inclusion::Victim);
    write(&mut model, 0, 1);
    (2..=5).for_each(|line| read(&mut model, 0, line)); // 1 leaves for the last level
    read(&mut model, 2, 1);
    assert_eq!(of(&model, 2).modified_transfers, [0, 1, 0]);
    assert_eq!(of(&model, 2).writebacks, 1);
    // The copy stayed there, clean: a neighbour finds it, and shares it with CPU 2.
    read(&mut model, 1, 1);
    assert_eq!((of(&model, 1).llc_hits, of(&model, 1).writebacks), (1, 0));
    write(&mut model, 1, 1);
    assert_eq!((of(&model, 1).upgrades, of(&model, 1).invalidations, of(&model, 2).invalidated), (1, 1, 1));
}

#[test]
fn a_modified_victim_that_its_own_group_takes_back_stays_modified() {
    let mut model = eight(Inclusion::Victim);
    write(&mut model, 0, 1);
    (2..=5).for_each(|line| read(&mut model, 0, line));
    read(&mut model, 1, 1);
    write(&mut model, 1, 1);
    let taken = of(&model, 1);
    assert_eq!((taken.llc_hits, taken.upgrades, taken.writebacks, taken.invalidations), (1, 0, 0, 0));
}

#[test]
fn an_inclusive_last_level_takes_lines_from_above() {
    let mut model = eight(Inclusion::Inclusive);
    write(&mut model, 0, 1);
    // CPU 1 fills the last level; line 1 is the first to go, though CPU 0 has it.
    (2..=9).for_each(|line| read(&mut model, 1, line));
    assert_eq!((of(&model, 1).back_invalidations, of(&model, 1).writebacks), (1, 1));
    read(&mut model, 0, 1);
    assert_eq!((of(&model, 0).l2_misses, of(&model, 0).memory), (2, [2, 0]));
}

#[test]
fn below_an_inclusive_last_level_a_modified_line_is_read_without_memory() {
    let mut model = eight(Inclusion::Inclusive);
    write(&mut model, 0, 1);
    read(&mut model, 1, 1);
    assert_eq!((of(&model, 1).modified_transfers, model.total().writebacks), ([1, 0, 0], 0));
    // The last level has it modified: whoever reads it from afar has it written back.
    read(&mut model, 5, 1);
    assert_eq!((of(&model, 5).modified_transfers, of(&model, 5).writebacks), ([0, 0, 1], 1));
}

#[test]
fn a_line_modified_at_two_levels_is_written_back_once() {
    let mut model = eight(Inclusion::Inclusive);
    write(&mut model, 0, 1);
    read(&mut model, 1, 1); // the last level has it modified
    write(&mut model, 0, 1); // and so has CPU 0 again
    read(&mut model, 2, 1);
    assert_eq!((of(&model, 2).modified_transfers, model.total().writebacks), ([0, 1, 0], 1));
}

#[test]
fn memory_has_a_node() {
    let mut model = eight(Inclusion::Victim);
    let far = (1 << 20) / LINE;
    read(&mut model, 0, far - 1);
    read(&mut model, 0, far);
    read(&mut model, 7, far + 1);
    assert_eq!((of(&model, 0).memory, of(&model, 7).memory), ([1, 1], [1, 0]));
    assert_eq!(of(&model, 0).llc_misses(), 2);
}

#[test]
fn an_access_reaches_into_lines_and_one_translation() {
    let mut model = eight(Inclusion::Victim);
    let access = |address, bytes, page| Access { cpu: 0, class: 1, write: false, address, bytes, page };
    for (access, lines) in [(access(0, 64, 1), 1), (access(60, 8, 1), 2), (access(0, 129, 2), 3), (access(5, 0, 2), 1)]
    {
        let before = model.counts(0, 1).reads;
        model.access(&access);
        assert_eq!(model.counts(0, 1).reads - before, lines, "{access:?}");
    }
    // Pages 1, 2 | 3, 4, 5 push both out of the first level, and 1 out of the second.
    (3..=5).for_each(|page| model.access(&access(0, 1, page)));
    model.access(&access(0, 1, 2));
    model.access(&access(0, 1, 1));
    assert_eq!((model.counts(0, 1).dtlb_misses, model.counts(0, 1).stlb_misses), (7, 6));
    assert_eq!(*model.counts(0, 0), Counts::default(), "the other class");
}

#[test]
fn forgotten_counts_leave_warm_caches() {
    let mut model = eight(Inclusion::Victim);
    read(&mut model, 0, 1);
    model.reset_counts();
    read(&mut model, 0, 1);
    assert_eq!(of(&model, 0), Counts { reads: 1, ..Counts::default() });
}

/// A pair of CPUs that write one line in turn, as false sharing does, and one that writes alone.
#[test]
fn ping_pong_costs_a_transfer_each_time() {
    let mut model = Model::new(
        &Geometry::named("zen3").expect("known"),
        Topology::new(16, 2, &[0]).expect("two groups of eight"),
        1,
    );
    // All of a large last level is looked at once, and not after each access.
    let mut write = |cpu, line| {
        model.access(&Access { cpu, class: 0, write: true, address: line * LINE, bytes: 8, page: 0 });
    };
    for turn in 0..1000 {
        write(if turn % 2 == 0 { 0 } else { 8 }, 7);
        write(1, 9);
    }
    model.check().expect("the invariants hold");
    let total = model.total();
    assert_eq!((total.modified_transfers, total.invalidations), ([0, 999, 0], 999));
    assert_eq!(model.counts(1, 0).l1_misses, 1);
}

#[test]
fn objects_are_followed_through_accesses() {
    let mut model = eight(Inclusion::Victim).with_objects();
    (1..=4).for_each(|line| write(&mut model, 0, line));
    let objects = model.objects().expect("it was told to remember");
    objects.give_back(LINE);
    write(&mut model, 1, 1);
    let objects = model.objects().expect("it was told to remember");
    let handed = objects.hand_out(0, LINE);
    assert_eq!((handed.distance, handed.touchers), (Some(3), Some(1)));
}
