//! Everything a sequence works on, and what others see of it.

use super::*;

static NO_SLAB: Slab<2> = Slab::new();

rseq::thread_cell! {
    pub fn cell() -> "abort_test_cell": 2, NO_SLAB
}

/// What a sequence works on: words 0 (number), 1 (list head), 2 (buffer length) and 3.. (items) of a row.
pub type Words = [AtomicU64; 8];
pub const NUMBER: usize = rseq::rows::Row::<Words>::VALUE;
pub const HEAD: usize = NUMBER + 8;
pub const BUFFER: usize = NUMBER + 16;

/// What the child did, as it reports it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Report {
    pub outcome: i64,
    pub restarts: u64,
    pub index_before: u32,
    pub index_after: u32,
}

pub const MOVED: i64 = -1;
pub const UNFIT: i64 = -2;

/// Everything the child changes. The parent has the same at the same addresses.
#[repr(C)]
pub struct World<I: Index> {
    pub slab: Slab<2>,
    pub foreign: Slab<2>,
    pub arrays: [[usize; CAPACITY + 2]; 2],
    pub spare: [usize; CAPACITY + 2],
    pub objects: [*mut u8; BATCH],
    pub nodes: [[usize; 2]; NODES],
    pub report: Report,
    pub rows: Rows<Words, I>,
}

/// Objects are only ever compared, so they need not exist.
pub fn token(number: usize) -> *mut u8 {
    ptr::without_provenance_mut(0x1000 + 16 * number)
}

pub const NUMBER_BEFORE: u64 = 40;

impl<I: Index> World<I> {
    pub fn new(case: Case) -> Box<Self> {
        let count = if case.place == Place::None { 0 } else { rseq::kernel::possible_cpus() };
        let mut world = Box::new(World {
            slab: Slab::new(),
            foreign: Slab::new(),
            arrays: [[0; CAPACITY + 2]; 2],
            spare: [0; CAPACITY + 2],
            objects: [0, 1, 2].map(|number| token(20 + number)),
            nodes: [[0; 2]; NODES],
            report: Report::default(),
            rows: Rows::with_count(count).expect("rows"),
        });
        // SAFETY: the slab stays where it is.
        unsafe { world.slab.detach() };
        let World { slab, foreign, arrays, spare, nodes, rows, .. } = &mut *world;
        for (list, array) in arrays.iter_mut().enumerate() {
            // SAFETY: the array has room for `CAPACITY` slots and two sentinels, and nobody uses the slab.
            unsafe {
                let array = make_array(NonNull::from(array).cast(), CAPACITY);
                assert!(local::replace(slab, list, slab.nothing(), array));
                let filled = if list == 0 { case.filled } else { 1 };
                for number in 0..filled {
                    assert!(local::push(slab, list, NonNull::new_unchecked(token(10 * list + number))));
                }
            }
        }
        // SAFETY: as above.
        unsafe { make_array(NonNull::from(spare).cast(), CAPACITY) };
        // SAFETY: the slab stays where it is; it is new and whole, and no thread ever has this index.
        unsafe {
            foreign.detach();
            foreign.start::<I>(u32::MAX - 7);
        }
        let filled = case.filled;
        for index in 0..rows.count() {
            let words = rows.peek(index).expect("within the rows");
            words[0].store(NUMBER_BEFORE + index as u64, Relaxed);
            // Every row begins with the same nodes: only one row's are ever taken, and only then changed.
            let nodes: Vec<_> = nodes.iter_mut().take(filled.min(NODES - 1)).map(NonNull::from).collect();
            for node in nodes {
                // SAFETY: the nodes are the world's; rows share them as said.
                unsafe { local::linked_push(&words[1], node.cast()) };
            }
            for item in 0..filled {
                assert!(local::append(&words[2], &words[3..3 + CAPACITY], 100 + item as u64));
            }
            if case.place == Place::Stopped {
                std::mem::forget(rows.stop(index).expect("stops"));
            }
        }
        world
    }

