//! The protocols around sequences, explored by loom: every order of steps, and every value that the memory model lets a
//! load see. Each has controls, with one thing left out, in which loom must find what goes wrong.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p perseq-rseq --test loom --release
//!
//! How rows are waited for is the crate's own code. Sequences are assembly, so they are written here as programs of
//! steps, of which each is one instruction; a *CPU* says after each whether the sequence goes on or begins again, as
//! the kernel does.
#![cfg(loom)]

use std::cell::Cell;
use std::process::Command;

use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

#[path = "../src/hold.rs"]
mod hold;

use hold::Hold;

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// The stopper does not fence.
    NoFence,
    /// The stopper does not write the stop word.
    NoStop,
    /// The stop word is cleared by a relaxed store.
    RelaxedStart,
    /// The sequence reads the stop word by a relaxed load.
    RelaxedLook,
    /// The fence finds nobody to abort: a task whose area the kernel does not know, as after vfork.
    Unregistered,
    /// A holder wakes nobody.
    NoWake,
    /// Who slept takes the row as one for whom nobody waits.
    Forgetful,
    /// The row is given back by a relaxed store.
    RelaxedGiveBack,
}

thread_local! {
    /// What the platform below leaves out. A model runs on one thread of the operating system.
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
}

fn fault_is(fault: Fault) -> bool {
    FAULT.get() == fault
}

/// What `hold.rs` is made of here.
mod platform {
    use super::*;

    pub const LOOKS: u32 = 1;

    pub fn spin_loop() {}

    /// A word, and those who sleep on it.
    #[derive(Debug)]
    pub struct AtomicU32 {
        word: loom::sync::atomic::AtomicU32,
        queue: Mutex<()>,
        woken: Condvar,
    }

    impl AtomicU32 {
        pub fn new(value: u32) -> Self {
            AtomicU32 { word: loom::sync::atomic::AtomicU32::new(value), queue: Mutex::new(()), woken: Condvar::new() }
        }
        pub fn load(&self, order: Ordering) -> u32 {
            self.word.load(order)
        }
        pub fn compare_exchange(&self, old: u32, new: u32, yes: Ordering, no: Ordering) -> Result<u32, u32> {
            self.word.compare_exchange(old, new, yes, no)
        }
        pub fn swap(&self, value: u32, order: Ordering) -> u32 {
            match order {
                Release if fault_is(Fault::RelaxedGiveBack) => self.word.swap(value, Relaxed),
                AcqRel if fault_is(Fault::Forgetful) => {
                    // 1 instead of 2 where the row is free.
                    self.word.compare_exchange(0, 1, AcqRel, Relaxed).unwrap_or_else(|_| self.word.swap(value, order))
                }
                order => self.word.swap(value, order),
            }
        }
    }

    pub fn futex_wait(word: &AtomicU32, expected: u32) {
        // The kernel compares and enqueues under the lock that a wake takes.
        let queue = word.queue.lock().expect("no panic");
        if word.word.load(Relaxed) == expected {
            drop(word.woken.wait(queue).expect("no panic"));
        }
    }

    pub fn futex_wake(word: &AtomicU32, count: u32) {
        assert_eq!(count, 1);
        if !fault_is(Fault::NoWake) {
            let _queue = word.queue.lock().expect("no panic");
            word.woken.notify_one();
        }
    }
}

/// The CPU that an owner of a slab or row is on, with what the kernel knows of the sequence that runs there.
struct Cpu(Mutex<Sequence>);

#[derive(Default)]
struct Sequence {
    runs: bool,
    aborted: bool,
}

/// The kernel had the sequence begin again.
struct Aborted;

impl Cpu {
    fn new() -> Self {
        Cpu(Mutex::new(Sequence::default()))
    }

    /// Runs a sequence until none of its steps was aborted.
    fn run<R>(&self, sequence: impl Fn(&Self) -> Result<R, Aborted>) -> R {
        loop {
            *self.0.lock().expect("no panic") = Sequence { runs: true, aborted: false };
            if let Ok(answer) = sequence(self) {
                return answer;
            }
        }
    }

    /// One instruction of the sequence.
    fn step<R>(&self, instruction: impl FnOnce() -> R) -> Result<R, Aborted> {
        let sequence = self.0.lock().expect("no panic");
        if sequence.aborted { Err(Aborted) } else { Ok(instruction()) }
    }

