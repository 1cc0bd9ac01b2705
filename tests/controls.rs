//! Can the torture see anything? Tokens travel through bare slabs, by correct sequences and by ones with a
//! single defect. The defects must be caught.
//!
//! ```text
//! variant         defect                                                        must
//! correct         none                                                          pass
//! unarmed         pop does not tell the kernel that it is a sequence            be caught
//! unfenced        another CPU's slab is stopped, but sequences that run         be caught
//!                 there are not fenced off before it is emptied
//! unstopped       another CPU's slab is emptied while its owner uses it         be caught
//! ```
//!
//! A token is an address in a table. Whoever pops one marks it as held, and unmarks it before pushing it:
//! a token that is popped while it is held was handed out twice. At the end all tokens are counted: one that
//! is nowhere was lost. Here no path is slow, so the signal handler may push and pop too, which it does, in
//! the middle of the thread's own sequences.

mod kit;

use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

use kit::Child;
use kit::random::Random;
use perseq::rseq::sequence::{self, Miss};
use perseq::rseq::slab::make_array;
use perseq::rseq::{CpuId, Handle, STOPPED, Slab, fence, local, probe, restarts, thread_cell};

const LIST: usize = 0;
/// Slots of a CPU's list.
const CAPACITY: usize = 256;
const TOKENS: usize = 200;
const MAX_CPUS: usize = 1024;

static NO_SLAB: Slab<1> = Slab::new();
static SLABS: [Slab<1>; MAX_CPUS] = [const { Slab::new() }; MAX_CPUS];
/// How often each token is held: 0 or 1. Eight bytes each, so that addresses are even.
static TOKENS_HELD: [AtomicU64; TOKENS] = [const { AtomicU64::new(0) }; TOKENS];
static STOP: AtomicBool = AtomicBool::new(false);
/// Tokens that were popped while somebody held them, and pops of what is no token.
static DOUBLED: AtomicU32 = AtomicU32::new(0);
/// The process's handle, for the signal handler.
static HANDLE: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
/// Whether `pop` is armed.
static ARMED: AtomicBool = AtomicBool::new(true);

thread_cell!(fn cell() -> "perseq_controls_cell": 1, NO_SLAB);

fn handle() -> Handle {
    Handle::from_bits::<CpuId>(HANDLE.load(Relaxed) as isize).expect("set before any thread starts")
}

/// Names the slab of the CPU we are on, as far as we know, in the cell.
fn locate() {
    // SAFETY: the handle is of this index.
    let cpu = unsafe { handle().index::<CpuId>() };
    cell().set(&SLABS[cpu as usize]);
}

fn pop() -> Result<NonNull<u8>, Miss> {
    // SAFETY: the handle is the process's, the slabs are laid out for one list and found by CPU.
    unsafe { if ARMED.load(Relaxed) { sequence::pop::<CpuId, 1>(handle(), cell(), LIST) } else { unarmed_pop() } }
}

fn push(token: NonNull<u8>) -> Result<(), Miss> {
    // SAFETY: as in `pop`; tokens are even.
    unsafe { sequence::push::<CpuId, 1>(handle(), cell(), LIST, token) }
}

/// `pop` without `arm`: the instructions of a sequence that the kernel does not know to be one.
///
/// # Safety
///
/// * As for [`sequence::pop`], except that it does not keep its promise.
unsafe fn unarmed_pop() -> Result<NonNull<u8>, Miss> {
    // SAFETY: by our own contract.
    match unsafe { unarmed_sequence() } {
        MOVED => Err(Miss::Moved),
        item if item & 1 == 1 => Err(Miss::Unfit),
        item => NonNull::new(item as *mut u8).ok_or(Miss::Unfit),
    }
}

const MOVED: usize = 3;

