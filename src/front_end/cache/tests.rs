//! The policy over a fake of what stands behind it: tiers that count, arrays that run out, a budget that moves.

extern crate std;

use core::alloc::Layout;
use core::cell::RefCell;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;
use rseq::sequence::Miss;

use super::*;
use crate::config::LINE;

/// What the fake behind a cache knows, one for each test's thread.
#[derive(Default)]
struct World {
    /// Objects it has, and the number of the next that was never given.
    kept: BTreeSet<usize>,
    next: usize,
    /// Objects it still gives, and arrays.
    objects_left: usize,
    arrays_left: usize,
    arrays_out: usize,
    most: usize,
    total: usize,
    reserved: usize,
    /// Times the tiers or the arrays were asked or given to.
    visits: usize,
    /// What is found among objects that come back.
    misuse: Option<Misuse>,
}

std::thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn world<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|world| f(&mut world.borrow_mut()))
}

/// An address that names the class: objects are never touched, so they need not exist.
fn address(class: SizeClass, number: usize) -> usize {
    (number * CLASSES + class.index() + 1) * 16
}

fn class_of(address: usize) -> usize {
    (address / 16 - 1) % CLASSES
}

enum Fake {}

impl Behind for Fake {
    fn remove_range(class: SizeClass, out: &mut [*mut u8]) -> usize {
        world(|world| {
            world.visits += 1;
            let count = out.len().min(world.objects_left);
            for place in &mut out[..count] {
                let known = world.kept.iter().copied().find(|address| class_of(*address) == class.index());
                let given = known.unwrap_or_else(|| {
                    world.next += 1;
                    address(class, world.next)
                });
                world.kept.remove(&given);
                *place = ptr::without_provenance_mut(given);
            }
            world.objects_left -= count;
            count
        })
    }

    fn insert_range(class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse> {
        world(|world| {
            world.visits += 1;
            if let Some(misuse) = world.misuse {
                return Err(misuse);
            }
            for object in objects {
                assert_eq!(class_of(object.addr()), class.index(), "an object came back to another class");
                assert!(world.kept.insert(object.addr()), "an object came back twice");
            }
            world.objects_left += objects.len();
            Ok(())
        })
    }

    unsafe fn hand_on(class: SizeClass, objects: &[*mut u8]) -> Result<(), Misuse> {
        Self::insert_range(class, objects)
    }

    fn allocate_array(words: usize) -> Option<NonNull<usize>> {
        assert!(words.is_power_of_two() && words <= MAX_LIST_WORDS);
        world(|world| {
            world.arrays_left = world.arrays_left.checked_sub(1)?;
            world.arrays_out += 1;
            world.visits += 1;
            Some(NonNull::from(Box::leak(std::vec![0usize; words].into_boxed_slice())).cast())
        })
    }

    unsafe fn release_array(lowest: *mut Slot, capacity: usize) {
        // SAFETY: the words of `allocate_array`, one below the lowest slot.
        unsafe {
            let words = ptr::slice_from_raw_parts_mut(lowest.sub(1).cast::<usize>(), capacity + 2);
            drop(Box::from_raw(words));
        }
        world(|world| {
            (world.arrays_left, world.arrays_out) = (world.arrays_left + 1, world.arrays_out - 1);
            world.visits += 1;
        });
    }

    fn most() -> usize {
        world(|world| world.most)
    }
    fn share() -> usize {
        world(|world| world.total / 2)
    }
    fn reserve(bytes: usize) -> bool {
        world(|world| {
            let fits = world.reserved + bytes <= world.total;
            world.reserved += if fits { bytes } else { 0 };
            fits
        })
    }
    fn release(bytes: usize) {
        world(|world| world.reserved = world.reserved.checked_sub(bytes).expect("reserved before"));
    }
    fn is_served() {}
}

/// Lists whose thread is moved away now and then: then nothing happens.
#[derive(Clone, Copy)]
struct Moving<'a>(Exclusive, &'a RefCell<u32>);

impl Moving<'_> {
    /// The bits say when, lowest first, for ever again.
    fn moved(self) -> Result<Exclusive, Miss> {
        let mut bits = self.1.borrow_mut();
        *bits = bits.rotate_right(1);
        if *bits & 1 == 0 { Ok(self.0) } else { Err(Miss::Moved) }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // each forwards its own contract
impl Lists for Moving<'_> {
    unsafe fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        unsafe { self.moved()?.pop(list) }
    }
    unsafe fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        unsafe { self.moved()?.push(list, object) }
    }
    unsafe fn pop_batch(self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        unsafe { self.moved()?.pop_batch(list, objects) }
    }
    unsafe fn push_batch(self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        unsafe { self.moved()?.push_batch(list, objects) }
    }
    unsafe fn replace(self, list: usize, expected: *mut Slot, new: *mut Slot) -> Result<(), Miss> {
        unsafe { self.moved()?.replace(list, expected, new) }
    }
}

