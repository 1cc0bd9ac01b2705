//! What a C program pays: `malloc` and `free` of one shared library beside others', as a ratio to the first that is named.
//!
//! ```sh
//! cargo bench --bench malloc -- old=/a/libperseq.so new=/b/libperseq.so other=/c/libjemalloc.so --modes percpu,perthread
//! ```
//!
//! Each library is preloaded into processes of its own, which live for one epoch. In an epoch they take turns of some
//! hundred microseconds, or of milliseconds where many blocks live, in random order, on one CPU; a turn is compared with
//! the first library's in the same round, and the epoch's ratio is the median of its turns'. Printed is the median of the
//! epochs with its 95 % interval by order statistics. So what disturbs the machine meets all alike, and the luck of one
//! process's addresses is one epoch's. The first library runs twice: the line `again` is the noise.
//!
//! Options: `--modes A,B` (PERSEQ_MODE of all processes; other allocators do not mind), `--epochs N` and `--turns N`.
//! Without a library the C library is measured against itself.

use std::ffi::{CStr, c_char, c_void};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr::null_mut;
use std::time::Instant;

use libc::{free, malloc};

mod kit;

use kit::estimate::Estimate;
use kit::random::Random;

const WORKER: &str = "BENCH_WORKER";

/// Name, pairs of malloc and free in a turn, and the turn: nanoseconds of one pair, of one free, or of one step of one
/// buffer.
type Pattern = (&'static str, usize, fn(usize) -> f64);

const PATTERNS: &[Pattern] = &[
    ("64 B, malloc and free", 20_000, |pairs| pair(64, pairs)),
    ("1 KiB, malloc and free", 20_000, |pairs| pair(1024, pairs)),
    ("16 to 1,024 B, in random slots of 1,000", 10_000, random),
    ("64 B, free alone", 10_000, |pairs| free_alone(64, pairs)),
    ("64 B, 1,000 and then free", 10_000, batches),
    ("48 B, 100,000 and then free, in that order", 100_000, |pairs| bulk(1, pairs)),
    ("48 B, 100,000 and then free, far apart", 100_000, |pairs| bulk(61_803, pairs)),
    ("32 buffers that grow by half, 1 KiB to 1 MiB, filled", 32, grow),
    ("64 KiB, malloc and free", 4_000, |pairs| pair(64 << 10, pairs)),
    ("64 KiB, free alone", 2_000, |pairs| free_alone(64 << 10, pairs)),
    ("1 MiB, malloc and free", 2_000, |pairs| pair(1 << 20, pairs)),
];

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9
}

/// A block that is in use: the first word is written.
fn block(size: usize) -> *mut c_void {
    // SAFETY: an integer.
    let block = black_box(unsafe { malloc(size) });
    assert!(!block.is_null(), "no {size} bytes");
    // SAFETY: a word at least.
    unsafe { block.cast::<usize>().write(size) };
    block
}

fn pair(size: usize, pairs: usize) -> f64 {
    let all = timed(|| {
        for _ in 0..pairs {
            // SAFETY: a block of malloc's.
            unsafe { free(block(size)) };
        }
    });
    all / pairs as f64
}

fn random(pairs: usize) -> f64 {
    let mut slots = [null_mut(); 1000];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let all = timed(|| {
        for _ in 0..pairs {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let slot = &mut slots[(state >> 32) as usize % 1000];
            // SAFETY: null or a block of malloc's, that is in no other slot.
            unsafe { free(*slot) };
            *slot = block(16 + (state as usize & 1008));
        }
    });
    // SAFETY: as above.
    slots.into_iter().for_each(|slot| unsafe { free(slot) });
    all / pairs as f64
}

/// Frees are timed in lots of 16 that a cache has room for; the rest of the clock's own time is in all alike.
fn free_alone(size: usize, frees: usize) -> f64 {
    let mut all = 0.0;
    for _ in 0..frees / 16 {
        let blocks: [_; 16] = std::array::from_fn(|_| block(size));
        // SAFETY: blocks of malloc's.
        all += timed(|| blocks.into_iter().for_each(|block| unsafe { free(block) }));
    }
    all / (frees / 16 * 16) as f64
}

