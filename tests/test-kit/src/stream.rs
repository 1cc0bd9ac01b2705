//! How a stream is made, and how one that fails is shrunk.
//!
//! A stream is a strategy of proptest's. Its operations shrink as proptest has them shrink; the stream itself is first cut
//! behind the operation that failed, and then loses halves, quarters and so on down to single operations: a stream that
//! hangs is tried a few times only.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use proptest::prelude::*;
use proptest::strategy::{NewTree, Union, ValueTree};
use proptest::test_runner::TestRunner;

use crate::ability::Ability;
use crate::operation::{Errand, Operation};

/// Sizes worth trying: where classes end and just beyond, primes, and pages.
const SIZES: [usize; 46] = [
    1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 24, 31, 32, 33, 40, 48, 61, 64, 65, 80, 96, 127, 128, 129, 160, 251, 256, 257,
    509, 512, 640, 1021, 1024, 1025, 1280, 2039, 2048, 4093, 4096, 8191, 8192, 8193, 16381, 20480, 32749, 32768,
];
/// The same of whole pages.
const LARGE_SIZES: [usize; 12] =
    [32769, 40960, 40961, 65521, 65536, 131_071, 131_072, 262_144, 524_287, 1 << 20, 1_048_583, 3 << 20];

/// What streams are made of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub abilities: Vec<Ability>,
    /// The most operations.
    pub longest: usize,
    /// The largest size, and the largest alignment as a power of two.
    pub most_bytes: usize,
    pub most_align_bits: u32,
}

impl Shape {
    fn sizes(&self) -> BoxedStrategy<usize> {
        let most = self.most_bytes;
        let below = |sizes: &[usize]| sizes.iter().copied().filter(|size| *size <= most).collect::<Vec<_>>();
        // The first is what others shrink to.
        let mut of: Vec<(u32, BoxedStrategy<usize>)> = vec![
            (4, (1..=600.min(most)).boxed()),
            (2, (1..=40_000.min(most)).boxed()),
            (4, prop::sample::select(below(&SIZES)).boxed()),
        ];
        let large = below(&LARGE_SIZES);
        if !large.is_empty() {
            of.push((1, prop::sample::select(large).boxed()));
        }
        Union::new_weighted(of).boxed()
    }

    /// One operation. Simple ones come first: others shrink to them.
    fn operation(&self) -> BoxedStrategy<Operation> {
        let (sizes, bits) = (self.sizes(), 0..=self.most_align_bits);
        let layouts = (
            sizes.clone(),
            Union::new_weighted(vec![(3, (0..=4.min(self.most_align_bits)).boxed()), (1, bits.clone().boxed())]),
        );
        // Which block it is says little: it stays as it is.
        let (key, count, most) = (any::<u16>().no_shrink(), 1..300_usize, self.most_bytes);
        let mut of: Vec<(u32, BoxedStrategy<Operation>)> = vec![
            (
                8,
                (layouts.clone(), key)
                    .prop_map(|((size, align_bits), key)| Operation::Allocate { size, align_bits, key })
                    .boxed(),
            ),
            (6, key.prop_map(|which| Operation::Free { which }).boxed()),
            (
                2,
                (layouts, key)
                    .prop_map(|((size, align_bits), key)| Operation::AllocateZeroed { size, align_bits, key })
                    .boxed(),
            ),
            (4, (key, sizes.clone()).prop_map(|(which, size)| Operation::Resize { which, size }).boxed()),
            (1, Just(Operation::Check).boxed()),
            (
                3,
                (1..=3000.min(most), 1..200_usize, key)
                    .prop_map(|(size, count, key)| Operation::AllocateMany { size, count, key })
                    .boxed(),
            ),
            (3, (key, count.clone()).prop_map(|(from, count)| Operation::FreeMany { from, count }).boxed()),
        ];
        let mut add = |ability: Ability, weight: u32, strategy: BoxedStrategy<Operation>| {
            if self.abilities.contains(&ability) {
                of.push((weight, strategy));
            }
        };
        add(Ability::Impossible, 1, bits.prop_map(|align_bits| Operation::AllocateImpossible { align_bits }).boxed());
        add(Ability::Drain, 2, any::<bool>().prop_map(|whole| Operation::Drain { whole }).boxed());
        add(Ability::Cpus, 1, any::<u8>().prop_map(|cpu| Operation::MoveToCpu { cpu }).boxed());
        add(Ability::Fork, 1, Just(Operation::Fork).boxed());
        add(Ability::Signals, 1, (0..10_u32).prop_map(|tenths| Operation::Signals { every: tenths * 100 }).boxed());
        let errand = prop_oneof![
            2 => Just(Errand::Free),
            1 => Just(Errand::PassOn),
            1 => sizes.prop_map(Errand::Resize),
        ];
        let send = (key, count, 0..2_u8, errand).prop_map(|(from, count, to, errand)| Operation::Send {
            from,
            count,
            to,
            errand,
        });
        add(Ability::Threads, 4, send.boxed());
        add(Ability::Threads, 1, Just(Operation::Await).boxed());
        add(Ability::Threads, 1, Just(Operation::EndThreads).boxed());
        if most >= 1 << 14 {
            let large = (1 << 14..=most.min(1 << 22)).prop_map(|size| Operation::Exhaust { size });
            add(Ability::Exhaust, 1, large.boxed());
        }
        Union::new_weighted(of).boxed()
    }
}

