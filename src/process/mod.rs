//! The life of the process: deciding the mode at the first allocation, thread exit, fork.

pub mod background;
pub mod cgroup;
pub mod control;
pub mod exhaustion;
pub mod mode;
pub mod options;

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use rseq::{CpuId, MmCid, Registration, Unavailable, fence};

use self::mode::{ActiveMode, AlreadyActive, Mode, Reason};
use crate::config::{MAX_SHARDS, SHARDS_PER_CPU};
use crate::fatal::fatal;
use crate::front_end::gate;
use crate::front_end::lists::Exclusive;
use crate::front_end::reclaim;
use crate::front_end::registry;
use crate::front_end::thread;
use crate::front_end::{FRONT, Way, front_word};
use crate::hardened;
use crate::lock_order::{self, Rank};
use crate::middle::spare_arrays::SPARE_ARRAYS;
use crate::middle::{self, BACK_END};
use crate::page_heap::usual_reservation;
use crate::stats::report;
use crate::sync::{Mutex, keep_errno};

/// The first allocation has decided.
static READY: AtomicBool = AtomicBool::new(false);
/// Held by the thread that decides. A fork waits for it, as for every lock, so no child finds half a decision.
static DECIDING: Mutex<()> = Mutex::new(Rank::Decision, ());

/// What the first allocation decided. Written before `READY`, read after it.
struct Decided(UnsafeCell<MaybeUninit<Decision>>);

struct Decision {
    mode: ActiveMode,
    /// The rseq registration, in a mode that reads numbers from it.
    registration: Option<Registration>,
    /// The key whose destructor tells of thread exit, where threads have caches.
    exit_key: Option<libc::pthread_key_t>,
}

// SAFETY: one thread writes, under `DECIDING`; others read, once it is `READY`.
unsafe impl Sync for Decided {}

static DECIDED: Decided = Decided(UnsafeCell::new(MaybeUninit::uninit()));

/// [`set_mode`]'s answer as an index into [`Mode::ALL`], plus one.
static CHOSEN: AtomicU8 = AtomicU8::new(0);
/// `PERSEQ_MODE`'s, likewise.
static TOLD: AtomicU8 = AtomicU8::new(0);

/// Chooses the mode of this process. `PERSEQ_MODE`, if set, wins over it, so that an experiment can
/// override a program.
///
/// # Errors
///
/// The first allocation has already decided.
pub fn set_mode(mode: Mode) -> Result<(), AlreadyActive> {
    notice_forks();
    let deciding = DECIDING.lock();
    if !READY.load(Acquire) {
        CHOSEN.store(mode as u8 + 1, Relaxed);
        return Ok(());
    }
    drop(deciding);
    Err(AlreadyActive(active_mode()))
}

/// The mode of this process and its reason. Decides it if nothing has been allocated yet.
///
/// # Panics
///
/// Aborts the process if there is not even memory for the allocator's tables.
#[must_use]
pub fn active_mode() -> ActiveMode {
    if !initialize(None) {
        fatal(&["no memory for the heap's tables (see ulimit -v and PERSEQ_HARD_LIMIT)"]);
    }
    decision().mode
}

/// Makes the process ready to allocate, if it is not. False if memory is exhausted: the next call tries again.
pub fn initialize(default: Option<Mode>) -> bool {
    READY.load(Acquire) || initialize_slow(default)
}

#[cold]
fn initialize_slow(default: Option<Mode>) -> bool {
    notice_forks();
    let deciding = DECIDING.lock();
    if READY.load(Acquire) {
        return true; // somebody was faster
    }
    // Nothing before READY allocates through us: it is system calls, getenv and tables of our own.
    let done = keep_errno(|| set_up(default));
    if done {
        report::keep_standard_error();
    }
    READY.store(done, Release);
    drop(deciding);
    if done {
        report::arrange_exit(); // may allocate, so not before READY
    }
    done
}

