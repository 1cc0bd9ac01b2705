//! Peak memory and time of programs that are hard on a page heap, each in a fresh process:
//!
//! ```sh
//! cargo bench --bench pages                                  # perseq and the C library
//! cargo bench --bench pages -- /usr/lib/.../libjemalloc.so.2  # and whatever is preloaded
//! ```
//!
//! The peak is the kernel's (`VmHWM`), the least of the runs; time is their median. Allocators take turns, run by run.
//! The last lines are perseq's peaks over the least of what is preloaded: the C library's is not among these.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Instant;

/// What a child process is to run, and on what: `churn perseq`. Tests' and benches' variables are not perseq's.
const TASK: &str = "PERSEQ_TEST_TASK";
const RUNS: usize = 5;

/// Perseq in the children that measure it, the C library's malloc, or what is preloaded for it, in all others.
struct Either;

static PERSEQ: perseq::Perseq = perseq::Perseq::new();
static IS_PERSEQ: AtomicU8 = AtomicU8::new(2);

#[inline]
fn is_perseq() -> bool {
    match IS_PERSEQ.load(Relaxed) {
        2 => {
            // SAFETY: the name ends with a zero, and nobody changes the environment.
            let task = unsafe { libc::getenv(c"PERSEQ_TEST_TASK".as_ptr()) };
            // SAFETY: null or a C string.
            let is = !task.is_null() && unsafe { std::ffi::CStr::from_ptr(task) }.to_bytes().ends_with(b" perseq");
            IS_PERSEQ.store(is.into(), Relaxed);
            is
        }
        is => is == 1,
    }
}

