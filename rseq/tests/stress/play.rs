//! Plays a scenario: threads that use lists, signals, moves, drains, and the count at the end.

use super::*;

/// Holds a stopped slab for a while, so that who should not use it has time to.
pub fn linger() {
    for _ in 0..2000 {
        std::hint::spin_loop();
    }
}

pub fn corrupt(what: &str) -> ! {
    println!("corrupt: {what}");
    // SAFETY: ends the process at once, whatever its other threads are in.
    unsafe { libc::_exit(CORRUPT) }
}

pub fn take(object: NonNull<u8>) {
    // SAFETY: objects are never freed, and all tokens are objects unless a list is corrupt.
    let object = unsafe { object.cast::<Object>().as_ref() };
    if object.owner.swap(1, SeqCst) != 0 {
        corrupt("an object taken twice");
    }
}

pub fn give(object: NonNull<u8>) {
    // SAFETY: as in `take`.
    let object = unsafe { object.cast::<Object>().as_ref() };
    if object.owner.swap(0, SeqCst) != 1 {
        corrupt("an object given back that was not taken");
    }
}

pub static LIST_OF_SCENE: OnceLock<&'static dyn Lists> = OnceLock::new();
pub static HANDLER_BUSY: AtomicBool = AtomicBool::new(false);
/// Where handlers leave objects they cannot put back.
pub static SPILL: [AtomicPtr<u8>; OBJECTS] = [const { AtomicPtr::new(ptr::null_mut()) }; OBJECTS];
pub static HANDLED: AtomicU64 = AtomicU64::new(0);
pub static ADDED: AtomicU64 = AtomicU64::new(0);

/// Uses the same lists as what it interrupts, a sequence perhaps.
pub extern "C" fn handler(_: i32) {
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
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

pub fn work(lists: &dyn Lists, pool: &Mutex<Vec<usize>>, stop: &AtomicBool, seed: u64) -> Vec<usize> {
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
    kit::check_kernel_fields(&rseq::probe().expect("registered"));
    hand.into_iter().map(|object| object.as_ptr() as usize).collect()
}

/// Moves the calling thread to one of the CPUs that the program is allowed.
pub fn move_to(choice: usize) {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let cpus = ALLOWED.get_or_init(kit::allowed_cpus);
    // A CPU that has gone offline is as good as none: the thread stays.
    _ = kit::pin(0, cpus[choice % cpus.len()]);
}

/// Runs a scenario in this process for `time` and counts its objects.
pub fn play(scenario: Scenario, time: Duration) {
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
    // Numbers with one C library, addresses with another.
    let handles: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let (mut found, mut drains) = (Vec::new(), 0_u64);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (pool, stop, handles) = (&pool, &stop, &handles);
                scope.spawn(move || {
                    // SAFETY: the calling thread.
                    handles.lock().expect("no panic").push(unsafe { libc::pthread_self() } as usize);
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
                unsafe { libc::pthread_kill(targets[random.below(targets.len())] as libc::pthread_t, libc::SIGUSR1) };
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
