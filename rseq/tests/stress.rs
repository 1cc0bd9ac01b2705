//! Conservation under everything at once, and controls that must lose it.
//!
//! Objects have an owner word. Who pops one changes it from 0 to 1, and finds a 1 if somebody else has it;
//! who pushes one sets it to 0. At the end every object is found exactly once. Meanwhile there are more
//! threads than CPUs, they change their affinity, signal handlers use the same lists, and another thread
//! stops slabs and rows and takes what is in them.
//!
//! The sequences run as shipped, and in variants made from the same files that pause in front of a random
//! instruction. The controls are variants with one defect, or a drain without its fence or its stop word; they
//! show that a defect is found. Each scenario has a process of its own, since a defect corrupts it.
//!
//! A sound scenario runs for two seconds, or for `RSEQ_STRESS_SECONDS`.
#![cfg(target_arch = "x86_64")]

mod support {
    pub mod variants;
}

use std::env;
use std::process::{Command, exit};
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rseq::slab::{Slot, make_array};
use rseq::{CpuId, Handle, Index, Miss, MmCid, Registration, Rows, STOPPED, Slab, local, sequence};
use support::variants::{self, Change, Library, Numbers, POINTS};

const LISTS: usize = 2;
const CAPACITY: usize = 24;
const BATCH: usize = 6;
const OBJECTS: usize = 160;
/// How long a control may take to be found out.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of a process that found its objects corrupted.
const CORRUPT: i32 = 7;

static NO_SLAB: Slab<LISTS> = Slab::new();

rseq::thread_cell! {
    fn cell() -> "stress_test_cell": LISTS, NO_SLAB
}

/// An object, and a node: the link comes first.
#[repr(C, align(16))]
struct Object {
    link: AtomicUsize,
    owner: AtomicU32,
}

/// What is done wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    NotArmed,
    NotChecked,
    /// The drain stores the stop word and does not fence.
    NoFence,
    /// The drain fences and does not store the stop word.
    NoStopWord,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    /// Linked lists and counters in rows; else array lists in slabs.
    rows: bool,
    mm_cid: bool,
    /// Variants with delay points instead of the sequences as shipped.
    delays: bool,
    fault: Fault,
}