fn batches(pairs: usize) -> f64 {
    let mut blocks = [null_mut(); 1000];
    let all = timed(|| {
        for _ in 0..pairs / 1000 {
            blocks.iter_mut().for_each(|slot| *slot = block(64));
            // SAFETY: blocks of malloc's.
            black_box(&blocks).iter().for_each(|block| unsafe { free(*block) });
        }
    });
    all / pairs as f64
}

/// Blocks are freed in steps of `step`, which has no divisor in common with their number.
fn bulk(step: usize, pairs: usize) -> f64 {
    let mut blocks = [null_mut(); 100_000];
    let blocks = &mut blocks[..pairs];
    let all = timed(|| {
        blocks.iter_mut().for_each(|slot| *slot = block(48));
        let blocks = black_box(&*blocks);
        // SAFETY: blocks of malloc's, each once.
        (0..pairs).for_each(|place| unsafe { free(blocks[place * step % pairs]) });
    });
    all / pairs as f64
}

/// Buffers grow in turn, and what is new in each is filled.
fn grow(pairs: usize) -> f64 {
    let (mut size, mut steps) = (1024, 0);
    let mut buffers = [null_mut(); 32];
    let buffers = &mut buffers[..pairs];
    let all = timed(|| {
        buffers.iter_mut().for_each(|buffer| *buffer = block(size));
        while size < 1 << 20 {
            let larger = size + size / 2;
            for buffer in &mut *buffers {
                // SAFETY: a block of malloc's, which is used by its new address only.
                *buffer = unsafe { libc::realloc(*buffer, larger) };
                assert!(!buffer.is_null(), "no {larger} bytes");
                // SAFETY: the bytes that were added.
                unsafe { buffer.cast::<u8>().add(size).write_bytes(0x5a, larger - size) };
            }
            (size, steps) = (larger, steps + pairs);
        }
        // SAFETY: blocks of malloc's.
        black_box(&*buffers).iter().for_each(|buffer| unsafe { free(*buffer) });
    });
    all / steps as f64
}

/// A library, or none: the C library.
struct Arm {
    name: String,
    library: Option<PathBuf>,
}

/// A process on an arm.
struct Worker {
    child: Child,
    commands: ChildStdin,
    answers: ChildStdout,
}