/// A strategy for streams.
pub struct Streams {
    operation: BoxedStrategy<Operation>,
    length: Range<usize>,
    seen_at: Rc<Cell<usize>>,
}

impl Streams {
    /// `seen_at`: the operation at which the newest failure was seen.
    pub fn new(shape: &Shape, seen_at: Rc<Cell<usize>>) -> Streams {
        Streams { operation: shape.operation(), length: 1..shape.longest + 1, seen_at }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "streams of {:?} operations", self.length)
    }
}

impl Strategy for Streams {
    type Tree = Shrinking;
    type Value = Vec<Operation>;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let length = self.length.new_tree(runner)?.current();
        let elements = (0..length).map(|_| self.operation.new_tree(runner)).collect::<Result<Vec<_>, _>>()?;
        let (order, failed) = ((0..elements.len()).collect(), elements.iter().map(ValueTree::current).collect());
        Ok(Shrinking {
            elements,
            failed,
            order,
            phase: Phase::Halves(length),
            undo: Vec::new(),
            seen_at: self.seen_at.clone(),
        })
    }
}

type Element = <BoxedStrategy<Operation> as Strategy>::Tree;

#[derive(Clone, Copy)]
enum Phase {
    /// Pieces of this length are taken out, if it is not longer than half.
    Halves(usize),
    /// Pieces of this length are taken out, the next at this place.
    Pieces {
        length: usize,
        at: usize,
        last: bool,
    },
    /// This operation shrinks.
    Element(usize),
    Over,
}

/// A stream that shrinks.
pub struct Shrinking {
    elements: Vec<Element>,
    /// What each was when the stream failed last. An element that goes no further need not be that.
    failed: Vec<Operation>,
    /// Which elements are left.
    order: Vec<usize>,
    phase: Phase,
    /// What was taken out last, from which place, and where to go on if it must come back.
    undo: Vec<(usize, Vec<usize>)>,
    seen_at: Rc<Cell<usize>>,
}

impl Shrinking {
    fn take_out(&mut self, range: Range<usize>) {
        let at = range.start;
        self.undo.push((at, self.order.drain(range).collect()));
    }

    /// Goes to the next candidate. False: there is none.
    fn advance(&mut self) -> bool {
        loop {
            match self.phase {
                Phase::Halves(length) => {
                    self.phase = Phase::Pieces { length: (length / 2).max(1), at: 0, last: false };
                }
                Phase::Pieces { length, at, .. } if at < self.order.len() => {
                    // A stream of one operation is not made shorter: an empty one does nothing.
                    if self.order.len() == 1 {
                        self.phase = Phase::Pieces {
                            length,
                            at: 1,
                            last: matches!(self.phase, Phase::Pieces { last: true, .. }),
                        };
                        continue;
                    }
                    self.take_out(at..(at + length).min(self.order.len()));
                    return true;
                }
                Phase::Pieces { length: 1, last, .. } => {
                    self.phase = if last { Phase::Over } else { Phase::Element(0) }
                }
                Phase::Pieces { length, last, .. } => self.phase = Phase::Pieces { length: length / 2, at: 0, last },
                Phase::Element(at) if at < self.order.len() => {
                    if self.elements[self.order[at]].simplify() {
                        return true;
                    }
                    self.phase = Phase::Element(at + 1);
                }
                // What was needed before may not be any more.
                Phase::Element(_) => self.phase = Phase::Pieces { length: 1, at: 0, last: true },
                Phase::Over => return false,
            }
        }
    }
}

impl ValueTree for Shrinking {
    type Value = Vec<Operation>;