/// A scenario's lists, behind one face. `usize` outcomes are those of the sequences.
trait Lists: Sync {
    /// Takes one object of `list`. Missing because empty, or because moved.
    fn pop(&self, list: usize) -> Result<NonNull<u8>, Miss>;
    fn push(&self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss>;
    fn push_batch(&self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss>;
    /// Gives `list` of the present index its other array, if it is empty.
    fn resize(&self, list: usize) -> Result<(), Miss>;
    /// Names the present index's slab, after a move.
    fn locate(&self);
    /// Adds 1 to the present index's number.
    fn add(&self) -> Result<(), Miss>;
    /// Takes all objects from index `index`, which may be running.
    fn drain(&self, index: usize, user: &mut dyn FnMut(NonNull<u8>));
    fn indices(&self) -> usize;
    /// Aborts so far.
    fn restarts(&self) -> u64;
    /// The delay points, in a variant.
    fn delays(&self) -> Option<&'static [AtomicU64; POINTS]>;
    fn sum(&self) -> u64;
}

struct Scene<I: Index> {
    found: Registration,
    handle: Handle,
    library: Option<Library>,
    fault: Fault,
    slabs: &'static [Slab<LISTS>],
    /// The lowest slots of each list's two arrays, a long one and a short one.
    arrays: Vec<[[usize; 2]; LISTS]>,
    rows: Rows<[AtomicU64; 3], I>,
}

const NUMBER: usize = rseq::rows::Row::<[AtomicU64; 3]>::VALUE;

fn head(list: usize) -> usize {
    NUMBER + 8 + 8 * list
}

fn outcome(word: usize) -> Result<usize, Miss> {
    match word {
        3 => Err(Miss::Moved),
        word if word & 1 != 0 => Err(Miss::Unfit),
        word => Ok(word),
    }
}

impl<I: Index> Scene<I> {
    fn new(scenario: Scenario) -> Self {
        let found = rseq::probe().expect("asked before");
        rseq::fence::register().expect("membarrier");
        let change = match scenario.fault {
            Fault::NotArmed => Some(Change::NotArmed),
            Fault::NotChecked => Some(Change::NotChecked),
            _ if scenario.delays => Some(Change::Delays),
            _ => None,
        };
        let numbers = Numbers { index: I::FIELD as usize, shift: Rows::<[AtomicU64; 3], I>::SHIFT };
        let slabs: Vec<Slab<LISTS>> = (0..rseq::kernel::possible_cpus()).map(|_| Slab::new()).collect();
        let slabs: &'static [Slab<LISTS>] = slabs.leak();
        let array = |capacity: usize| {
            let memory = NonNull::from(vec![0_usize; capacity + 2].leak()).cast();
            // SAFETY: that many words, which nobody else uses.
            unsafe { make_array(memory, capacity) as usize }
        };
        let arrays: Vec<[[usize; 2]; LISTS]> = slabs
            .iter()
            .map(|_| [[array(CAPACITY), array(CAPACITY / 4)], [array(CAPACITY), array(CAPACITY / 4)]])
            .collect();
        for (index, slab) in slabs.iter().enumerate() {
            // SAFETY: the slab stays where it is.
            unsafe { slab.detach() };
            for (list, lists_arrays) in arrays[index].iter().enumerate() {
                // SAFETY: nobody uses the slab yet.
                assert!(unsafe { local::replace(slab, list, slab.nothing(), lists_arrays[0] as *mut Slot) });
            }
            // SAFETY: new, whole, leaked, and the only one with this index.
            unsafe { slab.start::<I>(index as u32) };
        }
        Scene {
            found,
            handle: found.handle::<I>(),
            library: change.map(|change| variants::load(change, &numbers)),
            fault: scenario.fault,
            slabs,
            arrays,
            rows: Rows::new().expect("rows"),
        }
    }

    fn variant_handle(&self) -> isize {
        self.handle.to_bits() - I::TAG
    }

    fn fence(&self, index: usize) {
        let fenced = if I::IS_CPU { rseq::fence::cpu(index as u32) } else { rseq::fence::all() };
        fenced.expect("fence");
    }

    /// A stop and start with one part left out, around `act`.
    fn stop_wrongly(&self, word: *const AtomicU32, stopped: u32, index: usize, act: impl FnOnce()) {
        // SAFETY: the first word of a slab or row that lives as long as the scene.
        let word = unsafe { &*word };
        let running = word.load(SeqCst);
        match self.fault {
            Fault::NoFence => word.store(stopped, SeqCst),
            Fault::NoStopWord => {
                self.fence(index);
                linger();
            }
            _ => unreachable!("only for the two faults"),
        }
        act();
        word.store(running, SeqCst);
    }
}

struct OnSlabs<I: Index>(Scene<I>);

impl<I: Index> Lists for OnSlabs<I> {
    fn pop(&self, list: usize) -> Result<NonNull<u8>, Miss> {
        let scene = &self.0;
        // SAFETY: the handle is of index `I`, the cell names one of the scene's slabs, the list is one of theirs.
        unsafe {
            match &scene.library {
                None => sequence::pop::<I, LISTS>(scene.handle, cell(), list),
                Some(library) => outcome((library.pop)(scene.variant_handle(), cell().offset() as usize, list, 0, 0))
                    .map(|object| NonNull::new_unchecked(object as *mut u8)),
            }
        }
    }

    fn push(&self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let scene = &self.0;
        let word = object.as_ptr() as usize;
        // SAFETY: as in `pop`; objects are 16-aligned.
        unsafe {
            match &scene.library {
                None => sequence::push::<I, LISTS>(scene.handle, cell(), list, object),
                Some(library) => {
                    outcome((library.push)(scene.variant_handle(), cell().offset() as usize, list, word, 0)).map(drop)
                }
            }
        }
    }

    fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        let scene = &self.0;
        let Some(library) = &scene.library else {
            // SAFETY: as in `pop`.
            return unsafe { sequence::pop_batch::<I, LISTS>(scene.handle, cell(), list, objects) };
        };
        let (place, most) = (objects.as_mut_ptr() as usize, objects.len());
        // SAFETY: as in `pop`.
        let count = unsafe { (library.pop_batch)(scene.variant_handle(), cell().offset() as usize, list, place, most) }
            as isize;
        usize::try_from(count).map_err(|_| Miss::Moved)
    }

    fn push_batch(&self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        let scene = &self.0;
        let Some(library) = &scene.library else {
            // SAFETY: as in `push`.
            return unsafe { sequence::push_batch::<I, LISTS>(scene.handle, cell(), list, objects) };
        };
        let (place, most) = (objects.as_ptr() as usize, objects.len());
        // SAFETY: as in `push`.
        let count = unsafe { (library.push_batch)(scene.variant_handle(), cell().offset() as usize, list, place, most) }
            as isize;
        usize::try_from(count).map_err(|_| Miss::Moved)
    }

    fn resize(&self, list: usize) -> Result<(), Miss> {
        let slab = cell().get();
        let Some(index) = self.0.slabs.iter().position(|known| ptr::eq(known, slab)) else { return Err(Miss::Moved) };
        let [long, short] = self.0.arrays[index][list].map(|array| array as *mut Slot);
        let (expected, new) = if slab.top(list) == long { (long, short) } else { (short, long) };
        // SAFETY: as in `pop`; a list whose top is at the lowest slot of one array uses nothing of the other.
        unsafe { sequence::replace::<I, LISTS>(self.0.handle, cell(), list, expected, new) }
    }

    fn locate(&self) {
        self.0.found.ensure_thread().expect("a registered thread");
        // SAFETY: the handle is of index `I`.
        let index = unsafe { self.0.handle.index::<I>() };
        cell().set(self.0.slabs.get(index as usize).unwrap_or(&NO_SLAB));
    }

    fn add(&self) -> Result<(), Miss> {
        Ok(()) // slabs have no numbers
    }

    fn drain(&self, index: usize, user: &mut dyn FnMut(NonNull<u8>)) {
        let slab = &self.0.slabs[index];
        let mut objects = [ptr::null_mut(); CAPACITY];
        for list in 0..LISTS {
            let mut taken = 0;
            match self.0.fault {
                Fault::NoFence | Fault::NoStopWord => {
                    let id: *const AtomicU32 = ptr::from_ref(slab).cast();
                    self.0.stop_wrongly(id, STOPPED, index, || {
                        // SAFETY: it is not safe: that is the point.
                        taken = unsafe { local::pop_batch(slab, list, &mut objects) };
                    });
                }
                _ => {
                    let Ok(stopped) = slab.stop() else { continue };
                    taken = stopped.pop_batch(list, &mut objects);
                }
            }
            objects[..taken].iter().for_each(|&object| user(NonNull::new(object).expect("an object")));
        }
    }

    fn indices(&self) -> usize {
        self.0.slabs.len()
    }

    fn restarts(&self) -> u64 {
        self.0.library.map_or_else(rseq::restarts, |library| library.restarts.load(Relaxed))
    }

    fn delays(&self) -> Option<&'static [AtomicU64; POINTS]> {
        self.0.library.map(|library| library.delays)
    }

