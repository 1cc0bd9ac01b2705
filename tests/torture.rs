//! The whole allocator under [`kit::torture`], in every mode: nothing is handed out twice, overwritten or lost.
//!
//! `PERSEQ_TEST_SECONDS=3600 cargo test --release --test torture` is a soak of an hour per mode.

mod kit;

use std::sync::atomic::Ordering::Relaxed;

use kit::torture::{Plan, SIGNALS, run};
use kit::{Child, seccomp};
use perseq::{Mode, Stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

#[test]
fn torture() {
    kit::in_every_mode("torture", || {
        // Once before, so that everything the standard library keeps for later is there.
        run(Plan { duration: std::time::Duration::from_millis(100), ..Plan::everything(kit::duration(4.0)) });
        let before = settled();
        let tally = run(Plan::everything(kit::duration(4.0)));
        let after = settled();
        println!("{}: {tally:?}, {} signals\n{after:?}", perseq::active_mode(), SIGNALS.load(Relaxed));
        assert_eq!(after.live_small_bytes, before.live_small_bytes, "small objects were lost or doubled");
        assert_eq!(after.live_large_bytes, before.live_large_bytes, "large objects were lost or doubled");
        for (what, count) in [
            ("operations", &tally.operations),
            ("objects sent", &tally.sent),
            ("moves", &tally.moves),
            ("forks", &tally.forks),
            ("drains", &tally.drains),
            ("short-lived threads", &tally.births),
            ("signals", &SIGNALS),
        ] {
            assert_ne!(count.load(Relaxed), 0, "the torture did without {what}");
        }
        if matches!(after.mode.active, Mode::PerCpu | Mode::PerCpuMmCid) {
            assert!(after.index_changes > before.index_changes, "no thread ever moved: {after:?}");
            assert_eq!(after.cached_bytes, 0, "drained: {after:?}");
        }
    });
}

/// A mode that cannot run is a failure where CI is to test it, and said elsewhere.
#[test]
fn a_mode_that_is_refused_is_no_success_of_ci() {
    let again = || Child::of("torture", "in every mode").mode(Mode::PerCpu).refusing(&seccomp::MEMBARRIER_FORBIDDEN);
    let unsaid = again().without("CI").run().passed();
    assert!(unsaid.stderr.contains("not tested: mode percpu: "), "{unsaid}");
    let failed = again().env("CI", "1").without("PERSEQ_CI_ALLOWS").run();
    let said = failed.stdout.contains("not tested under CI") || failed.stderr.contains("not tested under CI");
    assert!(!failed.status.success() && said, "{failed}");
    again().env("CI", "1").env("PERSEQ_CI_ALLOWS", "git membarrier").run().passed();
}

/// With caches so small that lists lose their arrays to each other all the time.
#[test]
fn torture_of_small_caches() {
    const TEST: &str = "torture_of_small_caches";
    if kit::role().is_none() {
        for mode in Mode::ALL.into_iter().filter(|mode| *mode != Mode::Central) {
            Child::of(TEST, "small").mode(mode).env("PERSEQ_CACHE_BYTES", "48K").run().passed();
            // With everything that takes caches from their owners, as often as can be.
            let shared = Child::of(TEST, "shared").mode(mode).env("PERSEQ_TOTAL_BYTES", "200K");
            let often = shared.env("PERSEQ_IDLE_DRAIN", "1").env("PERSEQ_SHARDS", "3");
            often.env("PERSEQ_TRANSFER_SHARDS", "3").run().passed();
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    run(Plan { duration: std::time::Duration::from_millis(100), ..Plan::everything(kit::duration(1.5)) });
    let before = settled();
    run(Plan::everything(kit::duration(1.5)));
    let after = settled();
    assert_eq!(after.live_small_bytes, before.live_small_bytes, "small objects were lost or doubled");
    assert_eq!(after.live_large_bytes, before.live_large_bytes, "large objects were lost or doubled");
    if kit::role().as_deref() == Some("shared") && after.mode.active != Mode::PerThread {
        assert!(after.idle_drains > before.idle_drains, "no cache was ever found idle: {after:?}");
        assert!(after.lendings > before.lendings, "no cache ever lent to another: {after:?}");
    }
}

/// Statistics with the caches emptied, while no other thread runs.
fn settled() -> Stats {
    perseq::drain();
    perseq::release();
    perseq::check();
    let stats = perseq::stats();
    assert_eq!(stats.transfer_bytes, 0, "released: {stats:?}");
    // Of a page of the kernel's that is larger than perseq's, a part may be in use.
    let left = if kit::page_bytes() > perseq::PAGE_SIZE as u64 { stats.held_bytes / 2 } else { 0 };
    assert!(stats.free_page_bytes <= left, "released: {stats:?}");
    stats
}
