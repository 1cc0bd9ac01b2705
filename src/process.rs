//! The life of the process: deciding the mode at the first allocation, thread exit, fork.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{
    AtomicU8, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use rseq::{CpuId, MmCid, Registration, Stopping, Unavailable, fence, local};

use crate::back_end::BACK_END;
use crate::cache::Cache;
use crate::fatal::fatal;
use crate::front_end::{self, ByThread, FRONT};
use crate::hardened;
use crate::mode::{ActiveMode, AlreadyActive, Mode, Reason};
use crate::options;
use crate::registry;
use crate::report;
use crate::size_class::SizeClass;
use crate::spare_arrays::SPARE_ARRAYS;
use crate::sync::{Mutex, futex_wait, futex_wake, keep_errno};

const NEW: u32 = 0;
const DECIDING: u32 = 1;
const READY: u32 = 2;
static STATE: AtomicU32 = AtomicU32::new(NEW);

/// What the first allocation decided. Written before `READY`, read after it.
struct Decided(UnsafeCell<MaybeUninit<Decision>>);

struct Decision {
    mode: ActiveMode,
    /// The rseq registration, in a per-CPU mode.
    registration: Option<Registration>,
    /// The key whose destructor tells of thread exit, in per-thread mode.
    exit_key: Option<libc::pthread_key_t>,
}

// SAFETY: one thread writes, while STATE is DECIDING; others read, once it is READY.
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
    CHOSEN.store(mode as u8 + 1, Relaxed);
    if STATE.load(Acquire) == NEW { Ok(()) } else { Err(AlreadyActive(active_mode())) }
}

/// The mode of this process and its reason. Decides it if nothing has been allocated yet.
///
/// # Panics
///
/// Aborts the process if there is not even address space for the allocator's tables.
#[must_use]
pub fn active_mode() -> ActiveMode {
    if !initialize(None) {
        fatal(&["no address space for the heap (see ulimit -v)"]);
    }
    decision().mode
}

/// Makes the process ready to allocate, if it is not. False if memory is exhausted: the next call tries again.
pub fn initialize(default: Option<Mode>) -> bool {
    if STATE.load(Acquire) == READY {
        return true;
    }
    loop {
        match STATE.compare_exchange(NEW, DECIDING, Acquire, Acquire) {
            Ok(_) => break,
            Err(READY) => return true,
            Err(_) => futex_wait(&STATE, DECIDING),
        }
    }
    // Nothing before READY allocates through us: it is system calls, getenv and tables of our own.
    let done = keep_errno(|| set_up(default));
    STATE.store(if done { READY } else { NEW }, Release);
    futex_wake(&STATE, i32::MAX);
    if done {
        // May allocate, so not before READY. If it fails, a child forked while a lock is held may hang on it.
        // SAFETY: the handlers are this module's and live for ever.
        keep_errno(|| unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child))
        });
        report::arrange_exit();
    }
    done
}

fn set_up(default: Option<Mode>) -> bool {
    if !BACK_END.pages.initialize() || !registry::initialize(rseq::kernel::possible_cpus()) {
        return false;
    }
    options::read_environment();
    let requested = requested_mode(default);
    let (active, reason, registration) =
        if hardened::on() { (Mode::Central, Reason::Hardened, None) } else { decide(requested) };
    let exit_key = if active == Mode::PerThread { thread_exit_key() } else { None };
    let decision = Decision { mode: ActiveMode { requested, active, reason }, registration, exit_key };
    // SAFETY: STATE is DECIDING, so this thread alone writes and nobody reads.
    unsafe { (*DECIDED.0.get()).write(decision) };
    let front = match (active, registration) {
        (Mode::PerCpu, Some(found)) => found.handle::<CpuId>().to_bits(),
        (Mode::PerCpuMmCid, Some(found)) => found.handle::<MmCid>().to_bits(),
        _ => 0,
    };
    FRONT.store(front, Release);
    true
}

fn decision() -> &'static Decision {
    debug_assert_eq!(STATE.load(Acquire), READY);
    // SAFETY: callers come here after `initialize` returned true: written, and never again.
    unsafe { (*DECIDED.0.get()).assume_init_ref() }
}