    fn sum(&self) -> u64 {
        0
    }
}

struct OnRows<I: Index>(Scene<I>);

impl<I: Index> OnRows<I> {
    fn base(&self) -> usize {
        ptr::from_ref(self.0.rows.peek(0).expect("a row")) as usize - NUMBER
    }
}

impl<I: Index> Lists for OnRows<I> {
    fn pop(&self, list: usize) -> Result<NonNull<u8>, Miss> {
        let scene = &self.0;
        // SAFETY: the handle is of index `I`; the word begins a list of objects, which are never freed.
        unsafe {
            match &scene.library {
                None => sequence::linked_pop(scene.handle, &scene.rows, head(list)).map(NonNull::cast),
                Some(library) => {
                    let rows = scene.rows.count();
                    outcome((library.linked_pop)(scene.variant_handle(), self.base(), rows, 0, head(list)))
                        .map(|object| NonNull::new_unchecked(object as *mut u8))
                }
            }
        }
    }

    fn push(&self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let scene = &self.0;
        // SAFETY: as in `pop`; the object is this thread's and its link is its first word.
        unsafe {
            match &scene.library {
                None => sequence::linked_push(scene.handle, &scene.rows, head(list), object.cast()),
                Some(library) => {
                    let (rows, word) = (scene.rows.count(), object.as_ptr() as usize);
                    outcome((library.linked_push)(scene.variant_handle(), self.base(), rows, word, head(list)))
                        .map(drop)
                }
            }
        }
    }

    fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        objects[0] = self.pop(list)?.as_ptr();
        Ok(1)
    }

    fn push_batch(&self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        self.push(list, NonNull::new(objects[0]).expect("an object"))?;
        Ok(1)
    }

    fn resize(&self, _: usize) -> Result<(), Miss> {
        Ok(()) // rows have no arrays
    }

    fn locate(&self) {
        self.0.found.ensure_thread().expect("a registered thread");
    }

    fn add(&self) -> Result<(), Miss> {
        let scene = &self.0;
        // SAFETY: the handle is of index `I`; the word is a number.
        unsafe {
            match &scene.library {
                None => sequence::add(scene.handle, &scene.rows, NUMBER, 1),
                Some(library) => {
                    let rows = scene.rows.count();
                    outcome((library.add)(scene.variant_handle(), self.base(), rows, 1, NUMBER)).map(drop)
                }
            }
        }
    }

    fn drain(&self, index: usize, user: &mut dyn FnMut(NonNull<u8>)) {
        let words = self.0.rows.peek(index).expect("a row");
        for list in 0..LISTS {
            let mut first = None;
            match self.0.fault {
                Fault::NoFence | Fault::NoStopWord => {
                    let stopped = (ptr::from_ref(words) as usize - NUMBER) as *const AtomicU32;
                    self.0.stop_wrongly(stopped, 1, index, || {
                        let head = words[1 + list].load(SeqCst);
                        words[1 + list].store(0, SeqCst);
                        first = NonNull::new(head as *mut usize);
                    });
                }
                _ => {
                    let Ok(row) = self.0.rows.stop(index) else { continue };
                    linger();
                    first = local::linked_pop_all(&row[1 + list]);
                }
            }
            let mut count = 0;
            while let Some(node) = first {
                count += 1;
                if count > OBJECTS {
                    corrupt("a list without an end");
                }
                // SAFETY: a node that is ours now.
                first = NonNull::new(unsafe { node.read() } as *mut usize);
                user(node.cast());
            }
        }
    }

    fn indices(&self) -> usize {
        self.0.rows.count()
    }

    fn restarts(&self) -> u64 {
        self.0.library.map_or_else(rseq::restarts, |library| library.restarts.load(Relaxed))
    }

    fn delays(&self) -> Option<&'static [AtomicU64; POINTS]> {
        self.0.library.map(|library| library.delays)
    }

    fn sum(&self) -> u64 {
        self.0.rows.values().map(|row| row[0].load(SeqCst)).sum()
    }
}

/// Holds a stopped slab for a while, so that who should not use it has time to.
fn linger() {
    for _ in 0..2000 {
        std::hint::spin_loop();
    }
}

fn corrupt(what: &str) -> ! {
    println!("corrupt: {what}");
    // SAFETY: ends the process at once, whatever its other threads are in.
    unsafe { libc::_exit(CORRUPT) }
}

fn take(object: NonNull<u8>) {
    // SAFETY: objects are never freed, and all tokens are objects unless a list is corrupt.
    let object = unsafe { object.cast::<Object>().as_ref() };
    if object.owner.swap(1, SeqCst) != 0 {
        corrupt("an object taken twice");
    }
}

fn give(object: NonNull<u8>) {
    // SAFETY: as in `take`.
    let object = unsafe { object.cast::<Object>().as_ref() };
    if object.owner.swap(0, SeqCst) != 1 {
        corrupt("an object given back that was not taken");
    }
}

static LIST_OF_SCENE: OnceLock<&'static dyn Lists> = OnceLock::new();
static HANDLER_BUSY: AtomicBool = AtomicBool::new(false);
/// Where handlers leave objects they cannot put back.
static SPILL: [AtomicPtr<u8>; OBJECTS] = [const { AtomicPtr::new(ptr::null_mut()) }; OBJECTS];
static HANDLED: AtomicU64 = AtomicU64::new(0);
static ADDED: AtomicU64 = AtomicU64::new(0);

/// Uses the same lists as what it interrupts, a sequence perhaps.
extern "C" fn handler(_: i32) {
    let Some(lists) = LIST_OF_SCENE.get() else { return };
    HANDLED.fetch_add(1, Relaxed);
    for list in 0..LISTS {
        let Ok(object) = lists.pop(list) else { continue };
        take(object);
        give(object);
        if lists.push(list, object).is_err() {
            take(object);
            let free = |place: &&AtomicPtr<u8>| {
                place.compare_exchange(ptr::null_mut(), object.as_ptr(), SeqCst, SeqCst).is_ok()
            };
            SPILL.iter().find(free).expect("as many places as objects");
        }
    }
    if lists.add().is_ok() {
        ADDED.fetch_add(1, Relaxed);
    }
}