fn set_up(default: Option<Mode>) -> bool {
    options::read_environment();
    if !BACK_END.pages.initialize(usual_reservation()) {
        return false;
    }
    let requested = requested_mode(default);
    let (active, reason, registration) =
        if hardened::on() { (Mode::Central, Reason::Hardened, None) } else { decide(requested) };
    if active == Mode::Sharded && SHARDS.load(Relaxed) == 0 {
        SHARDS.store((rseq::kernel::possible_cpus() * SHARDS_PER_CPU).min(MAX_SHARDS), Relaxed);
    }
    if !registry::initialize(if active == Mode::Sharded { SHARDS.load(Relaxed) } else { rseq::kernel::cpu_bound() }) {
        return false;
    }
    if active == Mode::Central {
        middle::split_transfer_caches(); // no second cache will do it
    }
    let exit_key = if matches!(active, Mode::PerThread | Mode::PerThreadDrain) { thread_exit_key() } else { None };
    let decision = Decision { mode: ActiveMode { requested, active, reason }, registration, exit_key };
    // SAFETY: this thread alone writes, under `DECIDING`, and nobody reads before READY.
    unsafe { (*DECIDED.0.get()).write(decision) };
    let front = match (active, registration) {
        (Mode::PerCpu, Some(found)) => found.handle::<CpuId>().to_bits(),
        (Mode::PerCpuMmCid, Some(found)) => found.handle::<MmCid>().to_bits(),
        _ => front_word(active),
    };
    FRONT.store(front, Release);
    true
}

fn decision() -> &'static Decision {
    debug_assert!(READY.load(Acquire));
    // SAFETY: callers come here after `initialize` returned true: written, and never again.
    unsafe { (*DECIDED.0.get()).assume_init_ref() }
}

/// The mode that can run when `requested` is wanted.
fn decide(requested: Mode) -> (Mode, Reason, Option<Registration>) {
    match requested {
        Mode::PerCpu | Mode::PerCpuMmCid => {}
        Mode::PerThreadDrain => {
            return match gate::register() {
                Ok(()) => (requested, Reason::AsRequested, None),
                Err(errno) => (Mode::PerThread, Reason::NoFence(errno), None),
            };
        }
        Mode::PerCpuLock => return (requested, Reason::AsRequested, rseq::probe().ok()),
        Mode::PerThread | Mode::Sharded | Mode::Central => return (requested, Reason::AsRequested, None),
    }
    let found = match rseq::probe() {
        Ok(found) => found,
        Err(why) => return (Mode::PerThread, Reason::NoRseq(why), None),
    };
    if let Err(errno) = fence::register() {
        return (Mode::PerThread, Reason::NoFence(errno), None);
    }
    if requested == Mode::PerCpuMmCid && !found.has_mm_cid() {
        return (Mode::PerCpu, Reason::NoMmCid, Some(found));
    }
    (requested, Reason::AsRequested, Some(found))
}

/// What `PERSEQ_MODE`, [`set_mode`], the caller or nobody asked for, in this order.
fn requested_mode(default: Option<Mode>) -> Mode {
    let told = |by: &AtomicU8| Mode::ALL.get((by.load(Relaxed) as usize).wrapping_sub(1)).copied();
    told(&TOLD).or_else(|| told(&CHOSEN)).or(default).unwrap_or_default()
}

/// `PERSEQ_MODE` says so.
pub fn set_mode_by_environment(mode: Mode) {
    TOLD.store(mode as u8 + 1, Relaxed);
}

/// Slots of the mode `sharded`; 0 before that is decided.
static SHARDS: AtomicUsize = AtomicUsize::new(0);

/// `PERSEQ_SHARDS` says so.
pub fn set_shards(shards: usize) {
    SHARDS.store(shards, Relaxed);
}