    /// The last instruction: after it the sequence cannot be aborted.
    fn commit<R>(&self, instruction: impl FnOnce() -> R) -> Result<R, Aborted> {
        let mut sequence = self.0.lock().expect("no panic");
        if sequence.aborted {
            return Err(Aborted);
        }
        sequence.runs = false;
        Ok(instruction())
    }

    /// The sequence found nothing to do.
    fn leave(&self) {
        self.0.lock().expect("no panic").runs = false;
    }

    /// membarrier: between two instructions of this CPU, what comes before is seen by the caller, what comes after sees
    /// what the caller did, and a sequence that runs is aborted.
    fn fence(&self) {
        if fault_is(Fault::NoFence) {
            return;
        }
        let mut sequence = self.0.lock().expect("no panic");
        sequence.aborted = sequence.runs && !fault_is(Fault::Unregistered);
    }
}

/// How a sequence reads the word that lets it go on.
fn look() -> Ordering {
    if fault_is(Fault::RelaxedLook) { Relaxed } else { Acquire }
}

/// How that word is written when the owner may go on.
fn start() -> Ordering {
    if fault_is(Fault::RelaxedStart) { Relaxed } else { Release }
}

const OWNER: u32 = 7;
const STOPPED: u32 = u32::MAX - 2;

/// A slab with one list. An object is a number; who has it writes to its cell, which two must not at a time.
struct Slab {
    cpu: Cpu,
    id: AtomicU32,
    top: AtomicUsize,
    slots: [AtomicUsize; 2],
    objects: [UnsafeCell<u32>; 2],
}

impl Slab {
    /// With both objects in its list.
    fn full() -> Self {
        Slab {
            cpu: Cpu::new(),
            id: AtomicU32::new(OWNER),
            top: AtomicUsize::new(2),
            slots: [AtomicUsize::new(0), AtomicUsize::new(1)],
            objects: [UnsafeCell::new(0), UnsafeCell::new(0)],
        }
    }

    fn use_object(&self, object: usize) {
        // SAFETY: loom says if anybody else is here.
        self.objects[object].with_mut(|uses| unsafe { *uses += 1 });
    }

    /// `pop.s`. `None`: moved or empty.
    fn pop(&self) -> Option<usize> {
        self.cpu.run(|cpu| {
            if cpu.step(|| self.id.load(look()))? != OWNER {
                cpu.leave();
                return Ok(None);
            }
            let top = cpu.step(|| self.top.load(Relaxed))?;
            if top == 0 {
                cpu.leave();
                return Ok(None);
            }
            let object = cpu.step(|| self.slots[top - 1].load(Relaxed))?;
            cpu.commit(|| self.top.store(top - 1, Relaxed))?;
            Ok(Some(object))
        })
    }

    /// `push.s`. False: moved.
    fn push(&self, object: usize) -> bool {
        self.cpu.run(|cpu| {
            if cpu.step(|| self.id.load(look()))? != OWNER {
                cpu.leave();
                return Ok(false);
            }
            let top = cpu.step(|| self.top.load(Relaxed))?;
            cpu.step(|| self.slots[top].store(object, Relaxed))?;
            cpu.commit(|| self.top.store(top + 1, Relaxed))?;
            Ok(true)
        })
    }

    /// `Slab::stop`, takes the newest object, and starts the slab again.
    fn take_one(&self) -> Option<usize> {
        if !fault_is(Fault::NoStop) {
            self.id.compare_exchange(OWNER, STOPPED, AcqRel, Relaxed).expect("nobody else stops");
        }
        self.cpu.fence();
        let taken = self.top.load(Relaxed).checked_sub(1).map(|last| {
            self.top.store(last, Relaxed);
            self.slots[last].load(Relaxed)
        });
        self.id.store(OWNER, start());
        taken
    }
}

/// An owner pops, uses and pushes; another CPU takes one object meanwhile. Nobody has an object that another has.
fn slab_is_stopped() {
    let slab = Arc::new(Slab::full());
    let owner = {
        let slab = Arc::clone(&slab);
        thread::spawn(move || {
            let mut kept = Vec::new();
            for _ in 0..2 {
                if let Some(object) = slab.pop() {
                    slab.use_object(object);
                    if !slab.push(object) {
                        kept.push(object);
                    }
                }
            }
            kept
        })
    };
    let mut all = Vec::new();
    if let Some(object) = slab.take_one() {
        slab.use_object(object);
        all.push(object);
    }
    all.extend(owner.join().expect("no panic"));
    all.extend((0..slab.top.load(Relaxed)).map(|slot| slab.slots[slot].load(Relaxed)));
    all.sort_unstable();
    assert_eq!(all, [0, 1], "each object once");
}