/// A small generator of random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

fn work(lists: &dyn Lists, pool: &Mutex<Vec<usize>>, stop: &AtomicBool, seed: u64) -> Vec<usize> {
    let mut random = Random(seed);
    let mut hand: Vec<NonNull<u8>> = Vec::new();
    let mut added = 0;
    lists.locate();
    while !stop.load(Relaxed) {
        let list = random.below(LISTS);
        let answer = match random.below(6) {
            5 => lists.resize(list),
            0 => lists.pop(list).map(|object| {
                take(object);
                hand.push(object);
            }),
            1 => hand.pop().map_or(Ok(()), |object| {
                give(object);
                lists.push(list, object).inspect_err(|_| {
                    take(object);
                    hand.push(object);
                })
            }),
            2 => {
                let mut objects = [ptr::null_mut(); BATCH];
                lists.pop_batch(list, &mut objects).map(|count| {
                    for &object in &objects[..count] {
                        let object = NonNull::new(object).expect("an object");
                        take(object);
                        hand.push(object);
                    }
                })
            }
            3 if hand.len() >= BATCH => {
                let objects: Vec<*mut u8> = hand.drain(hand.len() - BATCH..).map(NonNull::as_ptr).collect();
                let objects_taken = |from: usize, hand: &mut Vec<NonNull<u8>>| {
                    for &object in &objects[from..] {
                        let object = NonNull::new(object).expect("an object");
                        take(object);
                        hand.push(object);
                    }
                };
                objects.iter().for_each(|&object| give(NonNull::new(object).expect("an object")));
                lists
                    .push_batch(list, &objects)
                    .map(|count| objects_taken(count, &mut hand))
                    .inspect_err(|_| objects_taken(0, &mut hand))
            }
            _ => lists.add().map(|()| added += 1),
        };
        match answer {
            Err(Miss::Moved) => lists.locate(),
            Err(Miss::Unfit) if hand.is_empty() => {
                let mut pool = pool.lock().expect("no panic");
                let from = pool.len().saturating_sub(BATCH);
                hand.extend(pool.drain(from..).map(|object| NonNull::new(object as *mut u8).expect("an object")));
            }
            _ => {}
        }
        match random.below(2000) {
            0 => move_to(random.below(2)),
            1 => std::thread::yield_now(),
            _ => {}
        }
    }
    ADDED.fetch_add(added, Relaxed);
    check_kernel_fields(random.below(2));
    hand.into_iter().map(|object| object.as_ptr() as usize).collect()
}

/// The numbers in the calling thread's area are still the kernel's: nobody else wrote them.
fn check_kernel_fields(choice: usize) {
    move_to(choice);
    let found = rseq::probe().expect("registered");
    let mut cpu = 0_u32;
    // SAFETY: a number of ours to be filled.
    unsafe { libc::syscall(libc::SYS_getcpu, &mut cpu, 0, 0) };
    let thread: usize;
    // SAFETY: the thread control block begins with its own address.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly)) };
    // SAFETY: the first 32 bytes of this thread's area, aligned to 32 (libc's need not be aligned as ours is).
    let area = unsafe { ((thread as isize + found.offset()) as *const [u32; 8]).read_volatile() };
    let [cpu_id_start, cpu_id, _, _, flags, _, mm_cid, _] = area;
    assert_eq!((cpu_id_start, cpu_id, flags), (cpu, cpu, 0), "fields of the kernel's");
    assert!((mm_cid as usize) < rseq::kernel::possible_cpus(), "mm_cid");
}

