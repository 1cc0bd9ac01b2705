//! The sequences and their plain Rust counterparts do the same on the same inputs.
//!
//! Random programs of operations run on three things at once: on a `Vec` that says what should happen, on a slab or row
//! by the functions of [`rseq::local`], and on another by sequences. Without restartable sequences the third part is
//! left out, and the test says so.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;
use rseq::slab::{Slot, make_array};
use rseq::{CpuId, Miss, Registration, Rows, Slab, local, rows::Row, sequence};

mod kit;

const CAPACITY: usize = 5;
const SPARE: usize = 9;
const ITEMS: usize = 4;

static NO_SLAB: Slab<2> = Slab::new();

rseq::thread_cell! {
    fn cell() -> "model_test_cell": 2, NO_SLAB
}

#[derive(Clone, Debug)]
enum Operation {
    Pop(usize),
    Push(usize, usize),
    PopBatch(usize, usize),
    PushBatch(usize, Vec<usize>),
    /// Gives list 0, when it is empty, its other array.
    Replace,
    /// Tries to with a top it does not have.
    ReplaceWrongly,
    Add(u64),
    Load,
    Store(u64),
    CompareExchange(u64, u64),
    LinkedPush,
    LinkedPop,
    LinkedPopAll,
    Append(u64),
    Take,
}

fn operation() -> impl Strategy<Value = Operation> {
    let object = (1..1000_usize).prop_map(|number| 16 * number);
    let objects = prop::collection::vec(object.clone(), 0..8);
    let small = 0..4_u64;
    prop_oneof![
        (0..2_usize).prop_map(Operation::Pop),
        (0..2_usize, object).prop_map(|(list, object)| Operation::Push(list, object)),
        (0..2_usize, 0..8_usize).prop_map(|(list, most)| Operation::PopBatch(list, most)),
        (0..2_usize, objects).prop_map(|(list, objects)| Operation::PushBatch(list, objects)),
        Just(Operation::Replace),
        Just(Operation::ReplaceWrongly),
        any::<u64>().prop_map(Operation::Add),
        Just(Operation::Load),
        small.clone().prop_map(Operation::Store),
        (small.clone(), small).prop_map(|(expected, new)| Operation::CompareExchange(expected, new)),
        Just(Operation::LinkedPush),
        Just(Operation::LinkedPop),
        Just(Operation::LinkedPopAll),
        any::<u64>().prop_map(Operation::Append),
        Just(Operation::Take),
    ]
}

/// What an operation answers, however it is done.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Done,
    Unfit,
    Numbers(Vec<u64>),
}

/// What should happen.
#[derive(Default)]
struct Model {
    lists: [Vec<usize>; 2],
    spare_in_use: bool,
    number: u64,
    /// Numbers of nodes, the last pushed at the end.
    nodes: Vec<u64>,
    nodes_used: u64,
    items: Vec<u64>,
}

impl Model {
    fn room(&self, list: usize) -> usize {
        let capacity = if list == 0 && self.spare_in_use { SPARE } else { CAPACITY };
        capacity - self.lists[list].len()
    }

