//! Seeds, cases and shrinking.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::ability::Ability;
use crate::case::{in_child, in_place};
use crate::operation::Operation;
use crate::stream::{Shape, Streams};
use crate::subject::Subject;
use crate::verdict::{Fault, Kind, Tally};

/// How many streams are tried once one failed.
const MOST_SHRINKS: u32 = 3000;

/// What is tried, and how long.
#[derive(Clone, Debug)]
pub struct Kit {
    seed: u64,
    cases: u32,
    tries: u32,
    limit: Duration,
    shrink_for: Duration,
    ages: bool,
    shape: Shape,
}

impl Default for Kit {
    fn default() -> Kit {
        Kit::new()
    }
}

impl Kit {
    /// 100 streams of up to 120 operations of all kinds, with blocks of up to 3 MiB, aligned to 8 KiB at most.
    pub fn new() -> Kit {
        let abilities = Ability::ALL.to_vec();
        let shape = Shape { abilities, longest: 120, most_bytes: 3 << 20, most_align_bits: 13 };
        let (limit, shrink_for) = (Duration::from_secs(20), Duration::from_secs(120));
        Kit { seed: 1, cases: 100, tries: 1, limit, shrink_for, ages: false, shape }
    }

    /// What the streams follow from. The same seed makes the same ones.
    #[must_use]
    pub fn seed(self, seed: u64) -> Kit {
        Kit { seed, ..self }
    }

    /// How many streams.
    #[must_use]
    pub fn cases(self, cases: u32) -> Kit {
        Kit { cases, ..self }
    }

    /// The most operations of a stream: at least 1.
    #[must_use]
    pub fn longest(self, longest: usize) -> Kit {
        Kit { shape: Shape { longest: longest.max(1), ..self.shape }, ..self }
    }

    /// The largest block, and the largest alignment, which is a power of two.
    #[must_use]
    pub fn most(self, bytes: usize, align: usize) -> Kit {
        let (most_bytes, most_align_bits) = (bytes.max(1), align.max(1).ilog2());
        Kit { shape: Shape { most_bytes, most_align_bits, ..self.shape }, ..self }
    }

    /// How often each stream is done while it finds nothing: a race may need more than one.
    #[must_use]
    pub fn tries(self, tries: u32) -> Kit {
        Kit { tries: tries.max(1), ..self }
    }

