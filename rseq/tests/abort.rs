//! Every sequence, aborted by the kernel at every one of its instructions.
//!
//! A child runs one sequence once. The parent single-steps it with ptrace, and at one chosen instruction
//! boundary makes the kernel abort the sequence: by a signal with a handler, by preemption, or by moving the
//! child to another CPU. Afterwards lists, rows and outcome must be those of the plain Rust version
//! of the operation, run once, on the index where the sequence ran last. This is repeated for each boundary that the
//! case passes through, loops included, and at the end the boundaries visited are compared with a
//! disassembly of the sequence.
//!
//! # Stepping without aborting
//!
//! Each stop of a traced thread counts as preemption, so a sequence that is stepped is aborted at its first
//! instruction, for ever. The parent therefore takes the descriptor's address out of the child's area at each
//! stop where nothing is to happen, and puts it back at the one where something is. The kernel looks at the
//! area when the child goes on, so the abort happens at exactly that boundary.
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rseq::slab::{Slot, make_array};
use rseq::{CpuId, Index, Miss, MmCid, Registration, Rows, Slab, local, sequence};

const CAPACITY: usize = 4;
const BATCH: usize = 3;
const NODES: usize = 4;

static NO_SLAB: Slab<2> = Slab::new();

rseq::thread_cell! {
    fn cell() -> "abort_test_cell": 2, NO_SLAB
}

/// What a sequence works on: words 0 (number), 1 (list head), 2 (buffer length) and 3.. (items) of a row.
type Words = [AtomicU64; 8];
const NUMBER: usize = rseq::rows::Row::<Words>::VALUE;
const HEAD: usize = NUMBER + 8;
const BUFFER: usize = NUMBER + 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Pop,
    Push,
    PopBatch(usize),
    PushBatch(usize),
    Replace {
        matching: bool,
    },
    Add,
    Load,
    Store,
    CompareExchange {
        matching: bool,
    },
    LinkedPush,
    LinkedPop,
    LinkedPopAll,
    Append,
    /// Not a sequence of the crate but what none may be: an addition with an instruction after its commit.
    EarlyCommit,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Pop => "pop",
            Operation::Push => "push",
            Operation::PopBatch(_) => "pop_batch",
            Operation::PushBatch(_) => "push_batch",
            Operation::Replace { .. } => "replace",
            Operation::Add => "add",
            Operation::Load => "load",
            Operation::Store => "store",
            Operation::CompareExchange { .. } => "compare_exchange",
            Operation::LinkedPush => "linked_push",
            Operation::LinkedPop => "linked_pop",
            Operation::LinkedPopAll => "linked_pop_all",
            Operation::Append => "append",
            Operation::EarlyCommit => "early commit",
        }
    }

    fn is_on_slab(self) -> bool {
        matches!(
            self,
            Operation::Pop
                | Operation::Push
                | Operation::PopBatch(_)
                | Operation::PushBatch(_)
                | Operation::Replace { .. }
        )
    }
}

/// Where the sequence starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The slab and the rows are in use by their index.
    Own,
    /// They are stopped.
    Stopped,
    /// The index has none: another slab is in the cell, and there are no rows.
    None,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    operation: Operation,
    place: Place,
    /// Objects on the list, nodes on the linked list, items in the buffer.
    filled: usize,
}

fn cases() -> Vec<Case> {
    use Operation::*;
    let mut cases = Vec::new();
    let fillings = [
        (Pop, &[0, 1, CAPACITY] as &[usize]),
        (Push, &[0, 2, CAPACITY]),
        (PopBatch(BATCH), &[0, 2, CAPACITY]),
        (PopBatch(0), &[1]),
        (PushBatch(BATCH), &[0, 2, CAPACITY]),
        (PushBatch(0), &[1]),
        (Replace { matching: true }, &[0, 2]),
        (Replace { matching: false }, &[2]),
        (Add, &[0]),
        (Load, &[0]),
        (Store, &[0]),
        (CompareExchange { matching: true }, &[0]),
        (CompareExchange { matching: false }, &[0]),
        (LinkedPush, &[0, 2]),
        (LinkedPop, &[0, 1, 3]),
        (LinkedPopAll, &[0, 3]),
        (Append, &[0, 2, CAPACITY]),
    ];
    for (operation, fillings) in fillings {
        for &filled in fillings {
            cases.push(Case { operation, place: Place::Own, filled });
        }
        cases.push(Case { operation, place: Place::Stopped, filled: 2 });
        cases.push(Case { operation, place: Place::None, filled: 2 });
    }
    cases
}

