//! Everything that can happen to an allocator, at once.
//!
//! More threads than CPUs allocate, free, resize and send each other objects, while
//!
//! * each of them now and then moves to another CPU, or lets the kernel choose again;
//! * one thread interrupts them with signals, whose handler gives the CPU away;
//! * one thread forks, and its children use and empty the heap they got;
//! * one thread drains all caches and releases all memory, and looks at the statistics;
//! * one thread starts threads that live for a few operations.
//!
//! # What the signal handler may do
//!
//! A fast path of a per-CPU mode is one sequence, so a handler could run one in the middle of another. But
//! which path an allocation takes is not the caller's choice, and slow paths take locks that the interrupted
//! thread may hold. So allocation is no more async-signal-safe here than `malloc` is, and the handler does not
//! allocate. It yields: the interrupted sequence aborts, and the thread often goes on elsewhere. (On a bare
//! slab, where no path is slow, handlers do run sequences: see the test `controls`.)

use std::alloc::Layout;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::object::{LARGE_SIZES, Object, SIZES, any_layout, layout};
use super::random::Random;

/// Objects one thread holds at most.
const HELD: usize = 150;

/// What goes on.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub duration: Duration,
    pub threads: usize,
    pub affinity: bool,
    pub signals: bool,
    pub forks: bool,
    pub drains: bool,
    pub births: bool,
}

impl Plan {
    /// Everything, with eight threads to a CPU.
    pub fn everything(duration: Duration) -> Plan {
        let threads = 8 * super::allowed_cpus().len().clamp(1, 8);
        Plan { duration, threads, affinity: true, signals: true, forks: true, drains: true, births: true }
    }
}

/// How often what happened.
#[derive(Debug, Default)]
pub struct Tally {
    pub operations: AtomicU64,
    pub sent: AtomicU64,
    pub moves: AtomicU64,
    pub forks: AtomicU64,
    pub drains: AtomicU64,
    pub births: AtomicU64,
}

/// Times the signal handler ran.
pub static SIGNALS: AtomicU64 = AtomicU64::new(0);

struct Shared {
    plan: Plan,
    stop: AtomicBool,
    /// Kernel thread ids of the workers, 0 for one that has not started or has ended.
    workers: Vec<AtomicI32>,
    next_owner: AtomicUsize,
    cpus: Vec<usize>,
    tally: Tally,
}

/// A thread that makes things happen until told to stop. It may send objects to any worker.
type Helper = fn(&Shared, &[Sender<Object>]);

/// Runs `plan`. Afterwards every thread has ended and every object was freed.
pub fn run(plan: Plan) -> Tally {
    if plan.signals {
        handle_signals();
    }
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..plan.threads).map(|_| channel()).unzip();
    let shared = Arc::new(Shared {
        plan,
        stop: AtomicBool::new(false),
        workers: (0..plan.threads).map(|_| AtomicI32::new(0)).collect(),
        next_owner: AtomicUsize::new(plan.threads),
        cpus: super::allowed_cpus(),
        tally: Tally::default(),
    });
    let all_sent = Arc::new(Barrier::new(plan.threads));
    let mut threads = Vec::new();
    for (number, receiver) in receivers.into_iter().enumerate() {
        let (shared, senders, all_sent) = (shared.clone(), senders.clone(), all_sent.clone());
        threads.push(std::thread::spawn(move || work(&shared, number, senders, receiver, &all_sent)));
    }
    let helpers: [(bool, Helper); 4] =
        [(plan.signals, storm), (plan.forks, fork), (plan.drains, drain), (plan.births, breed)];
    for (wanted, helper) in helpers {
        if wanted {
            let (shared, senders) = (shared.clone(), senders.clone());
            threads.push(std::thread::spawn(move || helper(&shared, &senders)));
        }
    }
    drop(senders);
    let deadline = Instant::now() + plan.duration;
    while Instant::now() < deadline && !threads.iter().any(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(20));
    }
    shared.stop.store(true, SeqCst);
    for thread in threads {
        thread.join().expect("a thread of the torture panicked");
    }
    Arc::into_inner(shared).expect("all threads have ended").tally
}

/// Objects and names for them.
struct Holder {
    owner: usize,
    serial: u64,
    objects: Vec<Object>,
    random: Random,
}

impl Holder {
    fn new(owner: usize) -> Holder {
        Holder { owner, serial: 0, objects: Vec::new(), random: Random::stream(owner as u64) }
    }

    fn name(&mut self) -> u64 {
        self.serial += 1;
        (self.owner as u64) << 40 | self.serial
    }

    fn allocate(&mut self) {
        let layout = any_layout(&mut self.random);
        self.allocate_as(layout);
    }

    fn allocate_as(&mut self, layout: Layout) {
        let name = self.name();
        let zeroed = self.random.once_in(16);
        self.objects.push(if zeroed { Object::new_zeroed(layout, name) } else { Object::new(layout, name) });
    }

    fn take(&mut self) -> Option<Object> {
        let count = self.objects.len();
        (count > 0).then(|| self.objects.swap_remove(self.random.below(count)))
    }