impl Worker {
    fn start(arm: &Arm, mode: Option<&str>) -> Worker {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.env(WORKER, arm.library.as_deref().unwrap_or("".as_ref()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(library) = &arm.library {
            command.env("LD_PRELOAD", library);
        }
        if let Some(mode) = mode {
            command.env("PERSEQ_MODE", mode);
        }
        let mut child = command.spawn().expect("this program starts again");
        let (commands, answers) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Worker { child, commands, answers }
    }

    fn turn(&mut self, pattern: usize) -> f64 {
        let mut answer = [0; 8];
        self.commands.write_all(&[pattern as u8]).expect("a worker that listens");
        self.answers.read_exact(&mut answer).expect("a worker that answers");
        f64::from_ne_bytes(answer)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Does what it is told, on the allocator it was started with. Between turns it allocates nothing.
fn work(library: &str) {
    let mut info =
        libc::Dl_info { dli_fname: null_mut(), dli_fbase: null_mut(), dli_sname: null_mut(), dli_saddr: null_mut() };
    // SAFETY: `info` is ours to write.
    let found = unsafe { libc::dladdr(malloc as *const c_void, &mut info) };
    assert!(found != 0 && !info.dli_fname.is_null(), "malloc is nowhere");
    // SAFETY: the name of a loaded library.
    let active = unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy();
    let right = if library.is_empty() { active.contains("libc.so") } else { active == library };
    assert!(right, "malloc comes from {active}; expected {library}");
    let wanted = std::env::var("PERSEQ_MODE");
    // SAFETY: a C string.
    let mode = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"perseq_mode".as_ptr()) };
    if let (Ok(wanted), false) = (wanted, mode.is_null()) {
        // SAFETY: libperseq exports it with this signature, and nobody else uses the name.
        let mode = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> *const c_char>(mode) };
        // SAFETY: a constant C string.
        let active = unsafe { CStr::from_ptr(mode()) }.to_string_lossy();
        assert_eq!(active, wanted, "the active mode and the one asked for");
    }
    kit::pin();
    loop {
        let mut pattern = 0_u8;
        // SAFETY: a byte of ours.
        if unsafe { libc::read(0, (&raw mut pattern).cast(), 1) } != 1 {
            return;
        }
        let (_, pairs, turn) = PATTERNS[usize::from(pattern)];
        let answer = turn(pairs).to_ne_bytes();
        // SAFETY: bytes of ours.
        let written = unsafe { libc::write(1, answer.as_ptr().cast(), answer.len()) };
        assert_eq!(written, 8, "nobody listens");
    }
}

fn compare(arms: &[Arm], mode: Option<&str>, epochs: usize, turns: usize) {
    let mut random = Random::of_process();
    // By pattern and arm: an epoch's ratio to the first, and its nanoseconds.
    let mut ratios = vec![vec![Vec::new(); arms.len()]; PATTERNS.len()];
    let mut times = ratios.clone();
    for _ in 0..epochs {
        let mut workers: Vec<_> = arms.iter().map(|arm| Worker::start(arm, mode)).collect();
        for pattern in 0..PATTERNS.len() {
            let mut taken = vec![Vec::new(); arms.len()];
            for round in 0..=turns {
                let mut order: Vec<_> = (0..arms.len()).collect();
                random.shuffle(&mut order);
                for arm in order {
                    let time = workers[arm].turn(pattern);
                    // The first round warms up.
                    if round > 0 {
                        taken[arm].push(time);
                    }
                }
            }
            for arm in 0..arms.len() {
                let ratio = taken[arm].iter().zip(&taken[0]).map(|(own, first)| own / first).collect();
                ratios[pattern][arm].push(Estimate::of(ratio).middle);
                times[pattern][arm].push(Estimate::of(taken[arm].clone()).middle);
            }
        }
    }
    println!("mode {}, {epochs} epochs of {turns} turns", mode.unwrap_or("of the environment"));
    for (pattern, (name, ..)) in PATTERNS.iter().enumerate() {
        println!("  {name}");
        for (arm, Arm { name, .. }) in arms.iter().enumerate() {
            let time = Estimate::of(times[pattern][arm].clone()).middle;
            let ratio = Estimate::of(ratios[pattern][arm].clone());
            let ratio = if arm == 0 { String::new() } else { format!("  {ratio:.3}") };
            println!("    {name:12} {time:9.2} ns{ratio}");
        }
    }
}

fn number(value: &str) -> usize {
    value.parse().ok().filter(|number| (1..=100_000).contains(number)).unwrap_or_else(|| {
        eprintln!("{value}: expected a number from 1 to 100000");
        std::process::exit(2)
    })
}

fn main() -> Result<(), String> {
    if let Ok(library) = std::env::var(WORKER) {
        work(&library);
        return Ok(());
    }
    let (mut arms, mut modes, mut epochs, mut turns) = (Vec::new(), vec![None], 31, 40);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: expected a value after it"));
        match &*argument {
            "--bench" => {}
            "--test" => (epochs, turns) = (1, 1),
            "--modes" => modes = value()?.split(',').map(|mode| Some(mode.to_owned())).collect(),
            "--epochs" => epochs = number(&value()?),
            "--turns" => turns = number(&value()?),
            _ => {
                let named = argument.split_once('=').ok_or_else(|| format!("{argument}: expected NAME=LIBRARY"))?;
                let path = PathBuf::from(named.1).canonicalize().map_err(|error| format!("{}: {error}", named.1))?;
                println!("{}: {}", named.0, path.display());
                arms.push(Arm { name: named.0.to_owned(), library: Some(path) });
            }
        }
    }
    if arms.is_empty() {
        println!("no library is named: the C library against itself");
        arms.push(Arm { name: "system".into(), library: None });
    }
    arms.push(Arm { name: "again".into(), library: arms[0].library.clone() });
    for mode in modes {
        compare(&arms, mode.as_deref(), epochs, turns);
    }
    Ok(())
}