    /// How long a stream may do nothing before it is said to hang.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Kit {
        Kit { limit, ..self }
    }

    /// How long a stream that fails is shrunk at most.
    #[must_use]
    pub fn shrink_for(self, time: Duration) -> Kit {
        Kit { shrink_for: time, ..self }
    }

    /// Streams do not do this.
    #[must_use]
    pub fn without(mut self, ability: Ability) -> Kit {
        self.shape.abilities.retain(|other| *other != ability);
        self
    }

    /// Each stream that finds nothing in a child is then done in this process, so that the next ones find a heap that was
    /// used. What only then goes wrong ends the process, with what it was on standard error.
    ///
    /// Signals and limits are this process's then: nothing else should go on in it.
    #[must_use]
    pub fn ages(self) -> Kit {
        Kit { ages: true, ..self }
    }

    /// Does one stream, in a child, on what `make` makes there: one that was found before, or that somebody thought of.
    ///
    /// ```
    /// use allocator_test_kit::{ByGlobal, Kit, Operation};
    ///
    /// let stream = [Operation::Allocate { size: 100, align_bits: 3, key: 1 }, Operation::Fork, Operation::Free { which: 1 }];
    /// let done = Kit::new().play(|| ByGlobal(std::alloc::System), &stream).expect("nothing is wrong");
    /// assert_eq!((done.allocated, done.forked, done.freed), (1, 1, 2)); // the child frees its own
    /// ```
    ///
    /// # Errors
    ///
    /// What was wrong.
    pub fn play<S: Subject>(&self, make: impl Fn() -> S, operations: &[Operation]) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        for _ in 0..self.tries {
            in_child(&make, operations, self.limit, &mut tally)?;
        }
        tally.cases += 1;
        Ok(tally)
    }

    /// Makes streams, does each in a child of its own on what `make` makes there, and shrinks the first that fails.
    ///
    /// # Errors
    ///
    /// The shortest stream found, and what was wrong with it.
    pub fn run<S: Subject>(&self, make: impl Fn() -> S) -> Result<Tally, Box<Failure>> {
        let seen_at = Rc::new(Cell::new(0));
        let streams = Streams::new(&self.shape, seen_at.clone());
        let config = Config {
            cases: self.cases,
            failure_persistence: None, // the seed repeats it
            rng_seed: RngSeed::Fixed(self.seed),
            max_shrink_iters: u32::MAX - 1, // bounded below; the largest number means another one
            ..Config::default()
        };
        let all = RefCell::new(Tally::default());
        let first: RefCell<Option<(Instant, usize)>> = RefCell::new(None);
        let newest: RefCell<Option<Fault>> = RefCell::new(None);
        let shrinks = Cell::new(0);
        let result = TestRunner::new(config).run(&streams, |operations| {
            let began = first.borrow().as_ref().map(|(began, _)| *began);
            if let Some(began) = began {
                if began.elapsed() > self.shrink_for || shrinks.get() >= MOST_SHRINKS {
                    return Ok(()); // as if it found nothing: what failed last is kept
                }
                shrinks.set(shrinks.get() + 1);
            }
            match self.play(&make, &operations) {
                Ok(tally) => {
                    if began.is_none() {
                        all.borrow_mut().add(&tally);
                        if self.ages {
                            in_place(&make, &operations);
                        }
                    }
                    Ok(())
                }
                Err(fault) => {
                    first.borrow_mut().get_or_insert((Instant::now(), operations.len()));
                    seen_at.set(fault.operation);
                    let text = fault.to_string();
                    *newest.borrow_mut() = Some(fault);
                    Err(TestCaseError::fail(text))
                }
            }
        });
        let operations = match result {
            Ok(()) => return Ok(all.into_inner()),
            Err(TestError::Fail(_, operations)) => operations,
            Err(error @ TestError::Abort(_)) => panic!("the kit makes no streams: {error}"),
        };
        let again = self.play(&make, &operations).err();
        let repeats = again.is_some();
        let before = first.into_inner().map_or(0, |(_, length)| length);
        let fault = again.or(newest.into_inner()).unwrap_or_else(|| Fault {
            kind: Kind::Host,
            text: "it failed and nobody said how".into(),
            operation: operations.len(),
            in_child: false,
        });
        let (cases, shrinks) = (all.into_inner().cases, shrinks.get());
        Err(Box::new(Failure { operations, fault, seed: self.seed, cases, before, shrinks, repeats }))
    }
}

/// A stream that shows a fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The shortest that was found.
    pub operations: Vec<Operation>,
    /// What was wrong.
    pub fault: Fault,
    /// What the streams followed from.
    pub seed: u64,
    /// How many found nothing before.
    pub cases: u64,
    /// How many operations the stream had at first.
    pub before: usize,
    /// How many shorter ones were tried.
    pub shrinks: u32,
    /// Whether it failed once more when it was done again.
    pub repeats: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { operations, fault, seed, cases, before, shrinks, repeats } = self;
        match fault.operation {
            number if number < operations.len() => writeln!(f, "{fault}")?,
            _ => writeln!(f, "{:?} at the end{}: {}", fault.kind, fault.in_whom(), fault.text)?,
        }
        writeln!(f, "the stream, {before} operations before {shrinks} attempts to shrink it:")?;
        for (number, operation) in operations.iter().enumerate() {
            writeln!(f, "{number:>4}  {operation}")?;
        }
        if !repeats {
            writeln!(f, "done once more it found nothing: the fault needs a moment that does not always come")?;
        }
        write!(f, "seed {seed}, {cases} streams found nothing before it")
    }
}

impl std::error::Error for Failure {}
