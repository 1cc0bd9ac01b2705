//! What a candidate has to pass before it is timed: doing as a `Vec` does, and losing nothing in a storm.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rseq::Miss;

use super::{CAPACITY, Candidate, LIST, Object};
use crate::kit::random::Random;

/// How storms are.
#[derive(Clone, Copy)]
pub struct Storm<'a> {
    /// How long they last at least.
    pub time: Duration,
    /// Where they are. Afterwards the thread stays on the first.
    pub cpus: &'a [usize],
}

/// How long it may last until something was aborted, or a defect was found.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pops and pushes at random, as two vectors do. The thread is pinned.
pub fn model<C: Candidate>(candidate: C) {
    const LISTS: [usize; 2] = [LIST, LIST + 1];
    let objects = Object::leak(if C::BOUNDED { 3 * CAPACITY } else { CAPACITY });
    let mut free: Vec<_> = objects.iter().map(Object::pointer).collect();
    let mut lists: [Vec<NonNull<u8>>; 2] = Default::default();
    let mut random = Random(88_172_645_463_325_252);
    candidate.locate();
    for step in 0..40_000 {
        let which = random.below(2);
        let list = &mut lists[which];
        // Now more pushes, now more pops, so that lists are full and empty again and again.
        let pushes = if step / 1000 % 2 == 0 { 3 } else { 1 };
        if random.below(4) < pushes {
            let Some(object) = free.pop() else { continue };
            let fits = !C::BOUNDED || list.len() < CAPACITY;
            let answer = sure(candidate, || candidate.push(LISTS[which], object));
            assert_eq!(answer.is_ok(), fits, "{}: push at {} objects", C::NAME, list.len());
            if fits { list.push(object) } else { free.push(object) }
        } else {
            let answer = sure(candidate, || candidate.pop(LISTS[which])).ok();
            assert_eq!(answer, list.pop(), "{}: pop", C::NAME);
            free.extend(answer);
        }
    }
    // The lists are shared with the thread's next candidate where they are the thread's.
    for list in LISTS {
        while sure(candidate, || candidate.pop(list)).is_ok() {}
    }
}

/// Tries again where the thread's lists were not found.
fn sure<C: Candidate, T>(candidate: C, operation: impl Fn() -> Result<T, Miss>) -> Result<T, Miss> {
    loop {
        match operation() {
            Err(Miss::Moved) => candidate.locate(),
            answer => return answer,
        }
    }
}

/// A storm in which nothing may be lost.
pub fn conserves<C: Candidate>(candidate: C, storm: Storm<'_>) {
    let before = rseq::restarts();
    let defect = weather(candidate, storm.cpus, storm.time, || rseq::restarts() > before);
    assert_eq!(defect, None, "{} is broken", C::NAME);
    let aborts = rseq::restarts() - before;
    assert!(aborts > 0, "{}: no sequence was aborted in {PATIENCE:?}", C::NAME);
    println!("{}: conserved its objects, {aborts} aborts", C::NAME);
}

/// A storm that the candidate must not survive.
pub fn is_found_out<C: Candidate>(candidate: C, storm: Storm<'_>) {
    let started = Instant::now();
    let defect = weather(candidate, storm.cpus, PATIENCE, || true);
    let defect = defect.unwrap_or_else(|| panic!("{} was not found out in {PATIENCE:?}", C::NAME));
    println!("{}: found out after {:?}: {defect}, as it should be", C::NAME, started.elapsed());
}

const MOST_THREADS: usize = 16;

/// What handlers do in the storm: on a candidate whose type they do not know.
trait Lists: Sync {
    fn interrupt(&self);
}

/// The candidate of the storm that is on.
static STORM: AtomicPtr<&'static dyn Lists> = AtomicPtr::new(ptr::null_mut());
/// The first defect of it.
static DEFECT: Mutex<Option<&'static str>> = Mutex::new(None);
static FOUND: AtomicBool = AtomicBool::new(false);
/// Objects that handlers took and have not put back. Handlers put one back before they take another, so there are no more
/// than threads.
static STASHED: [AtomicUsize; MOST_THREADS] = [const { AtomicUsize::new(0) }; MOST_THREADS];

thread_local!(static IN_STORM: Cell<bool> = const { Cell::new(false) });

extern "C" fn handler(_: i32) {
    if !IN_STORM.get() {
        return;
    }
    // SAFETY: null, or leaked by `weather`.
    if let Some(lists) = unsafe { STORM.load(SeqCst).as_ref() } {
        lists.interrupt();
    }
}

struct Handled<C>(C);

impl<C: Candidate> Lists for Handled<C> {
    /// Takes an object out of a list, or puts one in that a handler took: what was interrupted must notice.
    fn interrupt(&self) {
        let taken = STASHED.iter().map(|place| place.swap(0, SeqCst)).find(|&object| object != 0);
        match NonNull::new(taken.unwrap_or_default() as *mut u8) {
            Some(object) => {
                give(object);
                if self.0.push(LIST, object).is_err() {
                    take(object);
                    stash(object);
                }
            }
            None => {
                if let Ok(object) = self.0.pop(LIST) {
                    take(object);
                    stash(object);
                }
            }
        }
    }
}

