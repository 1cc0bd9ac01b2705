//! Rounds over a working set, the loop that most experiments measure: allocate and sign objects, think, check them and
//! free them, newest first.
//!
//! Where a loop this short lies in memory changes its time by several per cent, and by another amount in each build. So
//! there are several copies of it, the allocator's inlined path included, which differ in padding alone. A block of
//! samples is dealt one; all modes in it run the same.
//!
//! The same loop also runs over objects that are there already: what it takes then is not the allocator's.

use super::objects::{Sizes, Sums, empty, fill, signature};
use super::order::Order;
use super::plant::Plant;
use super::team::thread_ns;
use super::think::think;
use crate::measurement::{Measurement, SHARE};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Copies of the loop: as many as blocks of most cells, so that each block is a draw of its own.
pub const COPIES: u64 = 32;

/// Bytes between the places of two copies, from any boundary that a processor may care about.
const STEP: usize = 12;

/// One thread's working set.
pub struct WorkingSet<'a, A: 'static> {
    rounds: Rounds<A>,
    layout: u64,
    state: State<'a>,
    allocator: &'static A,
    plant: Option<Plant>,
}

/// What a round needs, whatever allocates.
struct State<'a> {
    sizes: &'a Sizes,
    slots: Vec<*mut u8>,
    seed: u64,
    thread: u64,
    round: u64,
    links: u64,
    timed: bool,
    sums: Sums,
    full: bool,
}

type Rounds<A> = fn(&A, &mut State, u64);

/// Moves what follows by `STEP * COPY` bytes, at the price of one jump.
#[inline(always)]
fn pad<const COPY: usize>() {
    // SAFETY: jumps over bytes that nothing executes, and changes nothing.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("jmp 2f", ".skip {bytes}, 0xcc", "2:", bytes = const STEP * COPY, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above; `STEP` is a multiple of an instruction.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("b 2f", ".skip {bytes}", "2:", bytes = const STEP * COPY, options(nomem, nostack, preserves_flags));
    }
}

#[inline(never)]
fn rounds<A: GlobalAlloc, const COPY: usize>(allocator: &A, state: &mut State, count: u64) {
    pad::<COPY>();
    for _ in 0..count {
        state.round += 1;
        let tag = signature(state.seed, state.thread, state.round);
        state.full = fill(allocator, state.sizes, &mut state.slots, tag);
        if !state.full {
            return;
        }
        think(state.links);
        pad::<COPY>(); // the second half moves by as much again
        state.sums.add(empty(allocator, state.sizes, &mut state.slots, tag));
    }
}

fn copy<A: GlobalAlloc>(number: u64) -> Rounds<A> {
    macro_rules! copies {
        ($($copy:literal)*) => { [$(rounds::<A, $copy>),*] };
    }
    let copies: [Rounds<A>; COPIES as usize] =
        copies!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    copies[(number % COPIES) as usize]
}

impl<'a, A: GlobalAlloc> WorkingSet<'a, A> {
    /// A set of `objects` for thread number `thread`, which thinks for the order's `think_ns` per object.
    pub fn new(allocator: &'static A, order: &Order, sizes: &'a Sizes, objects: usize, thread: usize) -> Self {
        let think_ns = order.parameters.get("think_ns").copied().unwrap_or(0) * objects as u64;
        let state = State {
            sizes,
            slots: vec![null_mut(); objects],
            seed: order.seed,
            thread: thread as u64,
            round: 0,
            links: if think_ns == 0 { 0 } else { think_ns * order.links_per_ms() / 1_000_000 },
            timed: order.timed,
            sums: Sums::default(),
            full: true,
        };
        WorkingSet { rounds: copy(order.layout), layout: order.layout, state, allocator, plant: Plant::of(order) }
    }

    /// Some rounds. False: the allocator has no memory left.
    #[inline(always)]
    pub fn run(&mut self, count: u64) -> bool {
        (self.rounds)(self.allocator, &mut self.state, count);
        if let Some(plant) = &mut self.plant {
            plant.after(count * self.state.slots.len() as u64);
        }
        self.state.full
    }

    /// Rounds made.
    pub fn made(&self) -> u64 {
        self.state.round
    }

    /// The sums of all rounds, or why they ended or were not those that were ordered.
    pub fn sums(&self) -> Result<Sums, String> {
        if !self.state.full {
            return Err("the allocator returned null".into());
        }
        self.plant.as_ref().map_or(Ok(()), Plant::check)?;
        Ok(self.state.sums)
    }

    /// CPU time of a pair without the allocator: the same rounds, `count` at a time with `between` after each, on objects
    /// that are there already, for so much CPU time. `None` where times are not measured.
    pub fn floor(&mut self, length: Duration, count: u64, mut between: impl FnMut()) -> Result<Option<f64>, String> {
        if !self.state.timed {
            return Ok(None);
        }
        let still = Still::new(self.state.sizes, self.state.slots.len());
        let (begin, sums, rounds) = (self.state.round, self.state.sums, copy::<Still>(self.layout));
        rounds(&still, &mut self.state, count); // touches them
        let (start, first) = (thread_ns()?, self.state.round);
        while thread_ns()? - start < length.as_nanos() as u64 {
            for _ in 0..8 {
                rounds(&still, &mut self.state, count);
                between();
            }
        }
        let pairs = (self.state.round - first) * self.state.slots.len() as u64;
        let floor = (thread_ns()? - start) as f64 / pairs.max(1) as f64;
        (self.state.round, self.state.sums) = (begin, sums);
        self.state.slots.fill(null_mut());
        Ok(Some(floor))
    }
}