/// Moves the calling thread to one of the CPUs it is allowed.
fn move_to(choice: usize) {
    static ALLOWED: OnceLock<libc::cpu_set_t> = OnceLock::new();
    // SAFETY: all-zero bytes are an empty set, and each set is ours.
    unsafe {
        let allowed = ALLOWED.get_or_init(|| {
            let mut set = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            set
        });
        let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, allowed)).collect();
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpus[choice % cpus.len()], &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// Runs a scenario in this process for `time` and counts its objects.
fn play(scenario: Scenario, time: Duration) {
    let lists: &'static dyn Lists = match (scenario.rows, scenario.mm_cid) {
        (false, false) => Box::leak(Box::new(OnSlabs(Scene::<CpuId>::new(scenario)))),
        (false, true) => Box::leak(Box::new(OnSlabs(Scene::<MmCid>::new(scenario)))),
        (true, false) => Box::leak(Box::new(OnRows(Scene::<CpuId>::new(scenario)))),
        (true, true) => Box::leak(Box::new(OnRows(Scene::<MmCid>::new(scenario)))),
    };
    let threads = 3 * std::thread::available_parallelism().map_or(2, usize::from);
    let delays = lists.delays();
    let objects: &'static [Object] =
        Vec::leak((0..OBJECTS).map(|_| Object { link: AtomicUsize::new(0), owner: AtomicU32::new(1) }).collect());
    let pool: Mutex<Vec<usize>> = Mutex::new(objects.iter().map(|object| ptr::from_ref(object) as usize).collect());
    // SAFETY: the handler uses sequences and atomics only.
    unsafe { libc::signal(libc::SIGUSR1, handler as extern "C" fn(i32) as libc::sighandler_t) };
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    move_to(0); // reads which CPUs are allowed, before anybody else changes that
    let handles: Mutex<Vec<libc::pthread_t>> = Mutex::new(Vec::new());
    let (mut found, mut drains) = (Vec::new(), 0_u64);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (pool, stop, handles) = (&pool, &stop, &handles);
                scope.spawn(move || {
                    // SAFETY: the calling thread.
                    handles.lock().expect("no panic").push(unsafe { libc::pthread_self() });
                    let hand = work(lists, pool, stop, 88172645463325252 + 977 * thread as u64);
                    while HANDLER_BUSY.load(SeqCst) {
                        std::thread::yield_now(); // the thread must live while it may be sent a signal
                    }
                    hand
                })
            })
            .collect();
        let _ = LIST_OF_SCENE.set(lists);
        HANDLER_BUSY.store(true, SeqCst);
        let mut random = Random(1442695040888963407);
        while started.elapsed() < time {
            lists.drain(random.below(lists.indices()), &mut |object| {
                take(object);
                pool.lock().expect("no panic").push(object.as_ptr() as usize);
            });
            drains += 1;
            let targets = handles.lock().expect("no panic");
            if !targets.is_empty() {
                // SAFETY: a thread that waits for us before it ends.
                unsafe { libc::pthread_kill(targets[random.below(targets.len())], libc::SIGUSR1) };
            }
            drop(targets);
            if let Some(delays) = delays {
                let long = random.below(POINTS);
                for (point, delay) in delays.iter().enumerate() {
                    delay.store(if point == long { 40 + random.below(400) as u64 } else { 0 }, Relaxed);
                }
            }
            std::thread::sleep(Duration::from_micros(50 + random.below(200) as u64));
        }
        stop.store(true, SeqCst);
        HANDLER_BUSY.store(false, SeqCst);
        for worker in workers {
            found.extend(worker.join().expect("no panic"));
        }
    });
    let in_hands = found.len();
    found.extend(pool.into_inner().expect("no panic"));
    found.extend(SPILL.iter().map(|place| place.load(SeqCst) as usize).filter(|&object| object != 0));
    for index in 0..lists.indices() {
        lists.drain(index, &mut |object| {
            take(object);
            found.push(object.as_ptr() as usize);
        });
    }
    found.sort_unstable();
    let mut expected: Vec<usize> = objects.iter().map(|object| ptr::from_ref(object) as usize).collect();
    expected.sort_unstable();
    if found != expected {
        corrupt(&format!("{} objects became {}", expected.len(), found.len()));
    }
    if scenario.rows && lists.sum() != ADDED.load(SeqCst) {
        corrupt(&format!("{} additions became {}", ADDED.load(SeqCst), lists.sum()));
    }
    let _ = objects[0].link.load(Relaxed);
    println!(
        "{scenario:?}: {threads} threads, {in_hands} objects in hands, {drains} drains, {} handlers, {} restarts",
        HANDLED.load(SeqCst),
        lists.restarts()
    );
}