/// What the child did, as it reports it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Report {
    outcome: i64,
    restarts: u64,
    index_before: u32,
    index_after: u32,
}

const MOVED: i64 = -1;
const UNFIT: i64 = -2;

/// Everything the child changes. The parent has the same at the same addresses.
#[repr(C)]
struct World<I: Index> {
    slab: Slab<2>,
    foreign: Slab<2>,
    arrays: [[usize; CAPACITY + 2]; 2],
    spare: [usize; CAPACITY + 2],
    objects: [*mut u8; BATCH],
    nodes: [[usize; 2]; NODES],
    report: Report,
    rows: Rows<Words, I>,
}

/// Objects are only ever compared, so they need not exist.
fn token(number: usize) -> *mut u8 {
    ptr::without_provenance_mut(0x1000 + 16 * number)
}

const NUMBER_BEFORE: u64 = 40;

impl<I: Index> World<I> {
    fn new(case: Case) -> Box<Self> {
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

    fn spare_lowest(&self) -> *mut Slot {
        (&raw const self.spare[1]).cast_mut().cast()
    }

    /// The last node, which is on no list.
    fn free_node(&self) -> NonNull<usize> {
        NonNull::from(&self.nodes[NODES - 1]).cast()
    }

    fn expected_top(&self, matching: bool) -> *mut Slot {
        if matching { self.slab.top(0) } else { self.slab.top(1) }
    }

    /// Names a node independently of where this world is.
    fn node_number(&self, node: NonNull<usize>) -> i64 {
        ((node.as_ptr() as usize - self.nodes.as_ptr() as usize) / size_of::<[usize; 2]>()) as i64
    }

    /// The operation as a sequence.
    ///
    /// Allocates nothing: it runs in a forked child.
    fn run(&mut self, operation: Operation, found: &Registration) -> i64 {
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
    fn run_local(&mut self, operation: Operation, started: u32, index: u32) -> i64 {
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
                _ => unreachable!("the others are on the slab"),
            }
        }
    }