    pub fn spare_lowest(&self) -> *mut Slot {
        (&raw const self.spare[1]).cast_mut().cast()
    }

    /// The last node, which is on no list.
    pub fn free_node(&self) -> NonNull<usize> {
        NonNull::from(&self.nodes[NODES - 1]).cast()
    }

    pub fn expected_top(&self, matching: bool) -> *mut Slot {
        if matching { self.slab.top(0) } else { self.slab.top(1) }
    }

    /// Names a node independently of where this world is.
    pub fn node_number(&self, node: NonNull<usize>) -> i64 {
        ((node.as_ptr() as usize - self.nodes.as_ptr() as usize) / size_of::<[usize; 2]>()) as i64
    }

    /// The operation as a sequence.
    ///
    /// Allocates nothing: it runs in a forked child.
    pub fn run(&mut self, operation: Operation, found: &Registration) -> i64 {
        let handle = found.handle::<I>();
        // SAFETY: the handle is of index `I`, the cell names one of our slabs, and words are those of `Words`.
        unsafe {
            let objects: *mut [*mut u8; BATCH] = &mut self.objects;
            let objects = &mut *objects;
            match operation {
                Operation::Pop => answer(sites::pop::<I>(handle), |object| object.as_ptr() as i64),
                Operation::Push => answer(sites::push::<I>(handle, NonNull::new_unchecked(token(30))), |()| 0),
                Operation::PopBatch(most) => answer(sites::pop_batch::<I>(handle, &mut objects[..most]), |n| n as i64),
                Operation::PushBatch(most) => answer(sites::push_batch::<I>(handle, &objects[..most]), |n| n as i64),
                Operation::Replace { matching } => {
                    answer(sites::replace::<I>(handle, self.expected_top(matching), self.spare_lowest()), |()| 0)
                }
                Operation::Add => answer(sites::add(handle, &self.rows), |()| 0),
                Operation::Load => answer(sites::load(handle, &self.rows), |value| value as i64),
                Operation::Store => answer(sites::store(handle, &self.rows), |()| 0),
                Operation::CompareExchange { matching } => {
                    let expected = NUMBER_BEFORE + if matching { u64::from(handle.index::<I>()) } else { 1000 };
                    answer(sites::compare_exchange(handle, &self.rows, expected), |()| 0)
                }
                Operation::LinkedPush => answer(sites::linked_push(handle, &self.rows, self.free_node()), |()| 0),
                Operation::LinkedPop => answer(sites::linked_pop(handle, &self.rows), |node| self.node_number(node)),
                Operation::LinkedPopAll => {
                    answer(sites::linked_pop_all(handle, &self.rows), |node| self.node_number(node))
                }
                Operation::Append => answer(sites::append(handle, &self.rows), |()| 0),
                Operation::Take => answer(sites::take(handle, &self.rows), |item| item as i64),
                Operation::EarlyCommit => {
                    let words = self.rows.peek(handle.index::<I>() as usize).expect("a row");
                    sites::early_commit::<I>(handle, &words[0]);
                    0
                }
            }
        }
    }