// SAFETY: each forwards to one and the same allocator throughout a process.
unsafe impl GlobalAlloc for Either {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by our own contract, here and below.
        unsafe { if is_perseq() { PERSEQ.alloc(layout) } else { System.alloc(layout) } }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { if is_perseq() { PERSEQ.dealloc(pointer, layout) } else { System.dealloc(pointer, layout) } }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_perseq() { PERSEQ.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_perseq() { PERSEQ.realloc(pointer, layout, size) } else { System.realloc(pointer, layout, size) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: Either = Either;

type Workload = (&'static str, &'static str, fn(usize));

const WORKLOADS: [Workload; 6] = [
    ("nothing", "starts and ends", |_| {}),
    ("churn", "48 blocks of 32 KiB to 8 MiB, replaced at random", churn),
    ("vectors", "12 vectors that grow in turn", vectors),
    ("lifetimes", "1 in 20 objects lives long, 16 B to 64 KiB", lifetimes),
    ("sizes", "40 sizes in turn, 1 in 32 objects is kept", sizes),
    ("phases", "96 MiB of small, then of middling, then of large objects", phases),
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % limit
    }

    /// Between `1 << low` and `1 << high`, each doubling as likely.
    fn size(&mut self, low: usize, high: usize) -> usize {
        let bits = low + self.below(high - low);
        (1 << bits) + self.below(1 << bits)
    }
}

/// So many bytes, all touched.
fn block(bytes: usize) -> Vec<u8> {
    vec![1; bytes]
}

fn churn(scale: usize) {
    let mut random = Random(1);
    let mut held: Vec<Vec<u8>> = (0..48).map(|_| block(random.size(15, 23))).collect();
    for _ in 0..20 * scale {
        let index = random.below(held.len());
        held[index] = Vec::new();
        held[index] = block(random.size(15, 23));
    }
}

fn vectors(scale: usize) {
    let mut vectors: Vec<Vec<u64>> = vec![Vec::new(); 12];
    for step in 0..10 * scale {
        for (number, vector) in vectors.iter_mut().enumerate() {
            vector.extend((0..256 * (number as u64 + 1)).map(|value| value + step as u64));
        }
    }
}

fn lifetimes(scale: usize) {
    let mut random = Random(2);
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for step in 0..2000 * scale {
        let object = block(random.size(4, 16));
        if step % 20 == 0 {
            long.push(object);
        } else {
            short.push(object);
        }
        if short.len() > 2000 {
            let index = random.below(short.len());
            short.swap_remove(index);
        }
        if long.len() > 1500 {
            let index = random.below(long.len());
            long.swap_remove(index);
        }
    }
}

fn sizes(scale: usize) {
    let mut kept = Vec::new();
    for size in (0..40).map(|step| 16.0 * 1.25_f64.powi(step)) {
        let objects: Vec<_> = (0..(scale << 18) / size as usize).map(|_| block(size as usize)).collect();
        kept.extend(objects.into_iter().enumerate().filter(|(index, _)| index % 32 == 0).map(|(_, object)| object));
    }
}

fn phases(scale: usize) {
    for _ in 0..2 {
        for size in [48, 700, 5000, 40_000, 1 << 20] {
            let count = (scale << 20) / size;
            std::hint::black_box((0..count).map(|_| block(size)).collect::<Vec<_>>());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|text| text != "--bench").collect();
    let quick = arguments.iter().any(|text| text == "--test");
    if let Ok(task) = std::env::var(TASK) {
        let (name, _) = task.split_once(' ').expect("a workload and an allocator");
        let (_, _, run) = WORKLOADS.iter().find(|(known, ..)| *known == name).expect("a workload");
        let start = Instant::now();
        run(if quick { 2 } else { 96 });
        let seconds = start.elapsed().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        println!("{} {seconds}", peak.trim().trim_end_matches(" kB"));
        return;
    }
    let mut allocators = vec![("perseq", None), ("libc", None)];
    for path in arguments.iter().filter(|text| !text.starts_with('-')) {
        if !std::path::Path::new(path).is_file() {
            eprintln!("{path}: expected the path of a shared library to preload");
            std::process::exit(2);
        }
        allocators.push((path.rsplit('/').next().expect("a name"), Some(path)));
    }
    println!("{:<10} {:<30} {:>10} {:>8} {:>9}", "workload", "allocator", "peak KiB", "/ least", "seconds");
    let mut ratios = Vec::new();
    for (workload, what, _) in WORKLOADS {
        println!("{workload}: {what}");
        let mut results: Vec<Vec<(u64, f64)>> = vec![Vec::new(); allocators.len()];
        for _ in 0..if quick { 1 } else { RUNS } {
            for (results, (name, path)) in results.iter_mut().zip(&allocators) {
                results.push(measure(workload, name, *path, quick));
            }
        }
        let peaks: Vec<u64> = results.iter().map(|runs| runs.iter().map(|run| run.0).min().expect("a run")).collect();
        let least = *peaks.iter().min().expect("an allocator");
        for (((name, _), peak), runs) in allocators.iter().zip(&peaks).zip(&mut results) {
            runs.sort_by(|a, b| a.1.total_cmp(&b.1));
            let (ratio, seconds) = (*peak as f64 / least as f64, runs[runs.len() / 2].1);
            println!("{:<10} {name:<30} {peak:>10} {ratio:>8.2} {seconds:>9.3}", "");
        }
        let preloaded = allocators.iter().zip(&peaks).filter(|((_, path), _)| path.is_some());
        if let Some(((rival, _), least)) = preloaded.min_by_key(|(_, peak)| **peak) {
            ratios.push((workload, *rival, peaks[0] as f64 / *least as f64));
        }
    }
    if !ratios.is_empty() {
        println!("perseq's peak / the least of the preloaded");
    }
    for (workload, rival, ratio) in ratios {
        println!("{workload:<10} {rival:<30} {:>10} {ratio:>8.3}", "");
    }
}

/// One run in a process of its own: KiB at the peak, and seconds.
fn measure(workload: &str, name: &str, preload: Option<&String>, quick: bool) -> (u64, f64) {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.env(TASK, format!("{workload} {name}")).args(quick.then_some("--test"));
    if let Some(path) = preload {
        command.env("LD_PRELOAD", path);
    }
    let output = command.output().expect("this program starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    let parsed = text.trim().split_once(' ').and_then(|(peak, time)| Some((peak.parse().ok()?, time.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("{workload} on {name}: {}, {output:?}", output.status))
}