/// The slot of the thread with this id. After `initialize`.
pub fn shard_of(thread: u32) -> u32 {
    // Fibonacci hashing: threads made one after the other are spread, as their ids follow each other.
    let hash = thread.wrapping_mul(0x9e37_79b1);
    ((u64::from(hash) * SHARDS.load(Relaxed) as u64) >> 32) as u32
}

/// The CPU the calling thread is on, from its rseq area where the kernel keeps one. After `initialize`.
#[inline]
pub fn current_cpu() -> u32 {
    let known = decision().registration.as_ref().and_then(Registration::cpu_id);
    // SAFETY: sched_getcpu has no preconditions. Its -1, where the kernel refuses, is no CPU's number.
    known.unwrap_or_else(|| keep_errno(|| unsafe { libc::sched_getcpu() }) as u32)
}

/// Registers the calling thread with rseq, where that is ours to do. After `initialize`, in a per-CPU mode.
pub fn ensure_thread() -> Result<(), Unavailable> {
    match &decision().registration {
        Some(registration) => keep_errno(|| registration.ensure_thread()),
        None => Err(Unavailable::ThreadNotRegistered),
    }
}

// Thread exit, where threads have caches.

fn thread_exit_key() -> Option<libc::pthread_key_t> {
    let mut key = 0;
    // SAFETY: `key` is ours to be written; the destructor is this module's and lives for ever.
    (unsafe { libc::pthread_key_create(&mut key, Some(on_thread_exit)) } == 0).then_some(key)
}

/// Arranges for the calling thread's cache to be emptied when it exits.
pub fn notice_exit() {
    if let Some(key) = decision().exit_key {
        // SAFETY: the key is valid; the value only has to be other than null.
        keep_errno(|| unsafe { libc::pthread_setspecific(key, ptr::dangling::<c_void>()) });
    }
}

/// Runs among the destructors of thread-specific data, after those of C++ and Rust thread locals. What later
/// ones allocate or free goes past the caches.
extern "C" fn on_thread_exit(_: *mut c_void) {
    if let Some(cache) = thread::present_cache() {
        reclaim::strip_own(cache);
        thread::retire();
        registry::retire(cache);
    }
}

// Draining.

/// Moves all free objects from caches to the tiers behind them; returns how many bytes. In `perthread` it can empty the
/// calling thread's cache only. Costs one fence for every 32 caches, but none in the modes with locks.
pub fn drain() -> usize {
    if hardened::on() {
        return hardened::drain();
    }
    reclaim::drain()
}

/// Gives all memory that nobody uses back to the kernel: drains the caches and the transfer caches, then
/// releases free pages. Returns how many bytes went back.
pub fn release() -> usize {
    if !READY.load(Acquire) {
        return 0;
    }
    drain();
    BACK_END.trim();
    BACK_END.pages.release_free()
}

// Fork: all locks are taken in the order of their ranks, so the child finds every structure whole. A slab without a
// lock needs none: its changes are single stores, and a sequence that was under way elsewhere has not committed. A
// cache is taken from its owner only under the right to reclaim, so none is at the time of a fork.
//
// The handlers come before the first lock is taken: when the program is loaded, which is before it has threads, or at
// the first call of ours that is earlier, or in a library loaded later. glibc registers none while another thread forks,
// but for the time of another library's handler: a fork in the middle of that, while perseq is loaded, is the one that
// goes past ours.

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = notice_forks;

/// Who registers the handlers: nobody yet, a thread by its id, or it is done.
static NOTICED: AtomicU32 = AtomicU32::new(0);
const DONE: u32 = u32::MAX;

/// Registers the fork handlers, if nobody has.
pub extern "C" fn notice_forks() {
    if NOTICED.load(Acquire) != DONE {
        keep_errno(notice_forks_slow);
    }
}