    fn current(&self) -> Vec<Operation> {
        let shrinks = match self.phase {
            Phase::Element(at) if self.undo.is_empty() => Some(at),
            _ => None,
        };
        let value = |(at, &index): (usize, &usize)| {
            if shrinks == Some(at) { self.elements[index].current() } else { self.failed[index] }
        };
        self.order.iter().enumerate().map(value).collect()
    }

    /// The present stream fails.
    fn simplify(&mut self) -> bool {
        match self.phase {
            Phase::Element(at) if self.undo.is_empty() && at < self.order.len() => {
                let index = self.order[at];
                self.failed[index] = self.elements[index].current();
            }
            _ => self.undo.clear(),
        }
        let needed = self.seen_at.get() + 1;
        if needed < self.order.len() {
            self.take_out(needed..self.order.len());
            return true;
        }
        self.advance()
    }

    /// The present stream does not fail: back to the last that does, and on to another.
    fn complicate(&mut self) -> bool {
        if let Some((at, back)) = self.undo.pop() {
            let taken = back.len();
            let was_piece = matches!(self.phase, Phase::Pieces { at: here, .. } if here == at);
            self.order.splice(at..at, back);
            if was_piece && let Phase::Pieces { length, at, last } = self.phase {
                self.phase = Phase::Pieces { length, at: at + taken, last };
            }
        } else if let Phase::Element(at) = self.phase {
            if self.elements[self.order[at]].complicate() {
                return true;
            }
            self.phase = Phase::Element(at + 1);
        }
        self.advance()
    }
}

#[cfg(test)]
mod tests {
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    /// Shrinks the first stream that fails; how many were tried, and what is left.
    fn shrunk(fails: impl Fn(&[Operation]) -> Option<usize>) -> (usize, Vec<Operation>) {
        let abilities = Ability::ALL.to_vec();
        let shape = Shape { abilities, longest: 120, most_bytes: 3 << 20, most_align_bits: 13 };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
        let seen_at = Rc::new(Cell::new(0));
        let streams = Streams::new(&shape, seen_at.clone());
        let mut tried = 0;
        let mut fails = |stream: &[Operation]| {
            tried += 1;
            fails(stream).inspect(|at| seen_at.set(*at)).is_some()
        };
        let mut tree = loop {
            let tree = streams.new_tree(&mut runner).expect("a stream");
            if fails(&tree.current()) {
                break tree;
            }
        };
        let mut more = tree.simplify();
        while more {
            more = if fails(&tree.current()) { tree.simplify() } else { tree.complicate() };
        }
        (tried, tree.current())
    }

    #[test]
    fn one_operation_is_found_among_many() {
        let is_large = |operation: &Operation| matches!(operation, Operation::Resize { size, .. } if *size > 700);
        let (tried, left) = shrunk(|stream| stream.iter().position(is_large));
        assert!(matches!(left[..], [Operation::Resize { size: 701, .. }]), "{left:?}");
        assert!(tried < 100, "{tried} streams");
    }

    #[test]
    fn operations_that_need_each_other_are_kept() {
        let fails = |stream: &[Operation]| {
            let fork = stream.iter().position(|operation| matches!(operation, Operation::Fork))?;
            let after = stream[fork..].iter().position(|operation| matches!(operation, Operation::Await))?;
            let frees = stream[..fork].iter().filter(|operation| matches!(operation, Operation::Free { .. })).count();
            (frees >= 2).then_some(fork + after)
        };
        let (tried, left) = shrunk(fails);
        let is_left =
            matches!(left[..], [Operation::Free { .. }, Operation::Free { .. }, Operation::Fork, Operation::Await]);
        assert!(is_left, "{left:?}");
        assert!(tried < 400, "{tried} streams");
    }

    /// As where the time for shrinking is over: from some moment on, nothing fails.
    #[test]
    fn who_stops_has_what_failed_last() {
        for stop in 1..80 {
            let (attempts, newest) = (Cell::new(0), std::cell::RefCell::new(Vec::new()));
            let (_, left) = shrunk(|stream| {
                let sends = stream.iter().filter(|operation| matches!(operation, Operation::Send { .. })).count();
                if sends < 2 || attempts.get() == stop {
                    return None;
                }
                attempts.set(attempts.get() + 1);
                *newest.borrow_mut() = stream.to_vec();
                Some(stream.len())
            });
            assert_eq!(left, *newest.borrow(), "after {stop} failures");
        }
    }
}