fn new_cache() -> &'static Cache<Fake> {
    // SAFETY: not empty.
    let memory = unsafe { std::alloc::alloc_zeroed(Layout::new::<Cache<Fake>>()) };
    // SAFETY: zero, never given back, and nobody else's.
    unsafe { Cache::initialize(NonNull::new(memory).expect("memory")) }
}

#[test]
fn holdings_wait_for_nobody() {
    let cache = new_cache();
    let _shape = cache.shape().lock();
    assert_eq!(cache.holdings(|_, objects| assert_eq!(objects, 0)).objects, 0);
}

#[derive(Clone, Debug)]
enum Operation {
    Allocate { class: usize, count: usize, room: bool },
    Free { class: usize, count: usize },
    Drain,
    RemoveAll,
    GiveUp(usize),
    Budget { most: usize, total: usize },
    Memory { objects: usize, arrays: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    // Few classes, so that their lists grow and starve one another.
    let class = prop::sample::select(std::vec![0, 1, 7.min(CLASSES - 2), CLASSES / 2, CLASSES - 1]);
    prop_oneof![
        6 => (class.clone(), 1..200_usize, any::<bool>())
            .prop_map(|(class, count, room)| Operation::Allocate { class, count, room }),
        6 => (class, 1..200_usize).prop_map(|(class, count)| Operation::Free { class, count }),
        1 => Just(Operation::Drain),
        1 => Just(Operation::RemoveAll),
        1 => (0..100_000_usize).prop_map(Operation::GiveUp),
        1 => (0..200_000_usize, 0..400_000_usize).prop_map(|(most, total)| Operation::Budget { most, total }),
        1 => (0..2000_usize, 0..8_usize).prop_map(|(objects, arrays)| Operation::Memory { objects, arrays }),
    ]
}

/// Allocates as the slow path does; false if memory is exhausted.
fn allocate(cache: &Cache<Fake>, lists: impl Lists, class: SizeClass, room: Room) -> Option<usize> {
    for _ in 0..40 {
        // SAFETY: the cache's own lists.
        match unsafe { lists.pop(class.index()) } {
            Ok(object) => return Some(object.addr().get()),
            Err(Miss::Moved) => continue,
            Err(Miss::Unfit) => {}
        }
        cache.count_miss();
        let wanted = cache.begin_refill(class);
        match cache.refill(lists, class, wanted, room) {
            Ok(object) => return object.map(|object| object.addr().get()),
            Err(Starved(bytes)) => {
                assert!(room == Room::Unused && bytes > 0);
                return match cache.refill(lists, class, wanted, Room::OtherLists) {
                    Ok(object) => object.map(|object| object.addr().get()),
                    Err(Starved(_)) => panic!("starved although other lists may be asked"),
                };
            }
        }
    }
    None // moved away all the time
}

fn free(cache: &Cache<Fake>, lists: impl Lists, class: SizeClass, object: usize) {
    let object = NonNull::new(ptr::without_provenance_mut(object)).expect("an address");
    // SAFETY: an object of the class that nobody has.
    if unsafe { lists.push(class.index(), object) }.is_ok() {
        return;
    }
    cache.begin_flush(class);
    let kept = cache.push_to_first_array(lists, class, object, Room::Unused);
    let kept = kept.or_else(|_| cache.push_to_first_array(lists, class, object, Room::OtherLists));
    if !kept.is_ok_and(|kept| kept) {
        cache.count_miss();
        _ = cache.flush(lists, class, object);
    }
}

/// A list cannot be given its larger array, and one of the objects it held is none of its class: both are reported, and no
/// budget is lost.
#[test]
fn a_growth_that_fails_gives_its_budget_back() {
    let class = SizeClass::from_index(7.min(CLASSES - 2));
    world(|world| {
        *world = World { objects_left: 100, arrays_left: 9, most: 1 << 20, total: 1 << 20, ..World::default() }
    });
    let cache = new_cache();
    // SAFETY: this thread alone uses the cache.
    let lists = unsafe { Exclusive::new(&cache.slab) };
    for number in 0..3 {
        free(cache, lists, class, address(class, number));
    }
    let before = world(|world| {
        world.misuse = Some(Misuse::DoubleFree);
        world.reserved
    });
    cache.overflowed[class.index()].store(true, Relaxed);
    // Taking the objects out succeeds, and what comes after it finds the thread elsewhere.
    let bits = RefCell::new(0b1100);
    let grown = cache.grow(Moving(lists, &bits), class, 0, Room::Unused);
    assert!(matches!(grown, Err(Misuse::DoubleFree)));
    assert_eq!(world(|world| world.reserved), before);
    cache.check(&cache.shape().lock());
}

/// A cache whose objects all come from another's: it hands on whole batches, and keeps less than four.
#[test]
fn who_only_frees_hands_on_whole_batches() {
    const OBJECTS: usize = 10_000;
    for class in SizeClass::all().filter(|class| class.size() <= 4096) {
        world(|world| {
            *world = World { objects_left: OBJECTS, arrays_left: 9, most: 1 << 20, total: 1 << 20, ..World::default() }
        });
        let (cache, batch) = (new_cache(), class.info().batch as usize);
        // SAFETY: this thread alone uses the cache.
        let lists = unsafe { Exclusive::new(&cache.slab) };
        (0..OBJECTS).for_each(|number| free(cache, lists, class, address(class, number)));
        let overflows = cache.counts[class.index()].overflows.load(Relaxed) as usize;
        assert!(overflows <= OBJECTS / batch + 8, "{overflows} overflows, {batch} objects a batch");
        assert!(cache.holdings(|_, _| ()).objects < 4 * batch);
        cache.check(&cache.shape().lock());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, every object is in one place, the laws hold, and a cache keeps to its budget.
    #[test]
    fn every_object_is_somewhere(
        operations in prop::collection::vec(operation(), 1..60),
        moves in prop::sample::select(std::vec![0_u32, 0, 0x1000_0001, 0x5511_0301, 0xf0f0_f0f0]),
    ) {
        world(|world| {
            *world = World { objects_left: 5000, arrays_left: 100, most: 100_000, total: 100_000, ..World::default() };
        });
        let cache = new_cache();
        // SAFETY: this thread alone uses the cache.
        let exclusive = unsafe { Exclusive::new(&cache.slab) };
        let bits = RefCell::new(moves);
        let lists = Moving(exclusive, &bits);
        let mut held: Vec<Vec<usize>> = std::vec![Vec::new(); CLASSES];
        for operation in operations {
            match operation {
                Operation::Allocate { class, count, room } => {
                    let room = if room { Room::OtherLists } else { Room::Unused };
                    for _ in 0..count {
                        let Some(object) = allocate(cache, lists, SizeClass::from_index(class), room) else { break };
                        prop_assert_eq!(class_of(object), class);
                        held[class].push(object);
                    }
                }
                Operation::Free { class, count } => {
                    for _ in 0..count {
                        let Some(object) = held[class].pop() else { break };
                        free(cache, lists, SizeClass::from_index(class), object);
                    }
                }
                Operation::Drain => {
                    let bytes = cache.holdings(|_, _| ()).bytes;
                    prop_assert_eq!(cache.drain(exclusive, &cache.shape().lock()), Ok(bytes));
                    prop_assert_eq!(cache.holdings(|_, _| ()).objects, 0);
                }
                Operation::RemoveAll => {
                    let mut shape = cache.shape().lock();
                    prop_assert_eq!(cache.remove_all_arrays(exclusive, &mut shape), Ok(()));
                    prop_assert_eq!((cache.capacity_bytes(), world(|world| world.arrays_out)), (0, 0));
                }
                Operation::GiveUp(bytes) => {
                    let mut shape = cache.shape().lock();
                    let had = cache.capacity_bytes();
                    let given = cache.give_up(exclusive, &mut shape, bytes).expect("no misuse");
                    prop_assert_eq!(had - given, cache.capacity_bytes());
                }
                Operation::Budget { most, total } => world(|world| (world.most, world.total) = (most, total)),
                Operation::Memory { objects, arrays } => {
                    world(|world| (world.objects_left, world.arrays_left) = (objects, arrays));
                }
            }
            cache.check(&cache.shape().lock());
            let mut objects = 0;
            let holdings = cache.holdings(|_, cached| objects += cached);
            prop_assert_eq!(holdings.objects, objects);
            prop_assert!(holdings.bytes <= holdings.capacity_bytes);
            let (reserved, kept, made) = world(|world| (world.reserved, world.kept.len(), world.next));
            prop_assert_eq!(reserved, holdings.capacity_bytes, "accounted");
            prop_assert_eq!(held.iter().map(Vec::len).sum::<usize>() + objects + kept, made, "conserved");
        }
    }
}

/// An odd address among a list's objects is found when the cache is emptied, and what is below it is not lost.
#[test]
fn an_odd_address_is_found_and_the_rest_is_kept() {
    world(|world| {
        *world = World { objects_left: 100, arrays_left: 9, most: 1 << 20, total: 1 << 20, ..World::default() }
    });
    let cache = new_cache();
    // SAFETY: this thread alone uses the cache.
    let lists = unsafe { Exclusive::new(&cache.slab) };
    let class = SizeClass::from_index(7.min(CLASSES - 2));
    let objects: Vec<_> =
        (0..5).map(|_| allocate(cache, lists, class, Room::OtherLists).expect("there are 100")).collect();
    free(cache, lists, class, objects[0]);
    free(cache, lists, class, objects[1] + 1);
    free(cache, lists, class, objects[2]);
    let shape = cache.shape().lock();
    assert_eq!(cache.drain(lists, &shape), Err(Misuse::FreeIntoTheMiddle));
    cache.check(&shape);
    assert_eq!(cache.holdings(|_, _| ()).objects, 0);
    let kept = world(|world| world.kept.clone());
    assert!(kept.contains(&objects[0]) && kept.contains(&objects[2]) && !kept.contains(&objects[1]));
}

/// The control: a law that is broken is named.
#[test]
fn room_that_is_not_accounted_is_found() {
    let name = "front_end::cache::tests::room_that_is_not_accounted_is_found";
    crate::aborting::must_abort(name, "accounted: a cache's room is the sum over its lists", || {
        let cache = new_cache();
        cache.check(&cache.shape().lock());
        cache.shape().lock().capacity_bytes += 8;
        cache.check(&cache.shape().lock());
    });
}

/// A cache too small for its work is not worse than none, which visits the tiers twice a pair.
#[test]
fn a_cache_that_is_too_small_costs_no_more_than_none() {
    let of_size = |size| SizeClass::of(Layout::from_size_align(size, 8).expect("a size")).expect("a small size");
    let few = [16, 32, 64, 128, 256, 512].map(of_size);
    let many: Vec<_> = SizeClass::all().step_by(3).collect();
    for (classes, budget) in
        [&few[..], &many[..]].into_iter().flat_map(|classes| [16, 256, 1024, 4096, 16384].map(|bytes| (classes, bytes)))
    {
        world(|world| {
            let (objects_left, arrays_left) = (1 << 20, 1 << 20);
            *world = World { objects_left, arrays_left, most: budget, total: 2 * budget, ..World::default() };
        });
        let cache = new_cache();
        // SAFETY: this thread alone uses the cache.
        let lists = unsafe { Exclusive::new(&cache.slab) };
        let (rounds, objects) = (40, 256);
        let mut held = Vec::new();
        for _ in 0..rounds {
            for class in (0..objects).map(|number| classes[number % classes.len()]) {
                held.push((class, allocate(cache, lists, class, Room::OtherLists).expect("there are enough")));
            }
            while let Some((class, object)) = held.pop() {
                free(cache, lists, class, object);
            }
        }
        let (visits, pairs) = (world(|world| world.visits), rounds * objects);
        // One in fifty for the arrays that a sweep exchanges.
        assert!(
            visits <= 2 * pairs + pairs / 50,
            "{visits} visits for {pairs} pairs of {} classes in {budget} bytes",
            classes.len()
        );
        cache.check(&cache.shape().lock());
    }
}

/// Two caches that begin take objects of different lines.
#[test]
fn the_first_refill_is_a_line() {
    // Classes of smaller batches have none that fills lines.
    for class in SizeClass::all().filter(|class| class.info().batch >= 16) {
        let size = class.size();
        let least = if size < LINE { (1..).find(|count| count * size % LINE == 0).expect("LINE is one") } else { 2 };
        world(|world| {
            let (objects_left, arrays_left) = (1000, 9);
            *world = World { objects_left, arrays_left, most: 1 << 20, total: 1 << 20, ..World::default() };
        });
        let cache = new_cache();
        // SAFETY: this thread alone uses the cache.
        let lists = unsafe { Exclusive::new(&cache.slab) };
        allocate(cache, lists, class, Room::Unused).expect("there are enough");
        assert_eq!(cache.holdings(|_, _| ()).objects + 1, least, "of {size} bytes");
    }
}