    fn run(&mut self, operation: &Operation) -> Answer {
        let done = |done: bool| if done { Answer::Done } else { Answer::Unfit };
        match operation {
            Operation::Pop(list) => match self.lists[*list].pop() {
                Some(object) => Answer::Numbers(vec![object as u64]),
                None => Answer::Unfit,
            },
            Operation::Push(list, object) => {
                let fits = self.room(*list) > 0;
                self.lists[*list].extend(fits.then_some(*object));
                done(fits)
            }
            Operation::PopBatch(list, most) => {
                let from = self.lists[*list].len().saturating_sub(*most);
                Answer::Numbers(self.lists[*list].drain(from..).rev().map(|object| object as u64).collect())
            }
            Operation::PushBatch(list, objects) => {
                let fitting = objects.len().min(self.room(*list));
                self.lists[*list].extend(&objects[..fitting]);
                Answer::Numbers(vec![fitting as u64])
            }
            Operation::Replace => {
                let empty = self.lists[0].is_empty();
                self.spare_in_use ^= empty;
                done(empty)
            }
            Operation::ReplaceWrongly => Answer::Unfit,
            Operation::Add(value) => {
                self.number = self.number.wrapping_add(*value);
                Answer::Done
            }
            Operation::Load => Answer::Numbers(vec![self.number]),
            Operation::Store(value) => {
                self.number = *value;
                Answer::Done
            }
            Operation::CompareExchange(expected, new) => {
                let same = self.number == *expected;
                if same {
                    self.number = *new;
                }
                done(same)
            }
            Operation::LinkedPush => {
                self.nodes.push(self.nodes_used);
                self.nodes_used += 1;
                Answer::Done
            }
            Operation::LinkedPop => self.nodes.pop().map_or(Answer::Unfit, |node| Answer::Numbers(vec![node])),
            Operation::LinkedPopAll if self.nodes.is_empty() => Answer::Unfit,
            Operation::LinkedPopAll => Answer::Numbers(self.nodes.drain(..).rev().collect()),
            Operation::Append(item) => {
                let fits = self.items.len() < ITEMS;
                self.items.extend(fits.then_some(*item));
                done(fits)
            }
            Operation::Take => self.items.pop().map_or(Answer::Unfit, |item| Answer::Numbers(vec![item])),
        }
    }
}

type Words = [AtomicU64; 3 + ITEMS];
const NUMBER: usize = Row::<Words>::VALUE;
const HEAD: usize = NUMBER + 8;
const BUFFER: usize = NUMBER + 16;

/// A slab and rows, with every array and node they need.
struct Lists {
    slab: &'static Slab<2>,
    /// Lowest slots of list 0's two arrays.
    arrays: [*mut Slot; 2],
    spare_in_use: bool,
    rows: Rows<Words>,
    /// Link and number of each node.
    nodes: Vec<[usize; 2]>,
    used: usize,
    by: By,
}

enum By {
    Local,
    Sequences(Registration),
}

impl Lists {
    fn new(by: By, nodes: usize) -> Self {
        let slab: &'static Slab<2> = Box::leak(Box::new(Slab::new()));
        // SAFETY: the slab stays where it is.
        unsafe { slab.detach() };
        let array = |capacity: usize| {
            let memory = NonNull::from(vec![0_usize; capacity + 2].leak()).cast();
            // SAFETY: that many words, which nobody else uses.
            unsafe { make_array(memory, capacity) }
        };
        let arrays = [array(CAPACITY), array(SPARE)];
        // SAFETY: nobody else uses the slab.
        unsafe {
            assert!(local::replace(slab, 0, slab.nothing(), arrays[0]));
            assert!(local::replace(slab, 1, slab.nothing(), array(CAPACITY)));
        }
        let nodes = (0..nodes).map(|number| [0, number]).collect();
        Lists { slab, arrays, spare_in_use: false, rows: Rows::new().expect("rows"), nodes, used: 0, by }
    }

    /// Tops that list 0 has when it is empty: with its present array, and with the other.
    fn tops(&self) -> (*mut Slot, *mut Slot) {
        if self.spare_in_use { (self.arrays[1], self.arrays[0]) } else { (self.arrays[0], self.arrays[1]) }
    }

    fn next_node(&mut self) -> NonNull<usize> {
        self.used += 1;
        NonNull::from(&mut self.nodes[self.used - 1]).cast()
    }

    /// Numbers of the node at `node` and all behind it, or of that one only.
    fn numbers(node: NonNull<usize>, all: bool) -> Answer {
        let (mut numbers, mut next) = (Vec::new(), Some(node));
        while let Some(node) = next.filter(|_| all || numbers.is_empty()) {
            // SAFETY: nodes are two words, the link and the number.
            unsafe {
                numbers.push(node.add(1).read() as u64);
                next = NonNull::new(node.read() as *mut usize);
            }
        }
        Answer::Numbers(numbers)
    }