/// What is left in the register of the outcome.
#[cfg(target_arch = "x86_64")]
unsafe fn unarmed_sequence() -> usize {
    let (item, offset): (usize, isize);
    // SAFETY: loads the offset of the cell defined above.
    unsafe {
        std::arch::asm!("mov {}, qword ptr [rip + perseq_controls_cell@GOTTPOFF]", out(reg) offset,
            options(nostack, preserves_flags, pure, nomem));
    }
    // SAFETY: reads and writes what `pop` does; that it may do so at a wrong moment is the defect.
    unsafe {
        std::arch::asm!(
            include_str!("../asm/x86_64/pop.s"),
            "4:",
            handle = in(reg) handle().to_bits(),
            cell = in(reg) offset,
            list = in(reg) LIST,
            tmp = out(reg) _,
            slab = out(reg) _,
            item = out(reg) item,
            INDEX = const std::mem::offset_of!(perseq::rseq::abi::Area, cpu_id) as isize - 1,
            TOPS = const 8,
            MOVED = const MOVED,
            options(nostack),
        );
    }
    item
}

/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn unarmed_sequence() -> usize {
    let (item, offset, pointer): (usize, isize, isize);
    // SAFETY: loads the offset of the cell defined above, and reads the thread pointer.
    unsafe {
        std::arch::asm!(
            "adrp {offset}, :gottprel:perseq_controls_cell",
            "ldr {offset}, [{offset}, :gottprel_lo12:perseq_controls_cell]",
            "mrs {pointer}, tpidr_el0",
            offset = out(reg) offset,
            pointer = out(reg) pointer,
            options(nostack, preserves_flags, pure, nomem),
        );
    }
    // SAFETY: reads and writes what `pop` does; that it may do so at a wrong moment is the defect.
    unsafe {
        std::arch::asm!(
            include_str!("../asm/aarch64/pop.s"),
            "4:",
            area = in(reg) pointer + (handle().to_bits() & !3), // without the tag
            cell = in(reg) pointer + offset,
            list = in(reg) LIST,
            tmp = out(reg) _,
            slab = out(reg) _,
            id = out(reg) _,
            item = out(reg) item,
            INDEX = const std::mem::offset_of!(perseq::rseq::abi::Area, cpu_id),
            TOPS = const 8,
            MOVED = const MOVED,
            options(nostack),
        );
    }
    item
}

/// Which of the tokens this is. `None`, and counted, if it is none of them.
fn token_index(token: NonNull<u8>) -> Option<usize> {
    let offset = (token.as_ptr() as usize).wrapping_sub(TOKENS_HELD.as_ptr() as usize);
    let found = (offset.is_multiple_of(8) && offset / 8 < TOKENS).then_some(offset / 8);
    if found.is_none() {
        DOUBLED.fetch_add(1, Relaxed);
    }
    found
}

fn hold(token: NonNull<u8>) {
    if token_index(token).is_some_and(|index| TOKENS_HELD[index].fetch_add(1, SeqCst) != 0) {
        DOUBLED.fetch_add(1, Relaxed);
    }
}

fn let_go(token: NonNull<u8>) {
    if let Some(index) = token_index(token) {
        TOKENS_HELD[index].fetch_sub(1, SeqCst);
    }
}

/// Pops a token and puts it back, if this CPU has one and there is room; else keeps it in `stash`.
fn turn(stash: &mut Vec<NonNull<u8>>) {
    locate();
    if let Ok(token) = pop() {
        hold(token);
        std::hint::black_box(&token);
        stash.push(token);
    }
    if let Some(&token) = stash.last() {
        // Not ours any more from here on, whether or not the push succeeds.
        let_go(token);
        locate();
        if push(token).is_ok() {
            stash.pop();
        } else {
            hold(token);
        }
    }
}

/// A turn without a stash: what cannot be put back here is put back on the next CPU. There is always room,
/// since a list holds more than all tokens. Saves
/// and restores the interrupted thread's cell, which a sequence of the thread's may be about to read: it
/// reads it once, after arming, and this handler aborts it.
extern "C" fn on_signal(_: libc::c_int) {
    let interrupted = cell().get();
    locate();
    if let Ok(token) = pop() {
        hold(token);
        let_go(token);
        while push(token) == Err(Miss::Moved) {
            locate();
        }
    }
    cell().set(interrupted);
}

