//! What it costs a process that another one reads its numbers (`perseq top`), as a ratio to the same process left alone.
//!
//! ```sh
//! cargo bench --bench watched -- target/release/perseq --modes percpu,perthread
//! ```
//!
//! The watched process stays on one CPU and does turns of some ten milliseconds of each pattern. In an epoch, which is
//! one process, the arms take turns in random order: left alone, left alone `again` (the noise), and watched as often as
//! `perseq top` can be told to, from another CPU and from the process's own. In between `perseq top` is stopped. A turn is
//! compared with the one left alone in the same round; the epoch's ratio is the median of its turns', and printed is the
//! median of the epochs with its 95 % interval by order statistics: of the process's own CPU time, and of the time that
//! passed. The last column is how often it gave its CPU up in a turn to wait for something, as for the lock of its address
//! space, which a reader of its memory takes.
//!
//! Options: `--modes A,B` (PERSEQ_MODE), `--epochs N` and `--turns N`. Without the command nobody watches, and the noise
//! alone is printed.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

mod kit;

use kit::estimate::Estimate;
use kit::random::Random;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const WORKER: &str = "BENCH_WORKER";

/// Name, and the turn.
type Pattern = (&'static str, fn(&mut Vec<Vec<u8>>));

const PATTERNS: &[Pattern] = &[
    ("64 B, allocated and freed", |_| (0..2_000_000).for_each(|_| drop(black_box(Box::new([0_u64; 8]))))),
    ("1 to 4,096 B, in random slots of 4,096", random),
    ("64 KiB mapped, touched and unmapped", |_| (0..1_000).for_each(|_| mapped())),
];

fn random(slots: &mut Vec<Vec<u8>>) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    slots.resize(4096, Vec::new());
    for _ in 0..300_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        slots[(state >> 32) as usize % 4096] = black_box(Vec::with_capacity(1 + (state as usize & 4095)));
    }
}

/// Page faults and changes of the address space, which readers of the process's memory make the kernel lock.
fn mapped() {
    const BYTES: usize = 64 << 10;
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, rights, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "no memory");
    for place in (0..BYTES).step_by(4096) {
        // SAFETY: in the mapping, which is ours.
        unsafe { start.cast::<u8>().add(place).write_volatile(1) };
    }
    // SAFETY: it is ours, and nobody has it any more.
    unsafe { libc::munmap(start, BYTES) };
}

/// Seconds between two looks: as few as `perseq top` takes.
const INTERVAL: &str = "0.01";

/// Nanoseconds of CPU time and of a clock, and how often the process waited.
type Taken = [f64; 3];

/// Does what it is told.
fn work() {
    kit::pin();
    let mut slots = Vec::new();
    let mut pattern = [0];
    while std::io::stdin().read_exact(&mut pattern).is_ok() {
        let (cpu, waited, clock) = (cpu_ns(), waits(), Instant::now());
        PATTERNS[usize::from(pattern[0])].1(&mut slots);
        let taken: Taken = [cpu_ns() - cpu, clock.elapsed().as_nanos() as f64, waits() - waited];
        let answer = taken.map(f64::to_ne_bytes).concat();
        std::io::stdout().write_all(&answer).and_then(|()| std::io::stdout().flush()).expect("somebody listens");
    }
}

fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// How often the process gave its CPU up by itself.
fn waits() -> f64 {
    // SAFETY: a structure of numbers, of which all zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is ours to write.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_nvcsw as f64
}

/// A process, ended with this.
struct Ended(Child);

impl Ended {
    fn signal(&self, signal: i32) {
        // SAFETY: our child, which nobody has waited for.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }

    fn stay_on(&self, cpu: usize) {
        // SAFETY: a set of bits, of which all zero is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: a CPU of this host.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        // SAFETY: our child, and a set of that size.
        let done = unsafe { libc::sched_setaffinity(self.0.id() as i32, size_of_val(&set), &set) };
        assert_eq!(done, 0, "cpu {cpu}");
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The watched process.
struct Worker {
    process: Ended,
    commands: ChildStdin,
    answers: ChildStdout,
}

impl Worker {
    fn start(mode: Option<&str>) -> Worker {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.env(WORKER, "").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(mode.map(|mode| ("PERSEQ_MODE", mode)));
        let mut child = command.spawn().expect("this program starts again");
        let (commands, answers) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Worker { process: Ended(child), commands, answers }
    }

    fn turn(&mut self, pattern: usize) -> Taken {
        let mut answer = [[0; 8]; 3];
        self.commands.write_all(&[pattern as u8]).expect("a worker that listens");
        self.answers.read_exact(answer.as_flattened_mut()).expect("a worker that answers");
        answer.map(f64::from_ne_bytes)
    }
}

/// `perseq top`, stopped until it is needed, and how often it looked.
fn watcher(command: &str, worker: &Worker) -> (Ended, Arc<AtomicU64>) {
    let mut top = Command::new(command);
    top.args(["top", "--json", "--interval", INTERVAL, &worker.process.0.id().to_string()]);
    let mut child = top.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command}: {error}"));
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.next().is_some_and(|line| line.is_ok()), "{command} top says nothing");
    let (looks, counted) = (Arc::new(AtomicU64::new(0)), Ended(child));
    let count = Arc::clone(&looks);
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|_| _ = count.fetch_add(1, Relaxed)));
    counted.signal(libc::SIGSTOP);
    (counted, looks)
}