    fn run(&mut self, operation: &Operation) -> Answer {
        match self.by {
            By::Local => self.run_local(operation),
            By::Sequences(found) => loop {
                // The index may change under us; a miss means "look again", and rows are not followed around: the
                // test's thread is pinned.
                if let Some(answer) = self.run_sequence(operation, &found) {
                    return answer;
                }
            },
        }
    }

    fn run_local(&mut self, operation: &Operation) -> Answer {
        let slab = self.slab;
        let done = |done: bool| if done { Answer::Done } else { Answer::Unfit };
        let (top, other) = self.tops();
        let node = matches!(operation, Operation::LinkedPush).then(|| self.next_node());
        let words = self.rows.peek(0).expect("a row");
        // SAFETY: nobody else uses these lists; lists are 0 and 1; objects are even and not null.
        unsafe {
            match operation {
                Operation::Pop(list) => local::pop(slab, *list)
                    .map_or(Answer::Unfit, |object| Answer::Numbers(vec![object.as_ptr() as u64])),
                Operation::Push(list, object) => done(local::push(slab, *list, object_of(*object))),
                Operation::PopBatch(list, most) => {
                    let mut objects = vec![ptr::null_mut(); *most];
                    let count = local::pop_batch(slab, *list, &mut objects);
                    Answer::Numbers(objects[..count].iter().map(|&object| object as u64).collect())
                }
                Operation::PushBatch(list, objects) => {
                    let objects: Vec<*mut u8> = objects.iter().map(|&object| object_of(object).as_ptr()).collect();
                    Answer::Numbers(vec![local::push_batch(slab, *list, &objects) as u64])
                }
                Operation::Replace => {
                    let replaced = local::replace(slab, 0, top, other);
                    self.spare_in_use ^= replaced;
                    done(replaced)
                }
                Operation::ReplaceWrongly => done(local::replace(slab, 0, other, top)),
                Operation::Add(value) => {
                    local::add(&words[0], *value);
                    Answer::Done
                }
                Operation::Load => Answer::Numbers(vec![words[0].load(Relaxed)]),
                Operation::Store(value) => {
                    words[0].store(*value, Relaxed);
                    Answer::Done
                }
                Operation::CompareExchange(expected, new) => done(local::compare_exchange(&words[0], *expected, *new)),
                Operation::LinkedPush => {
                    local::linked_push(&words[1], node.expect("a node"));
                    Answer::Done
                }
                Operation::LinkedPop => {
                    local::linked_pop(&words[1]).map_or(Answer::Unfit, |node| Self::numbers(node, false))
                }
                Operation::LinkedPopAll => {
                    local::linked_pop_all(&words[1]).map_or(Answer::Unfit, |node| Self::numbers(node, true))
                }
                Operation::Append(item) => done(local::append(&words[2], &words[3..], *item)),
                Operation::Take => {
                    local::take(&words[2], &words[3..]).map_or(Answer::Unfit, |item| Answer::Numbers(vec![item]))
                }
            }
        }
    }

