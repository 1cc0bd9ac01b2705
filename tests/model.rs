//! Random operations against a model, in every mode. A failing stream is shrunk to a short one and printed.
//!
//! The model is a list of what is held: layouts, addresses and contents. After each operation no two objects
//! overlap and each is as it was written; at the end nothing is live that was not before.

mod kit;

use std::collections::BTreeMap;

use kit::object::{LARGE_SIZES, Object, SIZES, layout};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// Something a program does. Indices are taken modulo what is held.
#[derive(Clone, Debug)]
enum Operation {
    Allocate {
        size: usize,
        align_bits: u32,
    },
    AllocateZeroed {
        size: usize,
        align_bits: u32,
    },
    /// So many of one size that lists grow, overflow and are refilled.
    AllocateMany {
        size: usize,
        count: usize,
    },
    Free {
        index: usize,
    },
    FreeMany {
        first: usize,
        count: usize,
    },
    /// In another thread, which ends.
    FreeElsewhere {
        first: usize,
        count: usize,
    },
    Resize {
        index: usize,
        size: usize,
    },
    MoveToCpu {
        cpu: usize,
    },
    Drain,
    Release,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => prop::sample::select(&SIZES[..]),
        4 => 1..600usize,
        2 => 1..40_000usize,
        1 => prop::sample::select(&LARGE_SIZES[..]),
    ]
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        8 => (sizes(), 0..14u32).prop_map(|(size, align_bits)| Operation::Allocate { size, align_bits }),
        2 => (sizes(), 0..14u32).prop_map(|(size, align_bits)| Operation::AllocateZeroed { size, align_bits }),
        3 => (1..3000usize, 1..200usize).prop_map(|(size, count)| Operation::AllocateMany { size, count }),
        6 => any::<usize>().prop_map(|index| Operation::Free { index }),
        3 => (any::<usize>(), 1..300usize).prop_map(|(first, count)| Operation::FreeMany { first, count }),
        1 => (any::<usize>(), 1..300usize).prop_map(|(first, count)| Operation::FreeElsewhere { first, count }),
        4 => (any::<usize>(), sizes()).prop_map(|(index, size)| Operation::Resize { index, size }),
        1 => any::<usize>().prop_map(|cpu| Operation::MoveToCpu { cpu }),
        1 => Just(Operation::Drain),
        1 => Just(Operation::Release),
    ];
    prop::collection::vec(operation, 1..120)
}

/// What is held, and where.
#[derive(Default)]
struct Model {
    held: Vec<Object>,
    /// Start and end of each object held.
    ranges: BTreeMap<usize, usize>,
    names: u64,
}

impl Model {
    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn add(&mut self, object: Object) {
        let (start, end) = (object.address(), object.address() + object.layout().size());
        let before = self.ranges.range(..end).next_back();
        assert!(before.is_none_or(|(_, &before_end)| before_end <= start), "{object:?} overlaps {before:x?}");
        self.ranges.insert(start, end);
        self.held.push(object);
    }

    fn remove(&mut self, first: usize, count: usize) -> Vec<Object> {
        let first = first % self.held.len().max(1);
        let last = self.held.len().min(first + count);
        let removed: Vec<_> = self.held.drain(first..last).collect();
        removed.iter().for_each(|object| assert!(self.ranges.remove(&object.address()).is_some()));
        removed
    }

    fn apply(&mut self, operation: &Operation, cpus: &[usize]) {
        match *operation {
            Operation::Allocate { size, align_bits } => {
                let object = Object::new(layout(size, 1 << align_bits), self.name());
                self.add(object);
            }
            Operation::AllocateZeroed { size, align_bits } => {
                let object = Object::new_zeroed(layout(size, 1 << align_bits), self.name());
                self.add(object);
            }
            Operation::AllocateMany { size, count } => {
                for _ in 0..count {
                    let object = Object::new(layout(size, 8), self.name());
                    self.add(object);
                }
            }
            Operation::Free { index } => self.remove(index, 1).into_iter().for_each(Object::free),
            Operation::FreeMany { first, count } => self.remove(first, count).into_iter().for_each(Object::free),
            Operation::FreeElsewhere { first, count } => {
                let removed = self.remove(first, count);
                let thread = std::thread::spawn(move || removed.into_iter().for_each(Object::free));
                thread.join().expect("it checks its objects");
            }
            Operation::Resize { index, size } => {
                let name = self.name();
                if let Some(mut object) = self.remove(index, 1).pop() {
                    object.try_resize(size, name).expect("memory");
                    self.add(object);
                }
            }
            Operation::MoveToCpu { cpu } => kit::run_on(&[cpus[cpu % cpus.len()]]),
            Operation::Drain => drop(perseq::drain()),
            Operation::Release => drop(perseq::release()),
        }
    }
}

#[test]
fn operations_against_a_model() {
    kit::in_every_mode("operations_against_a_model", || {
        let cpus = kit::allowed_cpus();
        std::thread::spawn(|| ()).join().expect("a thread, so that what the first one needs is there");
        let cases = (kit::duration(1.0).as_secs_f64() * 40.0).ceil() as u32;
        // No file of failures: the stream is printed.
        let seed = std::env::var("PERSEQ_TEST_SEED").map_or(1, |text| text.parse().expect("a number"));
        let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() };
        let result = TestRunner::new(config).run(&operations(), |operations| {
            let before = perseq::stats();
            let mut model = Model::default();
            for operation in &operations {
                model.apply(operation, &cpus);
            }
            model.held.iter().for_each(Object::check);
            model.remove(0, usize::MAX / 2).into_iter().for_each(Object::free);
            drop(model);
            kit::run_on(&cpus);
            let after = perseq::stats();
            prop_assert_eq!(after.live_large_bytes, before.live_large_bytes);
            prop_assert_eq!(after.live_small_bytes, before.live_small_bytes);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}