    fn resize(&mut self) {
        let name = self.name();
        let size = any_layout(&mut self.random).size();
        if let Some(mut object) = self.take() {
            object.try_resize(size, name).expect("memory");
            self.objects.push(object);
        }
    }

    fn free_all(&mut self) {
        self.objects.drain(..).for_each(Object::free);
    }
}

fn work(shared: &Shared, number: usize, senders: Vec<Sender<Object>>, receiver: Receiver<Object>, all_sent: &Barrier) {
    shared.workers[number].store(thread_id(), SeqCst);
    let mut holder = Holder::new(number);
    while !shared.stop.load(Relaxed) {
        for _ in 0..64 {
            match holder.random.below(100) {
                0..=44 if holder.objects.len() < HELD => holder.allocate(),
                0..=79 => drop(holder.take().map(Object::free)),
                80..=89 => holder.resize(),
                _ => {
                    if let Some(object) = holder.take() {
                        let to = holder.random.below(senders.len());
                        senders[to].send(object).expect("receivers live until all has been sent");
                        shared.tally.sent.fetch_add(1, Relaxed);
                    }
                }
            }
        }
        receiver.try_iter().for_each(Object::free);
        shared.tally.operations.fetch_add(64, Relaxed);
        if shared.plan.affinity && holder.random.once_in(8) {
            shared.tally.moves.fetch_add(1, Relaxed);
            let cpu = holder.random.of(&shared.cpus);
            super::run_on(if holder.random.once_in(3) { &shared.cpus } else { std::slice::from_ref(&cpu) });
        }
    }
    drop(senders);
    all_sent.wait();
    // Short-lived threads may still be sending: the end is when the last sender is gone.
    receiver.iter().for_each(Object::free);
    holder.free_all();
    shared.workers[number].store(0, SeqCst);
}

fn storm(shared: &Shared, _: &[Sender<Object>]) {
    let mut random = Random::stream(!0);
    while !shared.stop.load(Relaxed) {
        for _ in 0..32 {
            let thread = shared.workers[random.below(shared.workers.len())].load(SeqCst);
            if thread != 0 {
                // SAFETY: sends a signal we handle to a thread of ours, or, if it has ended, to none.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
            }
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn fork(shared: &Shared, _: &[Sender<Object>]) {
    let mut holder = Holder::new(shared.next_owner.fetch_add(1, Relaxed));
    while !shared.stop.load(Relaxed) {
        for _ in 0..HELD {
            holder.allocate();
        }
        let child = super::fork(60, || {
            use_heap_after_fork(&mut holder.objects);
            perseq::drain();
            perseq::release();
        });
        super::reap(child);
        holder.free_all();
        shared.tally.forks.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a forked child does with objects of its parent's and with new ones.
pub fn use_heap_after_fork(objects: &mut Vec<Object>) {
    let mut own: Vec<_> = SIZES.iter().chain(&LARGE_SIZES[..4]).map(|&size| Object::new(layout(size, 1), 1)).collect();
    objects.iter().chain(&own).for_each(Object::check);
    while objects.len() > 1 {
        objects.swap_remove(0).free();
        own.push(Object::new(layout(own.len() * 7 + 1, 1), 2));
    }
    // Enough of one size to empty any cache and go through spans.
    own.extend((0..1500).map(|serial| Object::new(layout(32, 1), serial)));
    objects.iter().chain(&own).for_each(Object::check);
    own.into_iter().for_each(Object::free);
}

fn drain(shared: &Shared, _: &[Sender<Object>]) {
    let mut random = Random::stream(!1);
    while !shared.stop.load(Relaxed) {
        if random.once_in(4) {
            perseq::release();
        } else {
            perseq::drain();
        }
        perseq::for_each_cache(&mut |cache| {
            assert!(cache.cached_bytes <= cache.capacity_bytes, "{cache:?}");
            assert!(cache.capacity_bytes <= 1 << 20, "the default budget of a cache is exceeded: {cache:?}");
        });
        shared.tally.drains.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn breed(shared: &Shared, senders: &[Sender<Object>]) {
    while !shared.stop.load(Relaxed) {
        let threads = [(); 4].map(|()| {
            let owner = shared.next_owner.fetch_add(1, Relaxed);
            let senders = senders.to_vec();
            std::thread::spawn(move || {
                let mut holder = Holder::new(owner);
                for _ in 0..100 {
                    holder.allocate();
                }
                for _ in 0..50 {
                    let object = holder.take().expect("just allocated");
                    senders[holder.random.below(senders.len())].send(object).expect("as above");
                }
                holder.free_all();
            })
        });
        for thread in threads {
            thread.join().expect("a short-lived thread panicked");
        }
        shared.tally.births.fetch_add(4, Relaxed);
    }
}

fn handle_signals() {
    extern "C" fn on_signal(_: libc::c_int) {
        SIGNALS.fetch_add(1, Relaxed);
        // SAFETY: async-signal-safe on Linux: one system call, which leaves errno alone when it succeeds, as it always does.
        unsafe { libc::sched_yield() };
    }
    // SAFETY: a plain structure, of which all zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler lives for ever and does only what a handler may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
}

fn thread_id() -> i32 {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }
}