    /// The operation in plain Rust, by the same contract, with `started` for the index it began on and
    /// `index` for the one it ran on.
    pub fn run_local(&mut self, operation: Operation, started: u32, index: u32) -> i64 {
        let unfit = |done: bool| if done { 0 } else { UNFIT };
        // SAFETY: nobody else uses this world.
        unsafe {
            let objects: *mut [*mut u8; BATCH] = &mut self.objects;
            let objects = &mut *objects;
            if operation.is_on_slab() {
                return match operation {
                    Operation::Pop => local::pop(&self.slab, 0).map_or(UNFIT, |object| object.as_ptr() as i64),
                    Operation::Push => unfit(local::push(&self.slab, 0, NonNull::new_unchecked(token(30)))),
                    Operation::PopBatch(most) => local::pop_batch(&self.slab, 0, &mut objects[..most]) as i64,
                    Operation::PushBatch(most) => local::push_batch(&self.slab, 0, &objects[..most]) as i64,
                    Operation::Replace { matching } => {
                        unfit(local::replace(&self.slab, 0, self.expected_top(matching), self.spare_lowest()))
                    }
                    _ => unreachable!("the others are on rows"),
                };
            }
            let words = self.rows.peek(index as usize).expect("a row");
            match operation {
                Operation::Add | Operation::EarlyCommit => {
                    local::add(&words[0], 2);
                    0
                }
                Operation::Load => words[0].load(Relaxed) as i64,
                Operation::Store => {
                    words[0].store(77, Relaxed);
                    0
                }
                Operation::CompareExchange { matching } => {
                    let expected = NUMBER_BEFORE + if matching { u64::from(started) } else { 1000 };
                    unfit(local::compare_exchange(&words[0], expected, 78))
                }
                Operation::LinkedPush => {
                    local::linked_push(&words[1], self.free_node());
                    0
                }
                Operation::LinkedPop => local::linked_pop(&words[1]).map_or(UNFIT, |node| self.node_number(node)),
                Operation::LinkedPopAll => {
                    local::linked_pop_all(&words[1]).map_or(UNFIT, |node| self.node_number(node))
                }
                Operation::Append => unfit(local::append(&words[2], &words[3..3 + CAPACITY], 55)),
                Operation::Take => local::take(&words[2], &words[3..3 + CAPACITY]).map_or(UNFIT, |item| item as i64),
                _ => unreachable!("the others are on the slab"),
            }
        }
    }

    /// The state others can see, in words that do not depend on where this world is.
    pub fn observe(&self, memory: &dyn Memory) -> Observed {
        let word = |place: *const usize| memory.word(place.cast());
        let lists = (0..2)
            .map(|list| {
                // `top[0]` follows the id and its padding.
                let top = word((&raw const self.slab).cast::<usize>().wrapping_add(1 + list)) as *const usize;
                let (mut items, mut slot) = (Vec::new(), top.wrapping_sub(1));
                while word(slot) & 1 == 0 {
                    items.push(word(slot));
                    slot = slot.wrapping_sub(1);
                }
                let array =
                    [&self.arrays[0], &self.arrays[1], &self.spare].iter().position(|array| array.as_ptr() == slot);
                (array, items)
            })
            .collect();
        let rows = (0..self.rows.count())
            .map(|index| {
                let words: *const usize = ptr::from_ref(self.rows.peek(index).expect("a row")).cast();
                let (mut nodes, mut node) = (Vec::new(), word(words.wrapping_add(1)) as *const usize);
                while let Some(at) = NonNull::new(node.cast_mut()) {
                    nodes.push(self.node_number(at));
                    node = word(node) as *const usize;
                }
                let length = word(words.wrapping_add(2));
                let items = (0..length).map(|item| word(words.wrapping_add(3 + item))).collect();
                (word(words), nodes, items)
            })
            .collect();
        Observed { lists, rows }
    }

    /// The caller's array of a batch operation, up to what the operation says it filled.
    pub fn objects(&self, memory: &dyn Memory, operation: Operation, outcome: i64) -> Vec<usize> {
        let taken = if matches!(operation, Operation::PopBatch(_)) { outcome.max(0) as usize } else { 0 };
        (0..taken).map(|place| memory.word((&raw const self.objects[place]).cast())).collect()
    }
}

pub fn answer<T>(result: Result<T, Miss>, value: impl Fn(T) -> i64) -> i64 {
    match result {
        Ok(answer) => value(answer),
        Err(Miss::Moved) => MOVED,
        Err(Miss::Unfit) => UNFIT,
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    pub lists: Vec<(Option<usize>, Vec<usize>)>,
    pub rows: Vec<(usize, Vec<i64>, Vec<usize>)>,
}

/// Memory of this process or of the stopped child.
pub trait Memory {
    fn word(&self, place: *const u64) -> usize;
}

pub struct Here;

impl Memory for Here {
    fn word(&self, place: *const u64) -> usize {
        // SAFETY: only places inside worlds are asked for.
        unsafe { place.read_volatile() as usize }
    }
}