    /// The state others can see, in words that do not depend on where this world is.
    fn observe(&self, memory: &dyn Memory) -> Observed {
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
    fn objects(&self, memory: &dyn Memory, operation: Operation, outcome: i64) -> Vec<usize> {
        let taken = if matches!(operation, Operation::PopBatch(_)) { outcome.max(0) as usize } else { 0 };
        (0..taken).map(|place| memory.word((&raw const self.objects[place]).cast())).collect()
    }
}

fn answer<T>(result: Result<T, Miss>, value: impl Fn(T) -> i64) -> i64 {
    match result {
        Ok(answer) => value(answer),
        Err(Miss::Moved) => MOVED,
        Err(Miss::Unfit) => UNFIT,
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Observed {
    lists: Vec<(Option<usize>, Vec<usize>)>,
    rows: Vec<(usize, Vec<i64>, Vec<usize>)>,
}

/// Each sequence at exactly one place in the program, so that it has one descriptor per index.
///
/// Contracts are those of the sequences; the cell and the words are this test's.
#[allow(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)] // said above, once for all
mod sites {
    use super::*;
    use rseq::Handle;

    type Result<T> = std::result::Result<T, Miss>;

    #[inline(never)]
    pub unsafe fn pop<I: Index>(handle: Handle) -> Result<NonNull<u8>> {
        unsafe { sequence::pop::<I, 2>(handle, cell(), 0) }
    }
    #[inline(never)]
    pub unsafe fn push<I: Index>(handle: Handle, object: NonNull<u8>) -> Result<()> {
        unsafe { sequence::push::<I, 2>(handle, cell(), 0, object) }
    }
    #[inline(never)]
    pub unsafe fn pop_batch<I: Index>(handle: Handle, objects: &mut [*mut u8]) -> Result<usize> {
        unsafe { sequence::pop_batch::<I, 2>(handle, cell(), 0, objects) }
    }
    #[inline(never)]
    pub unsafe fn push_batch<I: Index>(handle: Handle, objects: &[*mut u8]) -> Result<usize> {
        unsafe { sequence::push_batch::<I, 2>(handle, cell(), 0, objects) }
    }
    #[inline(never)]
    pub unsafe fn replace<I: Index>(handle: Handle, expected: *mut Slot, new: *mut Slot) -> Result<()> {
        unsafe { sequence::replace::<I, 2>(handle, cell(), 0, expected, new) }
    }
    #[inline(never)]
    pub unsafe fn add<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<()> {
        unsafe { sequence::add(handle, rows, NUMBER, 2) }
    }
    #[inline(never)]
    pub unsafe fn load<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<u64> {
        unsafe { sequence::load(handle, rows, NUMBER) }
    }
    #[inline(never)]
    pub unsafe fn store<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<()> {
        unsafe { sequence::store(handle, rows, NUMBER, 77) }
    }
    #[inline(never)]
    pub unsafe fn compare_exchange<I: Index>(handle: Handle, rows: &Rows<Words, I>, expected: u64) -> Result<()> {
        unsafe { sequence::compare_exchange(handle, rows, NUMBER, expected, 78) }
    }
    #[inline(never)]
    pub unsafe fn linked_push<I: Index>(handle: Handle, rows: &Rows<Words, I>, node: NonNull<usize>) -> Result<()> {
        unsafe { sequence::linked_push(handle, rows, HEAD, node) }
    }
    #[inline(never)]
    pub unsafe fn linked_pop<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<NonNull<usize>> {
        unsafe { sequence::linked_pop(handle, rows, HEAD) }
    }
    #[inline(never)]
    pub unsafe fn linked_pop_all<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<NonNull<usize>> {
        unsafe { sequence::linked_pop_all(handle, rows, HEAD) }
    }
    #[inline(never)]
    pub unsafe fn append<I: Index>(handle: Handle, rows: &Rows<Words, I>) -> Result<()> {
        unsafe { sequence::append(handle, rows, BUFFER, CAPACITY, 55) }
    }
    #[inline(never)]
    pub unsafe fn early_commit<I: Index>(handle: Handle, word: &AtomicU64) {
        unsafe {
            std::arch::asm!(
                include_str!("../../asm/x86_64/arm.s"),
                "add qword ptr [{word}], 2",
                "nop",
                include_str!("../../asm/x86_64/abort.s"),
                handle = in(reg) handle.to_bits() - I::TAG,
                word = in(reg) word,
                tmp = out(reg) _,
                RSEQ_CS = const std::mem::offset_of!(rseq::abi::Area, rseq_cs),
                SIGNATURE = const rseq::abi::SIGNATURE,
                options(nostack),
            );
        }
    }
}

/// Memory of this process or of the stopped child.
trait Memory {
    fn word(&self, place: *const u64) -> usize;
}

struct Here;

impl Memory for Here {
    fn word(&self, place: *const u64) -> usize {
        // SAFETY: only places inside worlds are asked for.
        unsafe { place.read_volatile() as usize }
    }
}

/// A child that this thread traces.
struct Child {
    pid: libc::pid_t,
}

impl Memory for Child {
    fn word(&self, place: *const u64) -> usize {
        usize::from_ne_bytes(self.bytes(place as usize))
    }
}

/// Why a traced child stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Breakpoint,
    Step,
    Other(i32),
}

impl Child {
    /// Forks; the child runs `life` between two breakpoints and stays at the second.
    fn start(life: impl FnOnce(), first: impl FnOnce()) -> Child {
        // SAFETY: the child uses memory it has and system calls, no locks and no heap.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: system calls on this process, and breakpoints that the tracer waits for.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
                first();
                std::arch::asm!("int3");
                life();
                std::arch::asm!("int3");
                libc::_exit(0);
            }
        }
        assert!(pid > 0, "fork");
        let child = Child { pid };
        assert_eq!(child.wait(), Stop::Other(libc::SIGSTOP));
        assert_eq!(child.go_on(), Stop::Breakpoint);
        child
    }

    fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: our own child, and `status` is ours.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(pid, self.pid, "waitpid");
        assert!(libc::WIFSTOPPED(status), "the child ended early: status {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => {
                // SAFETY: all-zero bytes are a valid `siginfo_t`.
                let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
                self.request(libc::PTRACE_GETSIGINFO, 0, (&raw mut information) as usize);
                const SI_KERNEL: i32 = 0x80;
                if information.si_code == SI_KERNEL { Stop::Breakpoint } else { Stop::Step }
            }
            signal => Stop::Other(signal),
        }
    }

    fn request(&self, request: libc::c_uint, address: usize, data: usize) {
        // SAFETY: requests on our own stopped child; `data` is what the request wants.
        let answer = unsafe { libc::ptrace(request, self.pid, address, data) };
        assert_eq!(answer, 0, "ptrace request {request}: {}", std::io::Error::last_os_error());
    }

    fn resume(&self, request: libc::c_uint, signal: i32) {
        self.request(request, 0, signal as usize);
    }

    /// One instruction, after the handler of `signal` has been set up if there is one.
    fn step(&self, signal: i32) -> Stop {
        self.resume(libc::PTRACE_SINGLESTEP, signal);
        self.wait()
    }

    fn go_on(&self) -> Stop {
        self.resume(libc::PTRACE_CONT, 0);
        self.wait()
    }

    /// Lets the child run up to the instruction at `address`, which is then the next, as after a step.
    fn run_to(&self, address: u64) -> Stop {
        const BREAKPOINT: u64 = 0xcc;
        let code = u64::from_ne_bytes(self.bytes(address as usize));
        self.set_word(address as usize, code & !0xff | BREAKPOINT);
        assert_eq!(self.go_on(), Stop::Breakpoint);
        self.set_word(address as usize, code);
        let mut registers = self.registers();
        assert_eq!(registers.rip, address + 1);
        registers.rip = address;
        self.request(libc::PTRACE_SETREGS, 0, (&raw mut registers) as usize);
        Stop::Step
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all-zero bytes are valid registers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, 0, (&raw mut registers) as usize);
        registers
    }

    fn instruction(&self) -> u64 {
        self.registers().rip
    }

    fn bytes<const N: usize>(&self, place: usize) -> [u8; N] {
        let mut bytes = [0_u8; N];
        let to = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: N };
        let from = libc::iovec { iov_base: place as *mut libc::c_void, iov_len: N };
        // SAFETY: `bytes` is ours; the kernel checks the child's addresses.
        let copied = unsafe { libc::process_vm_readv(self.pid, &to, 1, &from, 1, 0) };
        assert_eq!(copied, N as isize, "the child's memory at {place:#x}");
        bytes
    }

    fn set_word(&self, place: usize, value: u64) {
        self.request(libc::PTRACE_POKEDATA, place, value as usize);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, by its id.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, ptr::null_mut(), 0);
        }
    }
}

/// How the kernel is made to abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Force {
    /// A signal whose handler runs before the sequence restarts, at the same boundary in this many passes.
    Signal(usize),
    /// Being scheduled out and in again, which every stop of a traced thread is.
    Preemption,
    /// Going on on this other CPU.
    Migration(usize),
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    descriptor: u64,
    start: u64,
    length: u64,
}