    fn run_sequence(&mut self, operation: &Operation, found: &Registration) -> Option<Answer> {
        let handle = found.handle::<CpuId>();
        let (top, other) = self.tops();
        let node = matches!(operation, Operation::LinkedPush).then(|| self.next_node());
        let done = |result: Result<(), Miss>| match result {
            Ok(()) => Some(Answer::Done),
            Err(Miss::Unfit) => Some(Answer::Unfit),
            Err(Miss::Moved) => None,
        };
        // SAFETY: the handle is of this index, the cell names this slab, and the words are those of the rows.
        unsafe {
            match operation {
                Operation::Pop(list) => match sequence::pop::<CpuId, 2>(handle, cell(), *list) {
                    Ok(object) => Some(Answer::Numbers(vec![object.as_ptr() as u64])),
                    Err(miss) => done(Err(miss)),
                },
                Operation::Push(list, object) => {
                    done(sequence::push::<CpuId, 2>(handle, cell(), *list, object_of(*object)))
                }
                Operation::PopBatch(list, most) => {
                    let mut objects = vec![ptr::null_mut(); *most];
                    let count = sequence::pop_batch::<CpuId, 2>(handle, cell(), *list, &mut objects).ok()?;
                    Some(Answer::Numbers(objects[..count].iter().map(|&object| object as u64).collect()))
                }
                Operation::PushBatch(list, objects) => {
                    let objects: Vec<*mut u8> = objects.iter().map(|&object| object_of(object).as_ptr()).collect();
                    let count = sequence::push_batch::<CpuId, 2>(handle, cell(), *list, &objects).ok()?;
                    Some(Answer::Numbers(vec![count as u64]))
                }
                Operation::Replace => {
                    let replaced = sequence::replace::<CpuId, 2>(handle, cell(), 0, top, other);
                    self.spare_in_use ^= replaced.is_ok();
                    done(replaced)
                }
                Operation::ReplaceWrongly => done(sequence::replace::<CpuId, 2>(handle, cell(), 0, other, top)),
                Operation::Add(value) => done(sequence::add(handle, &self.rows, NUMBER, *value)),
                Operation::Load => match sequence::load(handle, &self.rows, NUMBER) {
                    Ok(value) => Some(Answer::Numbers(vec![value])),
                    Err(miss) => done(Err(miss)),
                },
                Operation::Store(value) => done(sequence::store(handle, &self.rows, NUMBER, *value)),
                Operation::CompareExchange(expected, new) => {
                    done(sequence::compare_exchange(handle, &self.rows, NUMBER, *expected, *new))
                }
                Operation::LinkedPush => done(sequence::linked_push(handle, &self.rows, HEAD, node.expect("a node"))),
                Operation::LinkedPop => match sequence::linked_pop(handle, &self.rows, HEAD) {
                    Ok(node) => Some(Self::numbers(node, false)),
                    Err(miss) => done(Err(miss)),
                },
                Operation::LinkedPopAll => match sequence::linked_pop_all(handle, &self.rows, HEAD) {
                    Ok(node) => Some(Self::numbers(node, true)),
                    Err(miss) => done(Err(miss)),
                },
                Operation::Append(item) => done(sequence::append(handle, &self.rows, BUFFER, ITEMS, *item)),
                Operation::Take => match sequence::take(handle, &self.rows, BUFFER) {
                    Ok(item) => Some(Answer::Numbers(vec![item])),
                    Err(miss) => done(Err(miss)),
                },
            }
        }
    }
}

/// Objects are compared, never followed, so they need not exist.
fn object_of(number: usize) -> NonNull<u8> {
    NonNull::new(ptr::without_provenance_mut(number)).expect("not null")
}

/// Pins the calling thread to where it is, and says where.
fn pin() -> u32 {
    loop {
        let (cpu, _) = kit::getcpu();
        if kit::pin(0, cpu as usize) && kit::getcpu().0 == cpu {
            return cpu;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn local_does_as_the_model_says(operations in prop::collection::vec(operation(), 0..60)) {
        let (mut model, mut lists) = (Model::default(), Lists::new(By::Local, operations.len()));
        for operation in &operations {
            prop_assert_eq!(lists.run(operation), model.run(operation), "{:?}", operation);
        }
    }

    #[test]
    fn sequences_do_as_the_model_says(operations in prop::collection::vec(operation(), 0..60)) {
        let found = match rseq::probe() {
            Ok(found) => found,
            Err(why) => {
                static SAID: std::sync::Once = std::sync::Once::new();
                SAID.call_once(|| kit::not_tested("rseq", "sequences against the model", why));
                return Ok(());
            }
        };
        let (mut model, mut lists) = (Model::default(), Lists::new(By::Sequences(found), operations.len()));
        let cpu = pin();
        found.ensure_thread().expect("registers");
        // SAFETY: new, whole, leaked, and the only one in the cell.
        unsafe { lists.slab.start::<CpuId>(cpu) };
        cell().set(lists.slab);
        for operation in &operations {
            prop_assert_eq!(lists.run(operation), model.run(operation), "{:?}", operation);
        }
        kit::check_kernel_fields(&found);
    }
}
