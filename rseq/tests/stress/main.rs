//! Conservation under everything at once, and controls that must lose it.
//!
//! Objects have an owner word. Who pops one changes it from 0 to 1, and finds a 1 if somebody else has it;
//! who pushes one sets it to 0. At the end every object is found exactly once. Meanwhile there are more
//! threads than CPUs, they change their affinity, signal handlers use the same lists, and another thread
//! stops slabs and rows and takes what is in them.
//!
//! The sequences run as shipped, and in variants made from the same files that pause in front of a random
//! instruction. The controls are variants with one defect, or a drain without its fence or its stop word; they
//! show that a defect is found. Each scenario has a process of its own, since a defect corrupts it.
//!
//! A sound scenario runs for two seconds, or for `RSEQ_STRESS_SECONDS`.
//!
//! Variants are written for x86-64. Elsewhere the sequences run as shipped, and the controls do not.
#[path = "../kit/mod.rs"]
mod kit;
mod lists;
mod play;
mod variants;

use std::env;
use std::process::{Command, exit};
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use lists::*;
use play::*;
use rseq::slab::{Slot, make_array};
use rseq::{CpuId, Handle, Index, Miss, MmCid, Registration, Rows, STOPPED, Slab, local, sequence};
use variants::{Change, Library, Numbers, POINTS};

const LISTS: usize = 2;
const CAPACITY: usize = 24;
const BATCH: usize = 6;
const OBJECTS: usize = 160;
/// How long a control may take to be found out.
const PATIENCE: Duration = Duration::from_secs(60);
const VARIANTS: bool = cfg!(target_arch = "x86_64");
/// The exit code of a process that found its objects corrupted.
const CORRUPT: i32 = 7;

/// An object, and a node: the link comes first.
#[repr(C, align(16))]
struct Object {
    link: AtomicUsize,
    owner: AtomicU32,
}

/// What is done wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    NotArmed,
    NotChecked,
    /// The drain stores the stop word and does not fence.
    NoFence,
    /// The drain fences and does not store the stop word.
    NoStopWord,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    /// Linked lists and counters in rows; else array lists in slabs.
    rows: bool,
    mm_cid: bool,
    /// Variants with delay points instead of the sequences as shipped.
    delays: bool,
    fault: Fault,
}

/// Plays `scenario` in a process of its own; says how it ended and what it printed, its errors last.
fn play_apart(test: &str, scenario: Scenario, time: Duration) -> (Option<i32>, String) {
    let Scenario { rows, mm_cid, delays, fault } = scenario;
    let fault = FAULTS.iter().position(|&known| known == fault).expect("a fault");
    let code = format!("{} {} {} {fault} {}", rows as u8, mm_cid as u8, delays as u8, time.as_millis());
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, code)
        .output()
        .expect("starts");
    let said = [output.stdout, b"\n--- its errors\n".to_vec(), output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

const VARIABLE: &str = "RSEQ_STRESS_SCENARIO";
const FAULTS: [Fault; 5] = [Fault::None, Fault::NotArmed, Fault::NotChecked, Fault::NoFence, Fault::NoStopWord];

/// In a process that [`play_apart`] started: plays, and does not return.
fn play_if_asked() {
    let Ok(code) = env::var(VARIABLE) else { return };
    let numbers: Vec<u64> = code.split(' ').map(|number| number.parse().expect("a number")).collect();
    let scenario = Scenario {
        rows: numbers[0] != 0,
        mm_cid: numbers[1] != 0,
        delays: numbers[2] != 0,
        fault: FAULTS[numbers[3] as usize],
    };
    // A corrupted list may also send a thread round and round.
    // SAFETY: sets a timer.
    unsafe { libc::alarm((numbers[4] / 1000) as u32 + 60) };
    play(scenario, Duration::from_millis(numbers[4]));
    exit(0);
}

/// Whether sequences on this index can run here; says so if not.
fn can_run(mm_cid: bool) -> bool {
    let found = rseq::probe();
    let can = found.is_ok_and(|found| if mm_cid { found.has::<MmCid>() } else { found.has::<CpuId>() });
    if !can {
        let absent = if mm_cid && found.is_ok() { "mm-cid" } else { "rseq" };
        kit::not_tested(absent, "conservation under stress", format_args!("{found:?}"));
    }
    can
}

fn conserves(test: &str, rows: bool, mm_cid: bool) {
    play_if_asked();
    if !can_run(mm_cid) {
        return;
    }
    let seconds =
        env::var("RSEQ_STRESS_SECONDS").map_or(2, |text| text.parse().expect("RSEQ_STRESS_SECONDS is a number"));
    for delays in [false, true].into_iter().filter(|delays| VARIANTS || !delays) {
        let scenario = Scenario { rows, mm_cid, delays, fault: Fault::None };
        let (code, output) = play_apart(test, scenario, Duration::from_secs(seconds));
        assert_eq!(code, Some(0), "{scenario:?}: {output}");
        print!("{output}");
    }
}

fn is_found_out(test: &str, rows: bool, fault: Fault) {
    play_if_asked();
    if !VARIANTS {
        return kit::not_tested("x86-64", "sequences with a defect", "their variants are written for it");
    }
    for mm_cid in [false, true] {
        if !can_run(mm_cid) {
            continue;
        }
        let scenario = Scenario { rows, mm_cid, delays: true, fault };
        let started = Instant::now();
        let (code, output) = play_apart(test, scenario, PATIENCE);
        let what =
            output.lines().find_map(|line| line.split_once("corrupt: ")).map_or("killed by a signal", |(_, what)| what);
        // A corrupted list may also send a thread to an address that is none.
        assert!(code.is_none() || code == Some(CORRUPT), "{scenario:?} was not found out: {code:?}\n{output}");
        println!("{scenario:?}: {what} after {:?}", started.elapsed());
    }
}

#[test]
fn slabs_by_cpu_id_conserve() {
    conserves("slabs_by_cpu_id_conserve", false, false);
}

#[test]
fn slabs_by_mm_cid_conserve() {
    conserves("slabs_by_mm_cid_conserve", false, true);
}

#[test]
fn rows_by_cpu_id_conserve() {
    conserves("rows_by_cpu_id_conserve", true, false);
}

#[test]
fn rows_by_mm_cid_conserve() {
    conserves("rows_by_mm_cid_conserve", true, true);
}

#[test]
fn slabs_not_armed() {
    is_found_out("slabs_not_armed", false, Fault::NotArmed);
}

#[test]
fn slabs_not_checked() {
    is_found_out("slabs_not_checked", false, Fault::NotChecked);
}

#[test]
fn slabs_not_fenced() {
    is_found_out("slabs_not_fenced", false, Fault::NoFence);
}

#[test]
fn slabs_not_stopped() {
    is_found_out("slabs_not_stopped", false, Fault::NoStopWord);
}

#[test]
fn rows_not_armed() {
    is_found_out("rows_not_armed", true, Fault::NotArmed);
}

#[test]
fn rows_not_checked() {
    is_found_out("rows_not_checked", true, Fault::NotChecked);
}

#[test]
fn rows_not_fenced() {
    is_found_out("rows_not_fenced", true, Fault::NoFence);
}

#[test]
fn rows_not_stopped() {
    is_found_out("rows_not_stopped", true, Fault::NoStopWord);
}