/// What a variant's third party does to other CPUs' slabs.
fn meddle(variant: &str, cpus: &[usize]) {
    let mut batch = [std::ptr::null_mut(); 16];
    let mut random = Random::stream(9);
    while !STOP.load(Relaxed) {
        let owner = random.of(cpus) as u32;
        let slab = &SLABS[owner as usize];
        let count = match variant {
            "unfenced" => {
                // SAFETY: not sound, as a sequence may still be running: the defect.
                unsafe {
                    slab.start::<CpuId>(STOPPED);
                    let count = local::pop_batch(slab, LIST, &mut batch);
                    slab.start::<CpuId>(owner);
                    count
                }
            }
            // SAFETY: not sound, as sequences go on: the defect.
            "unstopped" => unsafe { local::pop_batch(slab, LIST, &mut batch) },
            _ => slab.stop().map_or(0, |stopped| {
                // A while longer, so that sequences meet a stopped slab.
                std::thread::yield_now();
                stopped.pop_batch(LIST, &mut batch)
            }),
        };
        let tokens: Vec<_> = batch[..count].iter().filter_map(|token| NonNull::new(*token)).collect();
        tokens.iter().for_each(|token| hold(*token));
        tokens.iter().for_each(|token| let_go(*token));
        for token in tokens {
            // What a defect made too many finds no room anywhere.
            while !STOP.load(Relaxed) || DOUBLED.load(Relaxed) == 0 {
                locate();
                match push(token) {
                    Ok(()) => break,
                    Err(_) => kit::run_on(&[random.of(cpus)]),
                }
            }
        }
        kit::run_on(cpus);
    }
}

/// Runs `variant` until a defect shows, for `limit` at most. How many tokens were doubled and lost.
fn run(variant: &str, limit: Duration) -> (u32, usize) {
    let cpus = kit::allowed_cpus();
    let registration = probe().expect("asked before");
    fence::register().expect("asked before");
    HANDLE.store(registration.handle::<CpuId>().to_bits() as *mut (), SeqCst);
    ARMED.store(variant != "unarmed", SeqCst);
    for (cpu, slab) in SLABS.iter().enumerate() {
        let memory = NonNull::from(Box::leak(vec![0usize; CAPACITY + 2].into_boxed_slice())).cast();
        // SAFETY: the slab stays where it is.
        unsafe { slab.detach() };
        // SAFETY: the memory is this array's for ever; nobody uses the slab yet.
        unsafe { assert!(local::replace(slab, LIST, slab.nothing(), make_array(memory, CAPACITY))) };
        // SAFETY: new, whole, static, and this CPU's only one.
        unsafe { slab.start::<CpuId>(cpu as u32) };
    }
    for (index, token) in TOKENS_HELD.iter().enumerate() {
        let slab = &SLABS[cpus[index % cpus.len()]];
        // SAFETY: nobody uses the slab yet, and a token is even.
        assert!(unsafe { local::push(slab, LIST, NonNull::from(token).cast()) });
    }
    let tids: Vec<_> = (0..4 * cpus.len().min(8)).map(|_| AtomicU32::new(0)).collect();
    handle_signals();
    let stashes: Vec<Vec<NonNull<u8>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = tids
            .iter()
            .map(|tid| {
                let cpus = &cpus;
                scope.spawn(move || {
                    registration.ensure_thread().expect("asked before");
                    // SAFETY: gettid has no preconditions.
                    tid.store(unsafe { libc::gettid() } as u32, SeqCst);
                    let mut random = Random::stream(u64::from(tid.load(Relaxed)));
                    let mut stash = Vec::with_capacity(2 * TOKENS);
                    while !STOP.load(Relaxed) {
                        (0..200).for_each(|_| turn(&mut stash));
                        if random.once_in(50) {
                            kit::run_on(&[random.of(cpus)]);
                        }
                    }
                    tid.store(0, SeqCst);
                    stash.into_iter().map(|token| token.as_ptr() as usize).collect::<Vec<_>>()
                })
            })
            .collect();
        if variant != "unarmed" {
            scope.spawn(|| {
                registration.ensure_thread().expect("asked before");
                meddle(variant, &cpus);
            });
        }
        let start = Instant::now();
        let mut random = Random::stream(5);
        while start.elapsed() < limit && DOUBLED.load(Relaxed) == 0 {
            for _ in 0..100 {
                let thread = tids[random.below(tids.len())].load(Acquire);
                if thread != 0 {
                    // SAFETY: a signal we handle, to a thread of ours or, if it has ended, to none.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
                }
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        STOP.store(true, SeqCst);
        let tokens = |addresses: Vec<usize>| addresses.into_iter().filter_map(|a| NonNull::new(a as *mut u8)).collect();
        workers.into_iter().map(|worker| tokens(worker.join().expect("a worker does not panic"))).collect()
    });
    let mut found = [0u32; TOKENS];
    for token in stashes.into_iter().flatten() {
        token_index(token).into_iter().for_each(|index| found[index] += 1);
    }
    for slab in &SLABS {
        // SAFETY: all threads have ended.
        while let Some(token) = unsafe { local::pop(slab, LIST) } {
            match token_index(token) {
                Some(index) if found[index] < 1000 => found[index] += 1,
                _ => break, // a broken list may go on for ever
            }
        }
    }
    let doubled = found.iter().filter(|&&count| count > 1).count() as u32;
    (DOUBLED.load(SeqCst) + doubled, found.iter().filter(|&&count| count == 0).count())
}