/// A row with a linked list of nodes and its stop word. A node is a number from 1 on; 0 is none.
struct ListRow {
    cpu: Cpu,
    stopped: AtomicU32,
    head: AtomicUsize,
    next: [UnsafeCell<usize>; 3],
}

impl ListRow {
    fn new() -> Self {
        ListRow {
            cpu: Cpu::new(),
            stopped: AtomicU32::new(0),
            head: AtomicUsize::new(0),
            next: [UnsafeCell::new(0), UnsafeCell::new(0), UnsafeCell::new(0)],
        }
    }

    /// `linked_push.s`. False: the row is stopped.
    fn push(&self, node: usize) -> bool {
        self.cpu.run(|cpu| {
            if cpu.step(|| self.stopped.load(look()))? != 0 {
                cpu.leave();
                return Ok(false);
            }
            let head = cpu.step(|| self.head.load(Relaxed))?;
            // SAFETY: the node is the pusher's; loom says if it is not.
            cpu.step(|| self.next[node].with_mut(|next| unsafe { *next = head }))?;
            cpu.commit(|| self.head.store(node, Relaxed))?;
            Ok(true)
        })
    }

    /// A row's part of `PerCpuList::drain`: the nodes are the caller's when the row runs again.
    fn drain(&self) -> Vec<usize> {
        if !fault_is(Fault::NoStop) {
            self.stopped.compare_exchange(0, 1, AcqRel, Relaxed).expect("nobody else stops");
        }
        self.cpu.fence();
        let mut node = self.head.load(Relaxed);
        self.head.store(0, Relaxed);
        self.stopped.store(0, start());
        let mut nodes = Vec::new();
        while node != 0 {
            nodes.push(node);
            // SAFETY: a node that was taken is ours; loom says if it is not.
            node = self.next[node].with_mut(|next| unsafe { std::mem::replace(&mut *next, 0) });
        }
        nodes
    }
}

fn list_is_drained() {
    let row = Arc::new(ListRow::new());
    let pusher = {
        let row = Arc::clone(&row);
        thread::spawn(move || [1, 2].map(|node| if row.push(node) { 0 } else { node }))
    };
    let mut all = row.drain();
    all.extend(pusher.join().expect("no panic").into_iter().filter(|&node| node != 0));
    all.extend(row.drain());
    all.sort_unstable();
    assert_eq!(all, [1, 2], "each node once");
}

/// A row with a buffer of words.
struct BufferRow {
    cpu: Cpu,
    stopped: AtomicU32,
    length: AtomicUsize,
    items: [AtomicUsize; 2],
}

impl BufferRow {
    /// `append.s`. False: stopped or full.
    fn append(&self, item: usize) -> bool {
        self.cpu.run(|cpu| {
            let stopped = cpu.step(|| self.stopped.load(look()))? != 0;
            let length = if stopped { self.items.len() } else { cpu.step(|| self.length.load(Relaxed))? };
            if length >= self.items.len() {
                cpu.leave();
                return Ok(false);
            }
            cpu.step(|| self.items[length].store(item, Relaxed))?;
            cpu.commit(|| self.length.store(length + 1, Relaxed))?;
            Ok(true)
        })
    }

    /// A row's part of `PerCpuBuffer::drain`.
    fn drain(&self) -> Vec<usize> {
        if !fault_is(Fault::NoStop) {
            self.stopped.compare_exchange(0, 1, AcqRel, Relaxed).expect("nobody else stops");
        }
        self.cpu.fence();
        let length = self.length.load(Relaxed);
        let taken = (0..length).map(|place| self.items[place].load(Relaxed)).collect();
        self.length.store(0, Relaxed);
        self.stopped.store(0, start());
        taken
    }
}

fn buffer_is_drained() {
    let row = Arc::new(BufferRow {
        cpu: Cpu::new(),
        stopped: AtomicU32::new(0),
        length: AtomicUsize::new(0),
        items: [AtomicUsize::new(0), AtomicUsize::new(0)],
    });
    let writer = {
        let row = Arc::clone(&row);
        thread::spawn(move || [1, 2, 3].map(|item| if row.append(item) { 0 } else { item }))
    };
    let mut all = row.drain();
    all.extend(writer.join().expect("no panic").into_iter().filter(|&item| item != 0));
    all.extend(row.drain());
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3], "each item once");
}