/// Keeps an object for a later handler. A thread runs one handler at a time, and each keeps one object at most, so there
/// is a place for each.
fn stash(object: NonNull<u8>) {
    let free = |place: &&AtomicUsize| place.compare_exchange(0, object.as_ptr() as usize, SeqCst, SeqCst).is_ok();
    assert!(STASHED.iter().any(|place| free(&place)), "more objects stashed than handlers ran");
}

fn defect(what: &'static str) {
    if !FOUND.swap(true, SeqCst) {
        // The lock is free: it is taken here, once, and by the thread that made the storm before and after it.
        *DEFECT.lock().expect("no panic") = Some(what);
    }
}

fn take(object: NonNull<u8>) {
    // SAFETY: lists hold objects, which are never freed.
    if unsafe { object.cast::<Object>().as_ref() }.owner.swap(1, SeqCst) != 0 {
        defect("an object was handed out twice");
    }
}

fn give(object: NonNull<u8>) {
    // SAFETY: as in `take`.
    unsafe { object.cast::<Object>().as_ref() }.owner.store(0, SeqCst);
}

/// Runs a storm for `time` and until `enough`; says what went wrong.
fn weather<C: Candidate>(
    candidate: C,
    cpus: &[usize],
    time: Duration,
    enough: impl Fn() -> bool,
) -> Option<&'static str> {
    const EACH: usize = 16;
    run_on(cpus);
    let threads = (2 * cpus.len()).clamp(3, MOST_THREADS);
    let objects = Object::leak(EACH * threads);
    let lists: &'static dyn Lists = Box::leak(Box::new(Handled(candidate)));
    *DEFECT.lock().expect("no panic") = None;
    FOUND.store(false, SeqCst);
    STASHED.iter().for_each(|place| place.store(0, SeqCst));
    STORM.store(Box::leak(Box::new(lists)), SeqCst);
    // SAFETY: the handler uses sequences and atomics; its lock is taken once in a storm, for a defect.
    unsafe { libc::signal(libc::SIGUSR1, handler as extern "C" fn(i32) as libc::sighandler_t) };

    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let targets: Vec<OnceLock<libc::pthread_t>> = (0..threads).map(|_| OnceLock::new()).collect();
    let mut found = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = objects
            .chunks(EACH)
            .zip(&targets)
            .enumerate()
            .map(|(number, (mine, target))| {
                let (stop, over) = (&stop, &over);
                scope.spawn(move || {
                    IN_STORM.set(true);
                    // SAFETY: the calling thread.
                    target.set(unsafe { libc::pthread_self() }).expect("set once");
                    let mut hand: Vec<_> = mine.iter().map(Object::pointer).collect();
                    work(candidate, &mut hand, cpus, stop, 977 * (number as u64 + 1));
                    while !over.load(SeqCst) {
                        std::thread::yield_now(); // it must live while it may be sent a signal
                    }
                    hand.len()
                })
            })
            .collect();
        let started = Instant::now();
        let mut random = Random(1_442_695_040_888_963_407);
        let done = || FOUND.load(SeqCst) || (started.elapsed() >= time && enough()) || started.elapsed() >= PATIENCE;
        while !done() {
            if let Some(&target) = targets[random.below(threads)].get() {
                // SAFETY: a thread that waits for us before it ends.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        stop.store(true, SeqCst);
        over.store(true, SeqCst);
        found = workers.into_iter().map(|worker| worker.join().expect("no panic")).sum();
    });
    STORM.store(ptr::null_mut(), SeqCst);

    found += STASHED.iter().filter(|place| place.swap(0, SeqCst) != 0).count();
    for &cpu in cpus {
        run_on(&[cpu]);
        candidate.locate(); // this thread's last slab may be another candidate's of the same CPU
        while let Ok(object) = sure(candidate, || candidate.pop(LIST)) {
            take(object);
            if FOUND.load(SeqCst) {
                break;
            }
            found += 1;
        }
    }
    run_on(&cpus[..1]);
    if found != objects.len() {
        defect("objects were lost");
    }
    *DEFECT.lock().expect("no panic")
}

fn work<C: Candidate>(candidate: C, hand: &mut Vec<NonNull<u8>>, cpus: &[usize], stop: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    hand.reserve(1000);
    candidate.locate();
    while !stop.load(Relaxed) && !FOUND.load(Relaxed) {
        let answer = if random.below(2) == 0 {
            candidate.pop(LIST).map(|object| {
                take(object);
                hand.push(object);
            })
        } else {
            hand.pop().map_or(Ok(()), |object| {
                give(object);
                candidate.push(LIST, object).inspect_err(|_| {
                    take(object);
                    hand.push(object);
                })
            })
        };
        if answer == Err(Miss::Moved) {
            candidate.locate();
        }
        if random.below(500) == 0 {
            run_on(&[cpus[random.below(cpus.len())]]);
        }
    }
}

pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: all-zero bytes are an empty set, which is ours to be filled.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

/// Confines the calling thread.
pub fn run_on(cpus: &[usize]) {
    // SAFETY: all-zero bytes are an empty set, which is ours.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cpus.iter().for_each(|&cpu| libc::CPU_SET(cpu, &mut set));
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}