impl Sequence {
    fn contains(&self, instruction: u64) -> bool {
        (self.start..self.start + self.length).contains(&instruction)
    }
}

/// The kernel's fields of an area, which nobody else writes: all but `rseq_cs`.
fn kernel_fields(area: &[u8; 32]) -> [[u8; 8]; 3] {
    [0, 16, 24].map(|at| area[at..at + 8].try_into().expect("eight bytes"))
}

struct Outcome {
    report: Report,
    observed: Observed,
    objects: Vec<usize>,
    /// Whether the chosen boundary was there, and inside the sequence.
    forced: Option<bool>,
}

/// What a first, undisturbed pass found.
#[derive(Default)]
struct Visits {
    /// Boundaries by sequence, over all cases.
    visited: BTreeMap<(&'static str, u64), (u64, BTreeSet<u64>)>,
    runs: usize,
    aborts: u64,
}

/// Runs `case` once, forcing an abort at the `target`th boundary.
fn run_once<I: Index>(
    case: Case,
    found: &Registration,
    target: usize,
    force: Force,
    visits: &mut Visits,
) -> (Box<World<I>>, Outcome) {
    let operation = case.operation;
    let mut world = World::<I>::new(case);
    let before = world.observe(&Here);
    let area = thread_pointer() + found.offset() as usize;
    let world_pointer: *mut World<I> = &mut *world;
    // SAFETY: in the child, the world is its own copy, and the handle is of index `I`.
    let first = || unsafe {
        let index = found.handle::<I>().index::<I>();
        let world = &mut *world_pointer;
        let (slab, foreign): (&'static Slab<2>, &'static Slab<2>) =
            (&*ptr::from_ref(&world.slab), &*ptr::from_ref(&world.foreign));
        if case.place != Place::Stopped {
            slab.start::<I>(index);
        }
        cell().set(if case.place == Place::None { foreign } else { slab });
        world.report = Report { index_before: index, restarts: rseq::restarts(), ..Report::default() };
    };
    // SAFETY: as above.
    let life = || unsafe {
        let world = &mut *world_pointer;
        world.report.outcome = world.run(operation, found);
        world.report.restarts = rseq::restarts() - world.report.restarts;
        world.report.index_after = found.handle::<I>().index::<I>();
    };
    let child = Child::start(life, first);

    let mut fields = kernel_fields(&child.bytes(area));
    let mut sequence: Option<Sequence> = None;
    let (mut boundary, mut passes_forced, mut inside) = (0, 0, false);
    let mut forced = None;
    let mut at_end = None;
    let mut over = false;
    // Code before the sequence is stepped through once only, to find the sequence.
    let known = visits.visited.keys().find(|(name, _)| *name == operation.name());
    let mut stop = match known {
        Some(&(_, start)) => child.run_to(start),
        None => child.step(0),
    };
    loop {
        loop {
            if stop == Stop::Breakpoint {
                break;
            }
            assert_eq!(stop, Stop::Step, "{case:?}");
            let at = child.instruction();
            let bytes: [u8; 32] = child.bytes(area);
            assert_eq!(kernel_fields(&bytes), fields, "{case:?}: somebody else wrote a field of the kernel's");
            let armed = u64::from_ne_bytes(bytes[8..16].try_into().expect("eight bytes"));
            if armed != 0 && sequence.is_none() {
                let words: [[u8; 8]; 4] = std::array::from_fn(|word| child.bytes(armed as usize + 8 * word));
                let [header, start, length, _] = words.map(u64::from_ne_bytes);
                assert_eq!(header, 0, "version and flags");
                assert_eq!(armed % 32, 0, "alignment");
                sequence = Some(Sequence { descriptor: armed, start, length });
            }
            let Some(known) = sequence else { break };
            if at == known.start {
                boundary = 0;
            }
            let was_inside = std::mem::replace(&mut inside, known.contains(at));
            let left = was_inside && at == known.start + known.length;
            if !inside && !left {
                over = was_inside; // by a branch to the cold section
                break;
            }
            if passes_forced == 0 && forced.is_none() {
                let place = visits.visited.entry((operation.name(), known.start)).or_default();
                place.0 = known.length;
                place.1.insert(at);
                // All or nothing: up to the commit others see the old state.
                if boundary == target {
                    let seen = world.observe(&child);
                    if inside {
                        assert_eq!(seen, before, "{case:?}, boundary {boundary} at {at:#x}");
                    } else {
                        at_end = Some(seen);
                    }
                }
            }
            let times = if let Force::Signal(times) = force { times } else { 1 };
            let here = boundary == target && passes_forced < times && forced != Some(false);
            boundary += 1;
            if !here {
                child.set_word(area + 8, 0);
                over = left;
                break;
            }
            child.set_word(area + 8, known.descriptor);
            passes_forced += 1;
            forced = Some(!left);
            let signal = match force {
                Force::Signal(_) => libc::SIGUSR1,
                Force::Preemption => 0,
                Force::Migration(cpu) => {
                    pin(child.pid, cpu);
                    0
                }
            };
            inside = false;
            stop = child.step(signal);
            if let Force::Migration(_) = force {
                fields = kernel_fields(&child.bytes(area)); // as the kernel wrote them when it moved the child
            }
        }
        if stop == Stop::Breakpoint {
            break;
        }
        // What follows the sequence needs no watching.
        stop = if over { child.go_on() } else { child.step(0) };
    }
    assert!(sequence.is_some(), "{case:?} never armed");
    // SAFETY: the report is plain numbers.
    let report: Report = unsafe {
        std::mem::transmute::<[u8; size_of::<Report>()], Report>(
            child.bytes((&raw const (*world_pointer).report) as usize),
        )
    };
    let outcome = Outcome {
        report,
        observed: world.observe(&child),
        objects: world.objects(&child, operation, report.outcome),
        forced,
    };
    if let Some(at_end) = at_end {
        assert_eq!(at_end, outcome.observed, "{case:?}: state changed after the commit");
    }
    visits.runs += 1;
    visits.aborts += report.restarts;
    (world, outcome)
}

/// Runs `case` with an abort at each boundary in turn and compares with the plain Rust operation.
fn run_case<I: Index>(case: Case, found: &Registration, force: Force, visits: &mut Visits) {
    for target in 0.. {
        let (_world, outcome) = run_once::<I>(case, found, target, force, visits);
        let what = format!("{case:?}, {force:?} at boundary {target}");
        let report = outcome.report;
        let mut model = World::<I>::new(case);
        let moved = report.index_before != report.index_after;
        if !matches!(force, Force::Migration(_)) {
            assert!(!moved, "{what}: the child is pinned");
        }
        // A sequence that restarted ran on the index of its last pass.
        let ran_on = if outcome.forced == Some(true) { report.index_after } else { report.index_before };
        let misses = case.place != Place::Own || (case.operation.is_on_slab() && ran_on != report.index_before);
        let expected = if misses { MOVED } else { model.run_local(case.operation, report.index_before, ran_on) };
        assert_eq!(report.outcome, expected, "{what}: outcome");
        assert_eq!(outcome.observed, model.observe(&Here), "{what}: state");
        assert_eq!(outcome.objects, model.objects(&Here, case.operation, expected), "{what}: objects");
        let aborts = match (outcome.forced, force) {
            (Some(true), Force::Signal(times)) => times as u64,
            (Some(true), _) => 1,
            _ => 0,
        };
        assert_eq!(report.restarts, aborts, "{what}: restarts");
        if outcome.forced.is_none() {
            return; // the sequence has no such boundary: all were visited
        }
    }
}

fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the thread control block begins with its own address.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly)) };
    pointer
}