/// Three threads want one row. Each has it alone, and none sleeps for ever: loom says if all do.
fn row_is_waited_for() {
    let row = Arc::new((Hold::new(), UnsafeCell::new(0)));
    let work = |row: &(Hold, UnsafeCell<u32>)| {
        row.0.take();
        // SAFETY: we have the row; loom says if another does.
        row.1.with_mut(|count| unsafe { *count += 1 });
        row.0.give_back();
    };
    let others = [(); 2].map(|()| {
        let row = Arc::clone(&row);
        thread::spawn(move || work(&row))
    });
    work(&row);
    others.into_iter().for_each(|other| other.join().expect("no panic"));
    assert!(!row.0.is_held());
    // SAFETY: all others ended.
    row.1.with(|count| assert_eq!(unsafe { *count }, 3));
}

/// Explores `model` with this fault. Two threads in full; three in every order with up to three preemptions, since all
/// of them took more than four minutes.
fn explore(fault: Fault, model: Model) {
    FAULT.set(fault);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = if model.threads == 2 { None } else { Some(3) };
    builder.check(model.run);
}

struct Model {
    threads: usize,
    run: fn(),
}

const SLAB_IS_STOPPED: Model = Model { threads: 2, run: slab_is_stopped };
const LIST_IS_DRAINED: Model = Model { threads: 2, run: list_is_drained };
const BUFFER_IS_DRAINED: Model = Model { threads: 2, run: buffer_is_drained };
const ROW_IS_WAITED_FOR: Model = Model { threads: 3, run: row_is_waited_for };

fn holds(model: Model) {
    explore(Fault::None, model);
}

/// Names the control that this process is for.
const CONTROL: &str = "RSEQ_LOOM_CONTROL";

/// Explores `model` with each fault, in a process of its own: a deadlock that loom finds ends it. `test` is the caller.
fn fails(test: &str, model: Model, faults: &[Fault]) {
    if let Ok(asked) = std::env::var(CONTROL) {
        let fault = faults.iter().find(|fault| format!("{fault:?}") == asked).expect("one of these");
        return explore(*fault, model);
    }
    for fault in faults {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CONTROL, format!("{fault:?}"));
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("panicked at"), "{fault:?} goes unnoticed: {said}");
    }
}

#[test]
fn a_stopped_slab_is_its_holders() {
    holds(SLAB_IS_STOPPED);
}

#[test]
fn a_slab_that_is_stopped_wrongly_is_found() {
    use Fault::{NoFence, NoStop, RelaxedLook, RelaxedStart, Unregistered};
    fails(
        "a_slab_that_is_stopped_wrongly_is_found",
        SLAB_IS_STOPPED,
        &[NoFence, NoStop, RelaxedStart, RelaxedLook, Unregistered],
    );
}

#[test]
fn a_list_is_drained_while_nodes_are_pushed() {
    holds(LIST_IS_DRAINED);
}

#[test]
fn a_list_that_is_drained_wrongly_is_found() {
    use Fault::{NoFence, NoStop, RelaxedLook, RelaxedStart, Unregistered};
    fails(
        "a_list_that_is_drained_wrongly_is_found",
        LIST_IS_DRAINED,
        &[NoFence, NoStop, RelaxedStart, RelaxedLook, Unregistered],
    );
}

#[test]
fn a_buffer_is_drained_while_items_are_appended() {
    holds(BUFFER_IS_DRAINED);
}

#[test]
fn a_buffer_that_is_drained_wrongly_is_found() {
    use Fault::{NoFence, NoStop, RelaxedLook, RelaxedStart, Unregistered};
    fails(
        "a_buffer_that_is_drained_wrongly_is_found",
        BUFFER_IS_DRAINED,
        &[NoFence, NoStop, RelaxedStart, RelaxedLook, Unregistered],
    );
}

#[test]
fn who_waits_for_a_row_gets_it() {
    holds(ROW_IS_WAITED_FOR);
}

#[test]
fn who_is_not_woken_is_found() {
    use Fault::{Forgetful, NoWake, RelaxedGiveBack};
    fails("who_is_not_woken_is_found", ROW_IS_WAITED_FOR, &[NoWake, Forgetful, RelaxedGiveBack]);
}
