//! `PERSEQ_SLICE`: refused for the right reason, wherever the mode is said; or granted, in every mode, with four threads
//! for each CPU.

mod kit;

use std::time::{Duration, Instant};

use kit::seccomp::Refusal;
use kit::torture::{Plan, run};
use kit::{Child, not_tested};
use perseq::rseq::slice::Refused;
use perseq::{Mode, Slices, Stats, stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const PRCTL_FORBIDDEN: [Refusal; 1] = [Refusal { call: libc::SYS_prctl, errno: libc::EPERM }];

/// Why the kernel gives none, asked without perseq's code. `None`: it gives them.
fn refused_by_the_kernel() -> Option<Refused> {
    // SAFETY: numbers only: PR_RSEQ_SLICE_EXTENSION, and what is enabled.
    let answer = unsafe { libc::prctl(79, 1, 0, 0, 0) };
    match std::io::Error::last_os_error().raw_os_error() {
        _ if answer >= 0 && registered_bytes() <= 32 => Some(Refused::ShortArea),
        _ if answer >= 0 => {
            let parameters = std::fs::read_to_string("/proc/cmdline").expect("/proc is mounted");
            parameters.contains("rseq_slice_ext=0").then_some(Refused::SwitchedOff)
        }
        Some(libc::EINVAL) => Some(Refused::Unknown),
        Some(524) => Some(Refused::NotBuilt),
        errno => panic!("prctl: errno {errno:?}"),
    }
}

/// Bytes of rseq areas here. A library of perseq's own areas has 32 where libc may have some.
fn registered_bytes() -> u32 {
    perseq::rseq::probe().map_or(0, |found| found.length())
}

/// Statistics with nothing on its way home: what was freed beside a fork that took long counts as live until then.
fn settled() -> Stats {
    perseq::drain();
    perseq::release();
    stats()
}

/// Four threads for each CPU, and everything else that may happen; all objects are accounted for.
fn torture() -> Stats {
    let threads = 4 * kit::allowed_cpus().len().clamp(1, 16);
    let plan = |seconds| Plan { threads, ..Plan::everything(seconds) };
    run(plan(Duration::from_millis(100)));
    let before = settled();
    run(plan(kit::duration(0.3)));
    let after = settled();
    assert_eq!(after.live_small_bytes, before.live_small_bytes);
    assert_eq!(after.live_large_bytes, before.live_large_bytes);
    after
}

/// What the process says of it: [`perseq::active_mode`], the text and the JSON of its statistics.
fn says(expected: Slices) {
    let (mode, said) = (perseq::active_mode(), format!("slices {expected}"));
    assert_eq!(mode.slices, expected);
    let (text, mut json) = (stats().to_string(), String::new());
    stats().write_json(&mut json).expect("a string");
    assert!(json.contains(&format!("\"slices\":\"{expected}\"")), "{json}");
    for text in [mode.to_string(), text] {
        assert_eq!(text.contains(&said), expected != Slices::Off, "{text}");
    }
}

#[test]
fn granted_in_every_mode_or_refused_with_the_reason() {
    const TEST: &str = "granted_in_every_mode_or_refused_with_the_reason";
    if kit::role().is_none() {
        for mode in Mode::ALL {
            let outcome = Child::of(TEST, "asks").mode(mode).env("PERSEQ_SLICE", "1").run().passed();
            print!("{}", outcome.stdout.lines().filter(|line| line.contains("slices")).collect::<String>() + "\n");
        }
        return;
    }
    if !kit::as_requested() {
        return;
    }
    let Some(why) = refused_by_the_kernel() else {
        says(Slices::On);
        let (mut after, begin) = (torture(), Instant::now());
        // A holder is seldom where the kernel wants the CPU, in modes that seldom have one.
        let often = matches!(after.mode.active, Mode::Sharded | Mode::PerCpuLock | Mode::Central);
        while often && after.slice_grants == 0 {
            assert!(begin.elapsed() < Duration::from_secs(100), "no extension was granted: {after:?}");
            after = torture();
        }
        println!(
            "slices on in {}: {} granted, {} holders preempted",
            after.mode.active, after.slice_grants, after.holders_preempted
        );
        return;
    };
    says(Slices::Refused(why));
    let after = torture();
    assert_eq!((after.slice_grants, after.holders_preempted), (0, 0), "nobody asks");
    not_tested("slice-extensions", format_args!("grants of slice extensions in {}", after.mode.active), why);
}

/// What holders suffer is counted without grants as well, and nothing is where nobody wants it.
#[test]
fn observed_and_off() {
    const TEST: &str = "observed_and_off";
    match kit::role().as_deref() {
        None => {
            Child::of(TEST, "observed").mode(Mode::PerCpuLock).env("PERSEQ_SLICE", "observe").run().passed();
            Child::of(TEST, "off").mode(Mode::PerCpuLock).run().passed();
            Child::of(TEST, "off").mode(Mode::PerCpuLock).env("PERSEQ_SLICE", "0").run().passed();
        }
        Some("off") => {
            says(Slices::Off);
            let after = torture();
            assert_eq!((after.slice_grants, after.holders_preempted), (0, 0));
        }
        Some(_) => match refused_by_the_kernel() {
            Some(why) => says(Slices::Refused(why)),
            None => {
                says(Slices::Observed);
                let (mut after, begin) = (torture(), Instant::now());
                while after.holders_preempted == 0 {
                    assert!(begin.elapsed() < Duration::from_secs(100), "no holder was preempted: {after:?}");
                    after = torture();
                }
                assert_eq!(after.slice_grants, 0, "nothing is granted");
                println!("slices observed: {} holders preempted", after.holders_preempted);
            }
        },
    }
}

/// A sandbox that forbids the call: the program runs all the same, and says why it does without.
#[test]
fn forbidden() {
    if kit::role().is_none() {
        let child = || Child::of("forbidden", "asks").mode(Mode::PerCpuLock).refusing(&PRCTL_FORBIDDEN);
        child().env("PERSEQ_SLICE", "1").run().passed();
        child().env("PERSEQ_SLICE", "observe").run().passed();
        return;
    }
    if kit::kernel::has_rseq() {
        says(Slices::Refused(Refused::Errno(libc::EPERM)));
    }
    let after = torture();
    assert_eq!((after.slice_grants, after.holders_preempted), (0, 0), "nobody asks");
}

/// No other value makes sense.
#[test]
fn a_value_that_makes_no_sense() {
    if kit::role().is_some() {
        return drop(Box::new([1_u8; 64]));
    }
    let outcome = Child::of("a_value_that_makes_no_sense", "asks").env("PERSEQ_SLICE", "2").run();
    outcome.aborted_saying("PERSEQ_SLICE=2: expected 0, 1 or observe");
}
