//! What the rungs hand out is right, and the checker would see if it were not. Each does in memory what its chapter says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use perseq_guide::size_classes::{CLASSES, class_of, object_bytes};
use perseq_guide::{Allocator, RUNGS, checker, rung};

#[path = "../../../../rseq/tests/kit/absence.rs"]
mod absence;
#[path = "../../../../tests/kit/seccomp.rs"]
#[allow(dead_code)] // one filter of several
mod seccomp;

/// The command, ended with a failure if it takes longer than two minutes.
fn guide(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", env!("CARGO_BIN_EXE_perseq-guide")]).args(arguments);
    prepare(&mut command);
    command.output().expect("timeout starts")
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out.into_owned()
}

#[test]
fn every_rung_hands_out_what_was_asked_for() {
    let begin = Instant::now();
    for (name, allocator) in RUNGS {
        for seed in 0..3 {
            checker::check(allocator, 4, 4000, seed * 100).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        }
        // One thread, which always finds what it freed itself.
        checker::check(allocator, 1, 4000, 7).unwrap_or_else(|wrong| panic!("{name}, one thread: {wrong}"));
        assert!(begin.elapsed() < Duration::from_secs(300), "{name} is slow");
    }
}

/// What is wrong with a planted allocator.
#[derive(Clone, Copy)]
enum Fault {
    Twice,
    Scribbled,
    Misaligned,
    Dirty,
    Forgotten,
}

/// Bytes of each faulty block: more than the checker asks for, so that what goes wrong stays within blocks.
const ROOM: usize = 256 << 10;

/// The C library's allocator with a fault, in one of 64 calls.
struct Faulty {
    fault: Fault,
    calls: AtomicUsize,
    last: AtomicPtr<u8>,
}

// SAFETY: it breaks the contract: that is what it is for. Its memory is the C library's, nothing is freed, and every block
// has room for what the checker writes into any.
unsafe impl GlobalAlloc for Faulty {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let due = self.calls.fetch_add(1, Relaxed) % 64 == 63;
        let roomy = Layout::from_size_align(ROOM, layout.align().max(16)).expect("a layout");
        // SAFETY: it is not empty.
        let block = unsafe { System.alloc(roomy) };
        let last = self.last.swap(block, Relaxed);
        match self.fault {
            Fault::Twice if due && !last.is_null() => last,
            Fault::Scribbled if due && !last.is_null() => {
                // SAFETY: it was allocated and never freed.
                unsafe { last.write(last.read().wrapping_add(1)) };
                block
            }
            Fault::Misaligned if due && layout.align() >= 16 => block.wrapping_add(8),
            Fault::Forgotten if due => ptr::null_mut(),
            _ => block,
        }
    }

    unsafe fn dealloc(&self, _pointer: *mut u8, _layout: Layout) {}

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by our own contract.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: just allocated, of this size.
            unsafe { block.write_bytes(u8::from(matches!(self.fault, Fault::Dirty)), layout.size()) };
        }
        block
    }
}