fn pin(pid: libc::pid_t, cpu: usize) {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours; the thread is ours or our child.
    unsafe {
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(pid, size_of_val(&set), &set), 0, "affinity to CPU {cpu}");
    }
}

fn allowed_cpus() -> Vec<usize> {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours.
    unsafe {
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle_signal(_: i32) {
    HANDLED.fetch_add(1, Relaxed);
}

/// One test at a time: children of two at once would share CPUs and confuse nobody, but take longer to read.
static ONE: Mutex<()> = Mutex::new(());

fn abort_everywhere<I: Index>() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let found = match rseq::probe() {
        Ok(found) if found.has::<I>() => found,
        other => return println!("not run: no {} here ({other:?})", std::any::type_name::<I>()),
    };
    rseq::fence::register().expect("membarrier");
    // SAFETY: the handler adds to an atomic only.
    unsafe { libc::signal(libc::SIGUSR1, handle_signal as extern "C" fn(i32) as libc::sighandler_t) };
    let cpus = allowed_cpus();
    pin(0, cpus[0]);
    let mut forces = vec![Force::Signal(1), Force::Signal(2), Force::Preemption];
    match cpus.get(1) {
        Some(&other) => forces.push(Force::Migration(other)),
        None => println!("not run: aborts by migration, for want of a second CPU"),
    }
    let mut visits = Visits::default();
    for case in cases() {
        for &force in &forces {
            run_case::<I>(case, &found, force, &mut visits);
        }
    }

    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut total = 0;
    for (&(name, start), (length, visited)) in &visits.visited {
        let mut expected = boundaries(start, *length);
        let instructions = expected.len();
        expected.insert(start + length); // just after the commit
        assert_eq!(*visited, expected, "{name}: boundaries that were not visited, or are none");
        total += instructions;
        *places.entry(name).or_default() += 1;
    }
    let names: BTreeSet<_> = cases().iter().map(|case| case.operation.name()).collect();
    assert_eq!(places.keys().copied().collect::<BTreeSet<_>>(), names);
    assert!(places.values().all(|&places| places == 1), "one place per sequence: {places:?}");
    println!(
        "{}: {} sequences, {total} instructions, {} runs, {} forced aborts",
        std::any::type_name::<I>(),
        names.len(),
        visits.runs,
        visits.aborts
    );
}

/// Addresses of the instructions in `start..start + length`, by disassembly.
fn boundaries(start: u64, length: u64) -> BTreeSet<u64> {
    // SAFETY: the code of a sequence of this program.
    let code = unsafe { std::slice::from_raw_parts(start as *const u8, length as usize) };
    let mut decoder = iced_x86::Decoder::with_ip(64, code, start, iced_x86::DecoderOptions::NONE);
    let set =
        decoder.iter().inspect(|instruction| assert!(!instruction.is_invalid())).map(|found| found.ip()).collect();
    assert_eq!(decoder.ip(), start + length, "the sequence ends with an instruction");
    set
}

/// The test must be able to fail: a sequence that goes on after its commit adds twice when it is aborted there.
#[test]
fn a_sequence_that_commits_early_is_caught() {
    let Ok(found) = rseq::probe() else { return println!("not run: no rseq here") };
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    pin(0, allowed_cpus()[0]);
    let case = Case { operation: Operation::EarlyCommit, place: Place::Own, filled: 0 };
    let (_, undisturbed) = run_once::<CpuId>(case, &found, usize::MAX, Force::Preemption, &mut Visits::default());
    let (_, aborted) = run_once::<CpuId>(case, &found, 0, Force::Preemption, &mut Visits::default());
    assert_eq!(aborted.report.restarts, 1);
    assert_eq!(aborted.observed, undisturbed.observed, "aborted before its commit it is right");
    let caught =
        std::panic::catch_unwind(|| run_once::<CpuId>(case, &found, 1, Force::Preemption, &mut Visits::default()));
    assert!(caught.is_err(), "aborted after its commit it is not");
}

#[test]
fn every_sequence_by_cpu_id() {
    abort_everywhere::<CpuId>();
}

#[test]
fn every_sequence_by_mm_cid() {
    abort_everywhere::<MmCid>();
}