#[cold]
fn notice_forks_slow() {
    let this = registry::thread_id();
    loop {
        match NOTICED.load(Acquire) {
            DONE => return,
            // Registering allocates, if there are many handlers, and so comes here again.
            thread if thread == this => return,
            // The other thread waits for a fork at most. In a child of that fork it does not exist, and nothing of what
            // it did may have come along: we take its place.
            // SAFETY: signal 0 asks only whether there is such a thread; sched_yield has no preconditions.
            thread if thread != 0 && unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) } == 0 => unsafe {
                libc::sched_yield();
            },
            thread if NOTICED.compare_exchange(thread, this, Acquire, Relaxed).is_ok() => break,
            _ => {}
        }
    }
    // If it fails, a child forked while a lock is held may hang on it.
    // SAFETY: the handlers are this module's and live for ever.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child)) };
    NOTICED.store(DONE, Release);
}

fn for_each_lock(mut f: impl FnMut(&dyn RawLock)) {
    f(&DECIDING);
    f(options::mutex());
    f(reclaim::mutex());
    f(registry::mutex());
    for cache in registry::all() {
        f(cache.shape());
    }
    for cache in registry::all() {
        f(&cache.lists);
    }
    f(hardened::mutex());
    for transfer in BACK_END.transfer.all() {
        f(transfer.mutex());
    }
    for central in &BACK_END.central {
        f(central.mutex());
    }
    f(SPARE_ARRAYS.mutex());
    f(BACK_END.metadata.mutex());
    f(BACK_END.pages.releases.mutex());
    f(BACK_END.pages.mutex());
}

/// A mutex of any content.
trait RawLock {
    fn acquire(&self);
    unsafe fn release(&self, in_child: bool);
}

impl<T> RawLock for Mutex<T> {
    fn acquire(&self) {
        self.acquire_for_fork();
    }
    unsafe fn release(&self, in_child: bool) {
        // SAFETY: by our own contract the caller holds the lock without a guard.
        unsafe { if in_child { self.release_in_child() } else { Mutex::release(self) } }
    }
}

/// The thread that forks, while it holds all locks. The handlers may be registered twice, if a fork came between their
/// registration and the note of it: then the first of each kind does the work.
static FORKING: AtomicU32 = AtomicU32::new(0);

extern "C" fn before_fork() {
    let this = registry::thread_id();
    if FORKING.load(Relaxed) == this {
        return;
    }
    for_each_lock(|lock| lock.acquire());
    FORKING.store(this, Relaxed); // read by others under no lock, but compared with their own number only
    lock_order::assert_all_held(registry::all().next().is_some());
}

extern "C" fn after_fork_parent() {
    if FORKING.load(Relaxed) != registry::thread_id() {
        return;
    }
    FORKING.store(0, Relaxed);
    // SAFETY: `before_fork` took every lock. No cache is added while this walks the caches, although the registry's
    // lock is free again: that takes metadata's as well, which is freed after the
    // caches'.
    for_each_lock(|lock| unsafe { lock.release(false) });
}

extern "C" fn after_fork_child() {
    if FORKING.swap(0, Relaxed) == 0 {
        return;
    }
    NOTICED.store(DONE, Release); // by the thread whose note of it may not have come along
    // SAFETY: as for the parent: the forking thread is the child's only one.
    for_each_lock(|lock| unsafe { lock.release(true) });
    background::forget_in_child();
    report::forget_in_child();
    lock_order::forget_other_threads();
    if !Way::now().caches_threads() {
        return;
    }
    let own = thread::present_cache();
    for cache in registry::all().filter(|cache| cache.in_use.load(Relaxed)) {
        if own.is_some_and(|own| ptr::eq(own, cache)) {
            cache.owner.store(registry::thread_id(), Relaxed);
            continue;
        }
        cache.gate.reset();
        let mut shape = cache.shape().lock();
        // SAFETY: the thread it belonged to does not exist here.
        let front = unsafe { Exclusive::new(cache) };
        cache.drain(front, &shape);
        cache.strip_all(front, &mut shape);
        drop(shape); // the registry's lock comes first
        registry::retire(cache);
    }
}