#[test]
fn the_checker_sees_planted_faults() {
    for (fault, words) in [
        (Fault::Twice, "overlaps"),
        (Fault::Scribbled, "changed"),
        (Fault::Misaligned, "is not aligned"),
        (Fault::Dirty, "is not zero"),
        (Fault::Forgotten, "no memory"),
    ] {
        let planted: Allocator =
            Box::leak(Box::new(Faulty { fault, calls: AtomicUsize::new(0), last: AtomicPtr::new(ptr::null_mut()) }));
        let found = checker::check(planted, 1, 20_000, 3).expect_err("a planted fault");
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn a_class_is_as_long_and_as_aligned_as_what_it_is_for() {
    for size in 1..=33_000 {
        for align in (0..14).map(|shift| 1 << shift) {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let Some(class) = class_of(layout) else {
                assert!(size > 32 << 10 || align > 4096, "{layout:?} is small");
                continue;
            };
            let bytes = object_bytes(class);
            assert!(class < CLASSES && size <= bytes && bytes.is_multiple_of(align.min(4096)), "{layout:?}: {bytes}");
            let is_smallest = class == 0 || object_bytes(class - 1) < size;
            assert!(align > 16 || is_smallest, "{layout:?}: {bytes} is not the smallest class");
        }
    }
    assert!((1..CLASSES).all(|class| object_bytes(class - 1) < object_bytes(class)));
}

/// Leaves the calling process the first two of the CPUs that it may use.
fn on_two_cpus() -> std::io::Result<()> {
    // SAFETY: zeros are an empty set; the kernel writes one and reads another, both of this size.
    unsafe {
        let (mut allowed, mut chosen): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let cpus = (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed));
        cpus.take(2).for_each(|cpu| libc::CPU_SET(cpu, &mut chosen));
        if libc::sched_setaffinity(0, size, &raw const chosen) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Bytes that a rung holds in a workload, from a process of its own with two CPUs at most: so many caches there are.
fn held(name: &str, workload: &str) -> f64 {
    let output = guide(&["--sample", name, workload], |command| {
        // SAFETY: between fork and exec, system calls only.
        unsafe { command.pre_exec(on_two_cpus) };
    });
    said(&output).trim().parse().expect("a number")
}

/// Memory does not depend on how busy the machine is, so what the chapters say of it is looked at here.
#[test]
fn each_rung_holds_less_where_its_chapter_says_so() {
    for (workload, less, more, most) in [
        ("phases", "free_list", "bump", 0.7),
        ("phases", "free_list", "page_heap", 1.0),
        ("sleepers", "per_cpu", "per_thread", 0.5),
        ("phases", "page_heap", "transfer_cache", 0.7),
        ("burst", "giving_back", "page_heap", 0.3),
    ] {
        let (found, reference) = (held(less, workload), held(more, workload));
        assert!(found < most * reference, "{workload}: {less} holds {found} bytes, {more} {reference}");
    }
}

/// A process that gets the CPU for a moment in every third of a second gives a burst back as others do.
#[test]
fn a_burst_goes_back_though_the_process_hardly_runs() {
    let full = held("page_heap", "burst");
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq-guide"));
    let mut process =
        command.args(["--sample", "giving_back", "burst"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let signal = |number| {
        // SAFETY: a system call. The process has not been waited for, so the number is its own.
        assert_eq!(unsafe { libc::kill(process.id().cast_signed(), number) }, 0);
    };
    let begin = Instant::now();
    // So many that it has ended before, unless it hangs; a process that has ended is not yet another's number.
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(50));
        signal(libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(340));
        signal(libc::SIGCONT);
    }
    let output = loop {
        if process.try_wait().expect("its status").is_some() {
            break process.wait_with_output().expect("what it said");
        }
        if begin.elapsed() > Duration::from_secs(120) {
            process.kill().expect("it can be ended");
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let found: f64 = said(&output).trim().parse().expect("a number");
    assert!(found < 0.3 * full, "{found} bytes are held, {full} without giving back");
}

#[test]
fn the_table_has_a_ratio_for_each_workload() {
    let output = guide(&["per_cpu", "--blocks", "2", "--percent", "1"], |_| {});
    let table = said(&output);
    for workload in &perseq_guide::workload::WORKLOADS {
        let line = table.lines().find(|line| line.starts_with(workload.name)).expect("a line for each workload");
        assert_eq!(line.matches('[').count(), 2, "a ratio, and that of the same again: {line}");
    }
    assert!(table.contains("per_cpu beside per_thread: n = 2"), "{table}");
}

#[test]
fn what_makes_no_sense_is_said() {
    for (arguments, words) in [
        (&[] as &[&str], "expected a rung"),
        (&["jemalloc"], "no rung jemalloc: expected one of system, bump"),
        (&["system"], "has no rung before it"),
        (&["bump", "--blocks", "1"], "--blocks 1: expected 2"),
        (&["bump", "--blocks"], "--blocks has no value"),
        (&["bump", "--fast", "1"], "no option --fast"),
        (&["--sample", "bump", "nothing"], "no workload nothing"),
    ] {
        let output = guide(arguments, |_| {});
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(words) && err.contains("usage:"), "{arguments:?}: {err}");
    }
    assert!(rung("per_cpu").is_some() && rung("jemalloc").is_none());
}

/// Where a filter forbids rseq, all threads share a cache under a lock, and are told so.
#[test]
fn where_sequences_are_refused_lists_take_a_lock() {
    if let Err(why) = std::thread::spawn(|| seccomp::install(&[])).join().expect("no panic") {
        return absence::not_tested("seccomp", "lists of CPUs without sequences", why);
    }
    for rung in ["per_cpu", "giving_back"] {
        let output = guide(&["--check", rung], |command| {
            // SAFETY: between fork and exec, system calls only.
            unsafe { command.pre_exec(|| seccomp::install(&seccomp::RSEQ_FORBIDDEN)) };
        });
        let text = said(&output);
        assert!(text.contains("right") && text.contains("under a lock"), "{text}");
    }
    // And elsewhere they do not.
    let text = said(&guide(&["--check", "per_cpu"], |_| {}));
    match rseq::probe() {
        Ok(_) => assert!(text.contains("available"), "{text}"),
        Err(why) => absence::not_tested("rseq", "lists of CPUs in sequences", why),
    }
}
