//! What becomes of threads that are preempted while they hold a lock of the allocator's, with time slice extensions and
//! without: `PERSEQ_SLICE` observe, 1 and 0, four threads for each CPU, in the modes that take locks most often.
//!
//! ```sh
//! cargo bench --bench slices             # where the kernel gives extensions; else tests/kernels/slice.sh, in a guest
//! ```
//!
//! A sample is a process: its threads replace blocks of 16 to 512 bytes in slots of their own. Samples of a block come in
//! the order of the arms, and in the next block in the opposite one. Printed are means over the blocks, and behind them the
//! least and the greatest block: operations in a second, and for each million of them how often a holder was preempted,
//! how often one was granted more time that was enough, and how often a thread slept to wait for a lock. Where a
//! number is not counted (preempted holders without extensions, except observed) it says `-`.
//!
//! In the environment: `PERSEQ_TEST_SLICE_SECONDS`, `PERSEQ_TEST_SLICE_BLOCKS`. `--test` is a trial: short samples, once,
//! and where extensions are refused only those without, behind the reason.

use std::hint::black_box;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use perseq::Slices;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const SAMPLE: &str = "PERSEQ_TEST_SLICE_SAMPLE";
const MODES: [&str; 4] = ["percpu-lock", "sharded", "central", "percpu"];
const ARMS: [&str; 3] = ["observe", "1", "0"];

/// Code of a sample whose slices were refused.
const REFUSED: i32 = 3;

/// Operations a second, and preempted holders, grants and sleeps in a million operations.
type Sample = [f64; 4];

fn main() {
    let number = |name, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    if std::env::var_os(SAMPLE).is_some() {
        let [rate, preempted, granted, slept] =
            sample(Duration::from_secs_f64(number("PERSEQ_TEST_SLICE_SECONDS", 2.0)));
        return println!("{rate} {preempted} {granted} {slept}");
    }
    let trial = std::env::args().any(|argument| argument == "--test");
    let (seconds, blocks) = if trial {
        (0.05, 1)
    } else {
        (number("PERSEQ_TEST_SLICE_SECONDS", 2.0), number("PERSEQ_TEST_SLICE_BLOCKS", 4.0) as usize)
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{blocks} blocks of {seconds} s, {} threads on {cpus} CPUs", 4 * cpus);
    println!(
        "{:12} {:8} {:>30} {:>24} {:>24} {:>26}",
        "mode", "slices", "operations/s", "preempted/M", "granted/M", "slept/M"
    );
    for mode in MODES {
        let mut samples: [Vec<Sample>; ARMS.len()] = Default::default();
        for block in 0..blocks {
            for turn in 0..ARMS.len() {
                let arm = if block % 2 == 0 { turn } else { ARMS.len() - 1 - turn };
                match measure(mode, ARMS[arm], seconds) {
                    Ok(sample) => samples[arm].push(sample),
                    Err(why) if trial => print!("{mode:12} {:8} {why}", ARMS[arm]),
                    Err(why) => {
                        eprint!("{mode}, {}: {why}", ARMS[arm]);
                        exit(1);
                    }
                }
            }
        }
        for (arm, samples) in ARMS.iter().zip(&samples).filter(|(_, samples)| !samples.is_empty()) {
            let show = |of: usize, digits: usize| {
                if *arm == "0" && (of == 1 || of == 2) {
                    return "-".to_owned();
                }
                let values: Vec<f64> = samples.iter().map(|sample| sample[of]).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let (least, most) = values.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
                format!("{mean:.digits$} ({least:.digits$} to {most:.digits$})")
            };
            println!("{mode:12} {arm:8} {:>30} {:>24} {:>24} {:>26}", show(0, 0), show(1, 2), show(2, 2), show(3, 1));
        }
    }
}

/// A sample in a process of its own, or why its slices were refused.
fn measure(mode: &str, arm: &str, seconds: f64) -> Result<Sample, String> {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.env(SAMPLE, "1").env("PERSEQ_MODE", mode).env("PERSEQ_SLICE", arm);
    command.env("PERSEQ_TEST_SLICE_SECONDS", seconds.to_string());
    let output = command.output().expect("it starts");
    if output.status.code() == Some(REFUSED) {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert!(output.status.success(), "{mode}, {arm}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    Ok(numbers.try_into().expect("four numbers"))
}

fn sample(time: Duration) -> Sample {
    let mode = perseq::active_mode();
    if matches!(mode.slices, Slices::Refused(_)) {
        eprintln!("slices {}", mode.slices);
        exit(REFUSED);
    }
    let threads = 4 * std::thread::available_parallelism().map_or(1, usize::from);
    let (stop, operations, begin) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (stop, operations) = (&stop, &operations);
            scope.spawn(move || operations.fetch_add(replace(thread as u64 + 1, stop), Relaxed));
        }
        std::thread::sleep(time);
        stop.store(true, Relaxed);
    });
    let (seconds, stats) = (begin.elapsed().as_secs_f64(), perseq::stats());
    let millions = operations.into_inner() as f64 / 1e6;
    let each = |count: u64| count as f64 / millions;
    [millions * 1e6 / seconds, each(stats.holders_preempted), each(stats.slice_grants), each(sleeps())]
}

/// Replaces blocks until it is stopped; returns how many it allocated and freed.
fn replace(seed: u64, stop: &AtomicBool) -> u64 {
    let mut slots: Vec<Vec<u8>> = (0..64).map(|_| Vec::new()).collect();
    let (mut state, mut operations) = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0);
    while !stop.load(Relaxed) {
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            slots[(state >> 32) as usize % 64] = black_box(Vec::with_capacity(16 + (state % 497) as usize));
        }
        operations += 128;
    }
    operations
}

/// Times that threads of this process gave up a CPU to wait: for locks, as nothing else here waits.
fn sleeps() -> u64 {
    // SAFETY: all-zero bytes are a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is ours to be written.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_nvcsw as u64
}