fn handle_signals() {
    // SAFETY: a plain structure, of which all zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler lives for ever and uses sequences, atomics and its thread's cell only.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
}

/// Runs the variant in a process of its own and says what happened there. False if this kernel cannot.
fn outcome(test: &str, variant: &str) -> bool {
    if !kit::kernel::has_rseq() || !kit::kernel::has_rseq_fence() {
        kit::not_tested(
            "rseq",
            format_args!("the {variant} sequences"),
            "this kernel has no rseq, or no fences for it",
        );
        return false;
    }
    if kit::role().is_none() {
        // A corrupted process may as well crash: that is caught, too.
        let child = Child::of(test, variant).run();
        let clean = child.status.success() && child.stdout.contains("doubled 0, lost 0");
        assert_eq!(clean, variant == "correct", "{child}");
        return false;
    }
    true
}

/// In the child.
fn report(variant: &str, limit: Duration) {
    let (doubled, lost) = run(variant, limit);
    println!("doubled {doubled}, lost {lost}, restarts {}", restarts());
}

/// Longest search for a defect. All are found in a fraction of it.
const SEARCH: Duration = Duration::from_secs(60);

#[test]
fn correct() {
    if outcome("correct", "correct") {
        report("correct", kit::duration(4.0));
        assert_ne!(restarts(), 0, "no sequence was ever interrupted");
    }
}

#[test]
fn unarmed() {
    if outcome("unarmed", "unarmed") {
        report("unarmed", SEARCH);
    }
}

#[test]
fn unfenced() {
    if kit::allowed_cpus().len() < 2 {
        return kit::not_tested("second-cpu", "a slab touched without a fence", "one CPU only");
    }
    if outcome("unfenced", "unfenced") {
        report("unfenced", SEARCH);
    }
}

#[test]
fn unstopped() {
    if kit::allowed_cpus().len() < 2 {
        return kit::not_tested("second-cpu", "a slab touched while in use", "one CPU only");
    }
    if outcome("unstopped", "unstopped") {
        report("unstopped", SEARCH);
    }
}