struct Plan {
    command: Option<String>,
    epochs: usize,
    turns: usize,
}

impl Plan {
    /// Names, and the CPU of who watches.
    fn arms(&self) -> Vec<(&'static str, Option<usize>)> {
        let cpus: Vec<_> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|cpu| cpu.id).collect();
        let mut arms = vec![("alone", None), ("again", None)];
        if let (Some(_), [own, others @ ..]) = (&self.command, &cpus[..]) {
            arms.extend(others.last().map(|other| ("watched from another CPU", Some(*other))));
            arms.push(("watched from its own CPU", Some(*own)));
        }
        arms
    }

    fn compare(&self, mode: Option<&str>) {
        let (arms, mut random) = (self.arms(), Random::of_process());
        // By pattern, arm and clock: an epoch's ratio to the first. Looks, and the seconds in which they were taken.
        let mut ratios = vec![vec![[const { Vec::new() }; 2]; arms.len()]; PATTERNS.len()];
        let mut watched = vec![(0, 0.0); arms.len()];
        let mut waits = vec![vec![0.0; arms.len()]; PATTERNS.len()];
        for _ in 0..self.epochs {
            let mut worker = Worker::start(mode);
            worker.turn(0);
            let top = self.command.as_ref().map(|command| watcher(command, &worker));
            for (pattern, ratios) in ratios.iter_mut().enumerate() {
                let mut taken = vec![Vec::new(); arms.len()];
                for round in 0..=self.turns {
                    let mut order: Vec<_> = (0..arms.len()).collect();
                    random.shuffle(&mut order);
                    for arm in order {
                        let watching = top.as_ref().zip(arms[arm].1);
                        if let Some(((top, _), cpu)) = watching {
                            top.stay_on(cpu);
                            top.signal(libc::SIGCONT);
                        }
                        let before = watching.map(|((_, looks), _)| looks.load(Relaxed));
                        let time = worker.turn(pattern);
                        if let (Some(((top, looks), _)), Some(before)) = (watching, before) {
                            top.signal(libc::SIGSTOP);
                            watched[arm].0 += looks.load(Relaxed) - before;
                            watched[arm].1 += time[1] / 1e9;
                        }
                        // The first round warms up.
                        if round > 0 {
                            taken[arm].push(time);
                            waits[pattern][arm] += time[2] / (self.epochs * self.turns) as f64;
                        }
                    }
                }
                for (arm, ratios) in ratios.iter_mut().enumerate() {
                    for (clock, ratios) in ratios.iter_mut().enumerate() {
                        let pairs = taken[arm].iter().zip(&taken[0]);
                        let turns = pairs.map(|(own, first)| own[clock] / first[clock]).collect();
                        ratios.push(Estimate::of(turns).middle);
                    }
                }
            }
        }
        println!("mode {}, {} epochs of {} turns", mode.unwrap_or("of the environment"), self.epochs, self.turns);
        for ((name, _), (looks, seconds)) in arms.iter().zip(watched).filter(|(arm, _)| arm.1.is_some()) {
            println!("  {name}: {:.0} looks a second", f64::from(looks as u32) / seconds);
        }
        for (((name, _), ratios), waits) in PATTERNS.iter().zip(&ratios).zip(&waits) {
            println!("  {name}");
            println!("    {:25} {:59} waits {:.1}", arms[0].0, "", waits[0]);
            for (((name, _), clocks), waits) in arms.iter().zip(ratios).zip(waits).skip(1) {
                let [cpu, time] = [&clocks[0], &clocks[1]].map(|ratios| Estimate::of(ratios.clone()));
                println!("    {name:25} CPU time {cpu:.4}, time {time:.4}, waits {waits:.1}");
            }
        }
    }
}

fn main() -> Result<(), String> {
    if std::env::var_os(WORKER).is_some() {
        work();
        return Ok(());
    }
    let mut plan = Plan { command: None, epochs: 21, turns: 20 };
    let (mut modes, mut arguments) = (vec![None], std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: expected a value after it"));
        let number = |value: String| match value.parse() {
            Ok(number @ 1..=100_000) => Ok(number),
            _ => Err(format!("{value}: expected a number from 1 to 100000")),
        };
        match &*argument {
            "--bench" => {}
            "--test" => (plan.epochs, plan.turns) = (1, 1),
            "--modes" => modes = value()?.split(',').map(|mode| Some(mode.to_owned())).collect(),
            "--epochs" => plan.epochs = number(value()?)?,
            "--turns" => plan.turns = number(value()?)?,
            _ if argument.starts_with('-') || plan.command.is_some() => {
                return Err(format!("{argument}: expected the path of the command perseq"));
            }
            _ => {
                let path = std::fs::canonicalize(&argument).map_err(|error| format!("{argument}: {error}"))?;
                plan.command = Some(path.display().to_string());
            }
        }
    }
    if plan.command.is_none() {
        println!("the command perseq is not named: nobody watches");
    }
    modes.iter().for_each(|mode| plan.compare(mode.as_deref()));
    Ok(())
}