/// The mode that can run when `requested` is wanted.
fn decide(requested: Mode) -> (Mode, Reason, Option<Registration>) {
    if !matches!(requested, Mode::PerCpu | Mode::PerCpuMmCid) {
        return (requested, Reason::AsRequested, None);
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

/// Whether threads have caches of their own. After `initialize`.
pub fn caches_threads() -> bool {
    STATE.load(Acquire) == READY && decision().mode.active == Mode::PerThread
}

/// Registers the calling thread with rseq, where that is ours to do. After `initialize`, in a per-CPU mode.
pub fn ensure_thread() -> Result<(), Unavailable> {
    match &decision().registration {
        Some(registration) => keep_errno(|| registration.ensure_thread()),
        None => Err(Unavailable::ThreadNotRegistered),
    }
}

// Thread exit, in per-thread mode.

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
    if let Some(cache) = front_end::own_thread_cache() {
        cache.strip_all(ByThread);
        front_end::retire_thread();
        registry::retire(cache);
    }
}

// Draining.

/// Moves all free objects from caches to the tiers behind them; returns how many bytes. In per-thread mode it
/// can empty the calling thread's cache only. Costs one fence for every 32 caches.
pub fn drain() -> usize {
    if hardened::on() {
        return hardened::drain();
    }
    let front = FRONT.load(Acquire);
    if front != 0 {
        drain_stopped()
    } else {
        front_end::own_thread_cache().map_or(0, |cache| {
            let shape = cache.shape_lock();
            // SAFETY: nobody else changes this thread's slab.
            cache.drain(&shape, |list, objects| unsafe { local::pop_batch(&cache.slab, list, objects) })
        })
    }
}

/// Caches that one fence stops together: their CPUs do without until their turn comes.
const STOPPED_TOGETHER: usize = 32;

fn drain_stopped() -> usize {
    let (mut bytes, mut caches) = (0, registry::all().peekable());
    while caches.peek().is_some() {
        let mut shapes = [const { None }; STOPPED_TOGETHER];
        let mut stopping = Stopping::new();
        for (place, cache) in shapes.iter_mut().zip(caches.by_ref()) {
            let shape = cache.shape_lock(); // in the registry's order, as at a fork, across which none is held
            if stopping.add(&cache.slab).is_ok() {
                *place = Some((cache, shape));
            }
        }
        // The kernel granted fences at the start. If it refuses one now, the caches go on, full as they are.
        let Ok(stopped) = stopping.fence() else { break };
        for stopped in stopped {
            let same = |place: &&mut Option<(&Cache, _)>| {
                place.as_ref().is_some_and(|(cache, _)| ptr::eq(&cache.slab, stopped.slab()))
            };
            let Some((cache, shape)) = shapes.iter_mut().find(same).and_then(Option::take) else { continue };
            bytes += cache.drain(&shape, |list, objects| stopped.pop_batch(list, objects));
            drop(stopped); // before the lock: a fork finds no stopped slab
        }
    }
    bytes
}

/// Gives all memory that nobody uses back to the kernel: drains the caches and the transfer caches, then
/// releases free pages. Returns how many bytes went back.
pub fn release() -> usize {
    if STATE.load(Acquire) != READY {
        return 0;
    }
    drain();
    for class in SizeClass::all() {
        BACK_END.middle(class).trim();
    }
    BACK_END.pages.release_free()
}

// Fork: all locks are taken in the order of `sync`, so the child finds every structure whole. A slab needs no
// lock: its changes are single stores, and a sequence that was under way elsewhere has not committed. A CPU is
// stopped only under its cache's shape lock, so none is at the time of a fork.

fn for_each_lock(mut f: impl FnMut(&dyn RawLock)) {
    f(registry::mutex());
    for cache in registry::all() {
        f(cache.mutex());
    }
    f(hardened::mutex());
    for transfer in &BACK_END.transfer {
        f(transfer.mutex());
    }
    for central in &BACK_END.central {
        f(central.mutex());
    }
    f(BACK_END.pages.mutex());
    f(SPARE_ARRAYS.mutex());
    f(BACK_END.metadata.mutex());
}

/// A mutex of any content.
trait RawLock {
    fn acquire(&self);
    unsafe fn release(&self, in_child: bool);
}

impl<T> RawLock for Mutex<T> {
    fn acquire(&self) {
        Mutex::acquire(self);
    }
    unsafe fn release(&self, in_child: bool) {
        // SAFETY: by our own contract the caller holds the lock without a guard.
        unsafe { if in_child { self.release_in_child() } else { Mutex::release(self) } }
    }
}

extern "C" fn before_fork() {
    for_each_lock(|lock| lock.acquire());
}

extern "C" fn after_fork_parent() {
    // SAFETY: `before_fork` took every lock. No cache is added while this walks the caches, although the registry's
    // lock is free again: that takes metadata's as well, which is freed last.
    for_each_lock(|lock| unsafe { lock.release(false) });
}

extern "C" fn after_fork_child() {
    // SAFETY: as for the parent: the forking thread is the child's only one.
    for_each_lock(|lock| unsafe { lock.release(true) });
    if !caches_threads() {
        return;
    }
    let own = front_end::own_thread_cache();
    for cache in registry::all().filter(|cache| cache.in_use.load(Relaxed)) {
        if own.is_some_and(|own| ptr::eq(own, cache)) {
            cache.owner.store(registry::thread_id(), Relaxed);
            continue;
        }
        let shape = cache.shape_lock();
        // SAFETY: the thread it belonged to does not exist here.
        cache.drain(&shape, |list, objects| unsafe { local::pop_batch(&cache.slab, list, objects) });
        drop(shape); // the registry's lock comes first
        registry::retire(cache);
    }
}
