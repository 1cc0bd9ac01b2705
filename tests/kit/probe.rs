//! Objects for caches of constructed objects: each knows who has it, what it was left as, and that it lives once.
//!
//! Everything in a probe is atomic, so that two threads that were given the same one find out instead of racing.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use perseq::objects::{Construct, ObjectCache};
use perseq::rseq::Index;

use super::random::{Random, mix};

const ALIVE: u8 = 1;
const DEAD: u8 = 2;

/// The lives of all probes of a test.
#[derive(Default)]
pub struct Ledger {
    lives: Mutex<BTreeMap<usize, Arc<AtomicU8>>>,
    births: AtomicUsize,
    deaths: AtomicUsize,
    faults: AtomicUsize,
}

impl Ledger {
    pub fn new() -> Arc<Ledger> {
        Arc::default()
    }

    /// How many probes were made and dropped.
    pub fn counts(&self) -> (usize, usize) {
        (self.births.load(SeqCst), self.deaths.load(SeqCst))
    }

    /// Whether the probe with this number was made and not dropped.
    pub fn is_alive(&self, serial: usize) -> bool {
        self.lives.lock().expect("no panic under it").get(&serial).is_some_and(|life| life.load(SeqCst) == ALIVE)
    }

    /// What should not have happened, how often.
    pub fn faults(&self) -> usize {
        self.faults.load(SeqCst)
    }

    fn expect(&self, holds: bool) {
        self.faults.fetch_add(usize::from(!holds), SeqCst);
    }

    /// Asserts that each probe lived once and is gone.
    pub fn assert_over(&self) {
        let (births, deaths) = self.counts();
        assert_eq!((self.faults(), births), (0, deaths), "faults, and births and deaths");
        let lives = self.lives.lock().expect("no panic under it");
        assert_eq!(lives.len(), births);
        assert!(lives.values().all(|life| life.load(SeqCst) == DEAD));
    }
}

/// See the module.
pub struct Probe {
    ledger: Arc<Ledger>,
    life: Arc<AtomicU8>,
    pub serial: usize,
    /// 0, or who has it.
    holder: AtomicU64,
    /// What its last user left.
    version: AtomicU64,
    words: [AtomicU64; 6],
}

impl Probe {
    pub fn new(ledger: &Arc<Ledger>) -> Probe {
        let serial = ledger.births.fetch_add(1, SeqCst);
        let life = Arc::new(AtomicU8::new(ALIVE));
        ledger.lives.lock().expect("no panic under it").insert(serial, life.clone());
        let words = std::array::from_fn(|place| AtomicU64::new(word(serial, 0, place)));
        Probe { ledger: ledger.clone(), life, serial, holder: AtomicU64::new(0), version: AtomicU64::new(0), words }
    }

    /// `user` has it: nobody else does, and it is as it was left.
    pub fn enter(&self, user: u64) {
        let before = self.holder.swap(user, SeqCst);
        let alive = self.life.load(SeqCst) == ALIVE;
        let version = self.version.load(Relaxed);
        let whole = (0..).zip(&self.words).all(|(at, seen)| seen.load(Relaxed) == word(self.serial, version, at));
        self.ledger.expect(before == 0 && alive && whole);
    }

    /// `user` changes it and has it no more.
    pub fn leave(&self, user: u64) {
        let version = self.version.load(Relaxed) + 1;
        self.version.store(version, Relaxed);
        (0..).zip(&self.words).for_each(|(at, place)| place.store(word(self.serial, version, at), Relaxed));
        let holder = self.holder.swap(0, SeqCst);
        self.ledger.expect(holder == user);
    }

    /// How often it was left.
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let before = self.life.swap(DEAD, SeqCst);
        self.ledger.deaths.fetch_add(1, SeqCst);
        self.ledger.expect(before == ALIVE && self.holder.load(SeqCst) == 0);
    }
}

fn word(serial: usize, version: u64, place: usize) -> u64 {
    mix(serial as u64 ^ mix(version ^ mix(place as u64)))
}

/// Where probes come from.
pub trait Source: Sync {
    fn take(&self) -> Option<NonNull<Probe>>;
    /// # Safety
    ///
    /// * The probe came from `take`, and nobody uses it.
    unsafe fn put(&self, probe: NonNull<Probe>);
    /// What others do now and then.
    fn disturb(&self);
}

impl<C: Construct<Probe> + Sync, I: Index> Source for ObjectCache<Probe, C, I> {
    fn take(&self) -> Option<NonNull<Probe>> {
        self.take_raw()
    }

    unsafe fn put(&self, probe: NonNull<Probe>) {
        // SAFETY: by our own contract.
        unsafe { self.put_raw(probe) };
    }

    fn disturb(&self) {
        self.shrink();
    }
}

/// A probe on its way between threads.
struct Parcel(NonNull<Probe>);

// SAFETY: probes may be sent; a parcel has one owner.
unsafe impl Send for Parcel {}

/// Threads take, hold, change, give back and pass on, on all CPUs, while another disturbs. All is given back in the end.
pub fn torture(source: &impl Source, threads: u64, duration: Duration) {
    let (cpus, post, start) = (super::allowed_cpus(), Mutex::new(Vec::<Parcel>::new()), Instant::now());
    let done = || start.elapsed() >= duration;
    std::thread::scope(|scope| {
        for user in 1..=threads {
            let (cpus, post) = (&cpus, &post);
            scope.spawn(move || {
                let mut random = Random::stream(user);
                let mut held: Vec<NonNull<Probe>> = Vec::new();
                while !done() {
                    for _ in 0..200 {
                        if held.len() < random.below(60) {
                            let probe = source.take().expect("memory");
                            // SAFETY: a probe, and all of it is shared.
                            unsafe { probe.as_ref() }.enter(user);
                            held.push(probe);
                        } else if !held.is_empty() {
                            let probe = held.swap_remove(random.below(held.len()));
                            // SAFETY: as above; given away once.
                            unsafe {
                                probe.as_ref().leave(user);
                                if random.once_in(8) {
                                    post.lock().expect("no panic under it").push(Parcel(probe));
                                } else {
                                    source.put(probe);
                                }
                            }
                        }
                    }
                    for Parcel(probe) in std::mem::take(&mut *post.lock().expect("no panic under it")) {
                        // SAFETY: nobody else has the parcel.
                        unsafe { source.put(probe) };
                    }
                    if random.once_in(4) {
                        super::run_on(&[random.of(cpus)]);
                    }
                }
                for probe in held {
                    // SAFETY: ours, given back once.
                    unsafe {
                        probe.as_ref().leave(user);
                        source.put(probe);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done() {
                source.disturb();
                std::thread::sleep(Duration::from_micros(500));
            }
        });
    });
    for Parcel(probe) in post.into_inner().expect("no panic under it") {
        // SAFETY: the threads are gone.
        unsafe { source.put(probe) };
    }
}
