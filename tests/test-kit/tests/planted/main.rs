//! Allocators that are wrong in one way each: it is found, said to be what it is, and shrunk to a few operations.

mod arena;

use std::time::Duration;

use allocator_test_kit::{Ability, Errand, Failure, Kind, Kit, Operation};
use arena::{Arena, Wrong};

/// What is found of an arena that is wrong.
fn failure_of(kit: &Kit, wrong: Wrong) -> Failure {
    let failure = kit.run(|| Arena::new(wrong)).expect_err("it is found");
    println!("{wrong:?}: {failure}");
    *failure
}

/// Asserts that the fault is found, of this kind, in so many operations at most, and that they show it again.
fn finds(wrong: Wrong, kind: Kind, most: usize) -> Failure {
    let failure = failure_of(&Kit::new(), wrong);
    assert_eq!(failure.fault.kind, kind, "{wrong:?}: {failure}");
    assert!(failure.operations.len() <= most, "{wrong:?}: expected {most} operations at most: {failure}");
    assert!(failure.repeats, "{wrong:?}: {failure}");
    failure
}

/// Short streams of small blocks, for faults that take long to show, each time.
fn brief() -> Kit {
    let kit = Kit::new().longest(30).most(1 << 16, 64).limit(Duration::from_millis(500));
    let kit = kit.shrink_for(Duration::from_secs(8));
    [Ability::Exhaust, Ability::Fork, Ability::Cpus, Ability::Drain].into_iter().fold(kit, Kit::without)
}

/// What is wrong with none of these.
#[test]
fn an_arena_that_is_right_passes() {
    let passed = Kit::new().cases(30).run(|| Arena::new(Wrong::Nothing)).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{passed:?}");
    assert_eq!(passed.cases, 30);
    // A stream that reaches nothing finds nothing.
    let reached = [passed.allocated, passed.refused, passed.resized, passed.freed, passed.sent, passed.moved];
    let also = [passed.interrupted, passed.in_handlers, passed.forked, passed.drained, passed.exhausted, passed.ended];
    assert!(reached.iter().chain(&also).all(|count| *count > 0), "{passed:?}");
    // Children free what they inherited, too.
    assert!(passed.freed >= passed.allocated, "{passed:?}");
}

#[test]
fn a_block_handed_out_twice() {
    finds(Wrong::Twice, Kind::Overlap, 2);
}

#[test]
fn blocks_that_overlap() {
    finds(Wrong::Short, Kind::Overlap, 2);
}

#[test]
fn a_byte_lost_at_a_resize() {
    let failure = finds(Wrong::LostAtResize, Kind::NotKept, 2);
    let resizes = matches!(
        failure.operations[1],
        Operation::Resize { .. } | Operation::Send { errand: Errand::Resize(_), .. } // whoever does it
    );
    assert!(resizes, "{failure}");
}

#[test]
fn a_byte_that_is_not_zero() {
    let failure = finds(Wrong::Dirty, Kind::NotZero, 1);
    // Shrunk to the smallest that shows it.
    assert!(
        matches!(failure.operations[0], Operation::AllocateZeroed { size: 501..=600, align_bits: 0, .. }),
        "{failure}"
    );
}

#[test]
fn a_block_that_is_not_aligned() {
    finds(Wrong::Misaligned, Kind::Misaligned, 2);
}

#[test]
fn a_leak() {
    let failure = finds(Wrong::Leaks, Kind::Leak, 1);
    assert_eq!(failure.fault.operation, 1, "at the end: {failure}");
}

#[test]
fn wrong_errno() {
    finds(Wrong::ErrnoOfFailure, Kind::Errno, 1);
    finds(Wrong::ErrnoOfSuccess, Kind::Errno, 1);
    finds(Wrong::ErrnoOfFree, Kind::Errno, 1);
}

#[test]
fn half_of_the_address_space_for_the_asking() {
    finds(Wrong::Overflows, Kind::Granted, 1);
}

#[test]
fn what_is_refused_and_counted() {
    finds(Wrong::CountsRefused, Kind::Leak, 1);
}

