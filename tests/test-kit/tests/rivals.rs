//! Allocators that people use: the kit finds nothing wrong with them.

use std::alloc::System;

use allocator_test_kit::{Ability, ByC, ByGlobal, Kit, Subject, Tally};
use dlmalloc::GlobalDlmalloc;

fn passes<S: Subject>(kit: &Kit, make: impl Fn() -> S) -> Tally {
    let passed = kit.run(make).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{passed:?}");
    let reached = [passed.allocated, passed.refused, passed.resized, passed.freed, passed.sent, passed.interrupted];
    assert!(reached.iter().all(|count| *count > 0), "{passed:?}");
    passed
}

#[test]
fn the_systems() {
    assert!(passes(&Kit::new().cases(40), || ByGlobal(System)).forked > 0);
}

#[test]
fn the_c_librarys() {
    assert!(passes(&Kit::new().cases(40), ByC::of_the_process).forked > 0);
}

#[test]
fn dlmalloc() {
    // SAFETY: registers handlers of forks, before anything was allocated with it.
    unsafe { dlmalloc::enable_alloc_after_fork() };
    let make = || ByGlobal(GlobalDlmalloc);
    assert!(passes(&Kit::new().cases(40), make).forked > 0);
}

/// It promises nothing to the child of a fork whose parent had threads.
#[test]
fn rlsf() {
    static RLSF: ByGlobal<rlsf::GlobalTlsf> = ByGlobal(rlsf::GlobalTlsf::new());
    passes(&Kit::new().cases(40).without(Ability::Fork), || &RLSF);
}

/// A library that was not preloaded has functions of its own.
#[test]
fn a_shared_library_that_is_not_there() {
    let error = ByC::of_library("/nonexistent/liballocator.so".as_ref(), "").err().expect("an error");
    assert!(error.contains("/nonexistent/liballocator.so"), "{error}");
    // One that has no such functions.
    let error = ByC::of_library("libm.so.6".as_ref(), "nobodys_").err().expect("an error");
    assert!(error.contains("nobodys_malloc"), "{error}");
}