/// Plays `scenario` in a process of its own; says how it ended and what it printed.
fn play_apart(test: &str, scenario: Scenario, time: Duration) -> (Option<i32>, String) {
    let Scenario { rows, mm_cid, delays, fault } = scenario;
    let fault = FAULTS.iter().position(|&known| known == fault).expect("a fault");
    let code = format!("{} {} {} {fault} {}", rows as u8, mm_cid as u8, delays as u8, time.as_millis());
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, code)
        .output()
        .expect("starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

const VARIABLE: &str = "RSEQ_STRESS_SCENARIO";
const FAULTS: [Fault; 5] = [Fault::None, Fault::NotArmed, Fault::NotChecked, Fault::NoFence, Fault::NoStopWord];

/// In a process that [`play_apart`] started: plays, and does not return.
fn play_if_asked() {
    let Ok(code) = env::var(VARIABLE) else { return };
    let numbers: Vec<u64> = code.split(' ').map(|number| number.parse().expect("a number")).collect();
    let scenario = Scenario {
        rows: numbers[0] != 0,
        mm_cid: numbers[1] != 0,
        delays: numbers[2] != 0,
        fault: FAULTS[numbers[3] as usize],
    };
    play(scenario, Duration::from_millis(numbers[4]));
    exit(0);
}

/// Whether sequences on this index can run here; says so if not.
fn can_run(mm_cid: bool) -> bool {
    let found = rseq::probe();
    let can = found.is_ok_and(|found| if mm_cid { found.has::<MmCid>() } else { found.has::<CpuId>() });
    if !can {
        println!("not run: {found:?}, mm_cid wanted: {mm_cid}");
    }
    can
}

fn conserves(test: &str, rows: bool, mm_cid: bool) {
    play_if_asked();
    if !can_run(mm_cid) {
        return;
    }
    let seconds =
        env::var("RSEQ_STRESS_SECONDS").map_or(2, |text| text.parse().expect("RSEQ_STRESS_SECONDS is a number"));
    for delays in [false, true] {
        let scenario = Scenario { rows, mm_cid, delays, fault: Fault::None };
        let (code, output) = play_apart(test, scenario, Duration::from_secs(seconds));
        print!("{output}");
        assert_eq!(code, Some(0), "{scenario:?}");
    }
}

fn is_found_out(test: &str, rows: bool, fault: Fault) {
    play_if_asked();
    for mm_cid in [false, true] {
        if !can_run(mm_cid) {
            continue;
        }
        let scenario = Scenario { rows, mm_cid, delays: true, fault };
        let started = Instant::now();
        let (code, output) = play_apart(test, scenario, PATIENCE);
        let what =
            output.lines().find_map(|line| line.split_once("corrupt: ")).map_or("killed by a signal", |(_, what)| what);
        // A corrupted list may also send a thread to an address that is none.
        assert!(code.is_none() || code == Some(CORRUPT), "{scenario:?} was not found out: {code:?}\n{output}");
        println!("{scenario:?}: {what} after {:?}", started.elapsed());
    }
}

#[test]
fn slabs_by_cpu_id_conserve() {
    conserves("slabs_by_cpu_id_conserve", false, false);
}

#[test]
fn slabs_by_mm_cid_conserve() {
    conserves("slabs_by_mm_cid_conserve", false, true);
}

#[test]
fn rows_by_cpu_id_conserve() {
    conserves("rows_by_cpu_id_conserve", true, false);
}

#[test]
fn rows_by_mm_cid_conserve() {
    conserves("rows_by_mm_cid_conserve", true, true);
}

#[test]
fn slabs_not_armed() {
    is_found_out("slabs_not_armed", false, Fault::NotArmed);
}

#[test]
fn slabs_not_checked() {
    is_found_out("slabs_not_checked", false, Fault::NotChecked);
}

#[test]
fn slabs_not_fenced() {
    is_found_out("slabs_not_fenced", false, Fault::NoFence);
}

#[test]
fn slabs_not_stopped() {
    is_found_out("slabs_not_stopped", false, Fault::NoStopWord);
}

#[test]
fn rows_not_armed() {
    is_found_out("rows_not_armed", true, Fault::NotArmed);
}

#[test]
fn rows_not_checked() {
    is_found_out("rows_not_checked", true, Fault::NotChecked);
}

#[test]
fn rows_not_fenced() {
    is_found_out("rows_not_fenced", true, Fault::NoFence);
}

#[test]
fn rows_not_stopped() {
    is_found_out("rows_not_stopped", true, Fault::NoStopWord);
}