/// How long each of so many threads looks for its floor.
pub fn floor_length(measure: Duration, threads: usize, cpus: usize) -> Duration {
    (measure / 20).mul_f64(cpus.min(threads) as f64 / threads as f64).max(Duration::from_micros(200))
}

/// CPU time of all threads, with the allocator and without.
#[derive(Default)]
pub struct Shares {
    pairs: AtomicU64,
    cpu_ns: AtomicU64,
    floor_ns: AtomicU64,
}

impl Shares {
    /// One thread's pairs, the CPU time they took, and what one takes without the allocator, where that was measured.
    pub fn add(&self, pairs: u64, cpu_ns: u64, floor: Option<f64>) {
        let Some(floor) = floor else { return };
        self.pairs.fetch_add(pairs, Relaxed);
        self.cpu_ns.fetch_add(cpu_ns, Relaxed);
        self.floor_ns.fetch_add((pairs as f64 * floor) as u64, Relaxed);
    }

    /// Puts the share of the allocator into `measurement`, and the time of a pair without it, where they were measured.
    pub fn describe(&self, measurement: &mut Measurement) {
        let [pairs, cpu, floor] = [&self.pairs, &self.cpu_ns, &self.floor_ns].map(|sum| sum.load(Relaxed) as f64);
        if pairs == 0.0 {
            return;
        }
        measurement.set("floor_ns_per_pair", floor / pairs);
        measurement.set(SHARE, (1.0 - floor / cpu).clamp(0.0, 1.0));
    }
}

/// Objects that are there already, given out in order and taken back in the opposite one.
struct Still {
    objects: Vec<*mut u8>,
    next: Cell<usize>,
    memory: (*mut u8, Layout),
}

/// Objects of a still set lie as those of an allocator: on a line of their own, or several whole ones on a line.
const LINE: usize = 64;

impl Still {
    fn new(sizes: &Sizes, count: usize) -> Still {
        let bytes = (0..count).map(|index| sizes.layout(index).size().next_multiple_of(LINE)).sum::<usize>();
        let layout = Layout::from_size_align(bytes.max(LINE), LINE).unwrap_or(Layout::new::<[u64; 8]>());
        // SAFETY: the layout has a size.
        let memory = unsafe { System.alloc(layout) };
        assert!(!memory.is_null(), "{bytes} bytes of the system");
        let mut offset = 0;
        let place = |index| {
            let at = offset;
            offset += sizes.layout(index).size().next_multiple_of(LINE);
            // SAFETY: within `bytes`.
            unsafe { memory.add(at) }
        };
        Still { objects: (0..count).map(place).collect(), next: Cell::new(0), memory: (memory, layout) }
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; the objects are nobody's now.
        unsafe { System.dealloc(self.memory.0, self.memory.1) };
    }
}

// SAFETY: object number n is given out with the layout it was made for, and once until it comes back: rounds take them in
// order and give them back in the opposite one.
unsafe impl GlobalAlloc for Still {
    #[inline(always)]
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        let index = self.next.get();
        self.next.set(index + 1);
        self.objects[index]
    }

    #[inline(always)]
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
        self.next.set(self.next.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::order;

    static SYSTEM: System = System;

    #[test]
    fn every_copy_does_the_same_work_and_lies_elsewhere() {
        let sizes = Sizes::powers(16, 512).unwrap();
        let mut places = std::collections::BTreeSet::new();
        for layout in 0..COPIES {
            let order = Order { layout, ..order(&[("think_ns", 5)]) };
            let mut set = WorkingSet::new(&SYSTEM, &order, &sizes, 33, 4);
            assert!(set.run(7));
            let sums = set.sums().unwrap();
            assert_eq!((sums.found, set.made()), (sums.expected, 7));
            places.insert(set.rounds as usize);
        }
        assert_eq!(places.len(), COPIES as usize);
    }

    /// A floor is not zero, is measured with the think time, and leaves the set as it was.
    #[test]
    fn the_floor_is_what_is_left_without_an_allocator() {
        let sizes = Sizes::powers(64, 64).unwrap();
        for (think_ns, links) in [(0, 0), (200, 200 * 64 * 3)] {
            let order = Order { layout: 5, links_per_ms: Some(3_000_000), ..order(&[("think_ns", think_ns)]) };
            let mut set = WorkingSet::new(&SYSTEM, &order, &sizes, 64, 0);
            assert_eq!(set.state.links, links);
            let floor = set.floor(Duration::from_millis(5), 4, || ()).unwrap().unwrap();
            assert!(floor > 0.0, "{floor}");
            assert!(set.run(1));
            let sums = set.sums().unwrap();
            assert_eq!((sums.found, set.made()), (sums.expected, 1));
        }
    }

    #[test]
    fn a_set_in_which_nothing_was_planted_has_no_sums() {
        let sizes = Sizes::powers(64, 64).unwrap();
        let order = Order { planted_percent: Some(3), ..order(&[("measure_ms", 60_000)]) };
        let mut set = WorkingSet::new(&SYSTEM, &order, &sizes, 64, 0);
        assert!(set.run(1));
        assert!(set.sums().err().unwrap().starts_with("no extra work was planted"));
    }
}