#[test]
fn what_is_drained_and_held() {
    finds(Wrong::DrainsWhatIsHeld, Kind::Changed, 2);
}

#[test]
fn crashes() {
    let failure = finds(Wrong::Aborts, Kind::Crash, 3);
    assert!(failure.fault.text.contains(&libc::SIGABRT.to_string()), "{failure}");
    let failure = finds(Wrong::Unmapped, Kind::Crash, 1);
    assert!(failure.fault.text.contains(&libc::SIGSEGV.to_string()), "{failure}");
    finds(Wrong::Exits, Kind::Exit, 3);
}

#[test]
fn a_hang() {
    let failure = failure_of(&brief(), Wrong::Hangs);
    assert_eq!(failure.fault.kind, Kind::Hang, "{failure}");
    assert!(failure.operations.len() <= 2 && failure.repeats, "{failure}");
}

#[test]
fn losses_in_the_child_of_a_fork() {
    let failure = finds(Wrong::ForgetsAtFork, Kind::Overlap, 3);
    assert!(failure.fault.in_child && failure.operations.contains(&Operation::Fork), "{failure}");
    let failure = finds(Wrong::LeaksInChild, Kind::Leak, 2);
    assert!(failure.fault.in_child && failure.operations.contains(&Operation::Fork), "{failure}");
}

/// It needs two threads at the same moment: what is left depends on which attempts had it.
#[test]
fn a_block_lost_in_a_race() {
    let failure = failure_of(&brief().without(Ability::Signals).tries(3), Wrong::Races);
    assert_eq!(failure.fault.kind, Kind::Leak, "{failure}");
    let sends = failure.operations.iter().any(|operation| matches!(operation, Operation::Send { .. }));
    assert!(sends && failure.operations.len() <= 4, "{failure}");
    // One thread alone does not show it.
    let alone = Kit::new().cases(20).without(Ability::Threads).without(Ability::Signals);
    assert!(alone.run(|| Arena::new(Wrong::Races)).is_ok());
}

#[test]
fn a_lock_that_a_handler_asks_for_again() {
    let failure = failure_of(&brief().without(Ability::Threads), Wrong::NotReentrant);
    assert_eq!(failure.fault.kind, Kind::Hang, "{failure}");
    let signals = failure.operations.iter().any(|operation| matches!(operation, Operation::Signals { .. }));
    assert!(signals && failure.operations.len() <= 3, "{failure}");
}

#[test]
fn the_same_seed_finds_the_same() {
    let find = |seed| failure_of(&Kit::new().seed(seed), Wrong::Dirty).before;
    let found: Vec<_> = (0..6).map(find).collect();
    assert_eq!(found, (0..6).map(find).collect::<Vec<_>>());
    assert!(found.iter().any(|length| *length != found[0]), "{found:?}");
}

/// One that was found is played again, as a test that stays.
#[test]
fn a_stream_by_hand() {
    let allocate = |key| Operation::Allocate { size: 40, align_bits: 0, key };
    let stream = [allocate(500), allocate(100), allocate(300), Operation::Free { which: 200 }, Operation::Check];
    let done = Kit::new().play(|| Arena::new(Wrong::Nothing), &stream).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((done.cases, done.allocated, done.freed), (1, 3, 3));
    let fault = Kit::new().play(|| Arena::new(Wrong::Twice), &stream).expect_err("it is found");
    assert_eq!((fault.kind, fault.operation, fault.in_child), (Kind::Overlap, 1, false), "{fault}");
}

/// What is printed is what a reader needs: the fault, the operations one a line, the seed.
#[test]
fn a_failure_reads_well() {
    let failure = failure_of(&Kit::new().seed(3), Wrong::Dirty);
    let text = failure.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[0].starts_with("NotZero at operation 0: byte 500 of block 1 (501 bytes aligned to 1, at 0x"),
        "{text}"
    );
    assert!(lines[0].ends_with(") is 0x01, not 0"), "{text}");
    assert!(lines[1].starts_with("the stream, ") && lines[2].starts_with("   0  allocate 501, zeroed as #"), "{text}");
    assert!(lines[3].starts_with("seed 3, "), "{text}");
}
