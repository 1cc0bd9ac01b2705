//! Does the operations of a stream.

use std::alloc::Layout;
use std::sync::atomic::Ordering::Relaxed;

use crate::block::Block;
use crate::books::{Books, MOST_BLOCKS};
use crate::judge::Judge;
use crate::operation::Operation;
use crate::own::{Own, Row};
use crate::signals::Signals;
use crate::subject::Subject;
use crate::system::{AddressSpace, Cpus, wait_for};
use crate::team::Team;
use crate::verdict::{FAULT, Kind, Page, count};

/// How many of the next operations a child of the operation `fork` does.
const OF_A_CHILD: usize = 8;
/// Bytes beyond those held when memory is limited.
const HEADROOM: usize = 4 << 20;
/// Bytes and blocks after which a limit is not one that keeps this process from memory.
const UNLIMITED: usize = 24 << 20;
const UNLIMITED_BLOCKS: usize = 8192;

/// From the key of a block to that of the next, where one operation allocates many: it shares no factor with their
/// number.
const SCATTER: u16 = 25_717;

/// A stream on its way.
struct Player<'a, S> {
    judge: &'a Judge<'a, S>,
    /// By their keys.
    held: Row<Block>,
    team: Option<Team<'a, S>>,
    signals: Signals<'a, S>,
    cpus: Cpus,
    /// What was live at the beginning, where no block can have been lost since.
    live: Option<[u64; 2]>,
    in_child: bool,
}

/// Does all of a stream, and frees what is held then. What is wrong ends the process.
pub fn play<S: Subject>(subject: &S, page: &Page, operations: &[Operation]) {
    let books = Own::new(Books::new());
    let judge = Own::new(Judge::new(subject, page, &books));
    let mut player = Player {
        judge: &*judge,
        held: Row::new(MOST_BLOCKS),
        team: None,
        signals: Signals::new(subject, page),
        cpus: Cpus::allowed(),
        live: subject.live_bytes(),
        in_child: false,
    };
    for (number, operation) in operations.iter().enumerate() {
        page.begin(number);
        player.perform(operation, &operations[number + 1..], number + 1);
    }
    page.begin(operations.len());
    player.finish();
}

impl<'a, S: Subject> Player<'a, S> {
    fn perform(&mut self, operation: &Operation, next: &[Operation], number: usize) {
        let counters = &self.judge.page.counters;
        match *operation {
            Operation::Allocate { size, align_bits, key } => self.allocate(size, 1 << align_bits, false, key),
            Operation::AllocateZeroed { size, align_bits, key } => self.allocate(size, 1 << align_bits, true, key),
            Operation::AllocateMany { size, count, key } => {
                let keys = (0..count).map(|number| key.wrapping_add((number as u16).wrapping_mul(SCATTER)));
                keys.for_each(|key| self.allocate(size, 8, false, key));
            }
            Operation::AllocateImpossible { align_bits } => self.judge.allocate_impossible(1 << align_bits),
            Operation::Free { which } => self.take(which, 1, |player, block| player.judge.free(block)),
            Operation::FreeMany { from, count } => self.take(from, count, |player, block| player.judge.free(block)),
            Operation::Resize { which, size } => self.take(which, 1, |player, mut block| {
                player.judge.resize(&mut block, size);
                player.hold(block);
            }),
            Operation::Check => self.check(),
            Operation::Send { from, count, to, errand } => {
                if self.held.is_empty() {
                    return;
                }
                if self.team.is_none() {
                    self.team = Some(Team::new(self.judge));
                }
                self.take(from, count, |player, block| {
                    if let Some(team) = &player.team {
                        crate::verdict::count(&player.judge.page.counters.sent);
                        team.send(to.into(), block, errand);
                    }
                });
            }
            Operation::Await => self.wait(),
            Operation::EndThreads => self.end_threads(),
            Operation::MoveToCpu { cpu } => {
                self.cpus.run_on_one(cpu.into());
                count(&counters.moved);
            }
            Operation::Signals { every } => self.signals.every(every),
            Operation::Fork => self.fork(next, number),
            Operation::Drain { whole } => {
                if self.judge.subject.drain(whole) {
                    count(&counters.drained);
                }
            }
            Operation::Exhaust { size } => self.exhaust(size),
        }
    }

    fn allocate(&mut self, size: usize, align: usize, zeroed: bool, key: u16) {
        let Ok(layout) = Layout::from_size_align(size, align) else { return };
        if self.judge.books.have_room() && self.held.room() > 0 {
            let block = self.judge.allocate(layout, zeroed, key);
            block.into_iter().for_each(|block| self.hold(block));
        }
    }

    /// Puts a block where its key belongs.
    fn hold(&mut self, block: Block) {
        self.held.insert(self.held.partition_point(|other| other.key <= block.key), block);
    }

    /// Takes `count` blocks out of what is held, from the key on, counted round.
    fn take(&mut self, from: u16, count: usize, mut with: impl FnMut(&mut Self, Block)) {
        for _ in 0..count.min(self.held.len()) {
            let at = self.held.partition_point(|block| block.key < from) % self.held.len();
            let block = self.held.remove(at);
            with(self, block);
        }
    }

    fn check(&self) {
        for block in &*self.held {
            self.judge.check(block);
        }
        self.judge.page.progress();
    }

    fn wait(&mut self) {
        if let Some(team) = &self.team {
            let mut back = Row::new(MOST_BLOCKS);
            team.wait(|block| back.push(block));
            back.iter().for_each(|block| self.hold(*block));
        }
    }

    fn end_threads(&mut self) {
        self.wait();
        if self.team.take().is_some() {
            count(&self.judge.page.counters.ended);
        }
    }

    fn fork(&mut self, next: &[Operation], number: usize) {
        let page = self.judge.page;
        if self.in_child {
            return;
        }
        count(&page.counters.forked);
        page.set_in_child(true);
        let books = self.judge.books.lock();
        // SAFETY: the child uses the subject, which is the test, system calls, and what is its own; the books are not
        // being changed, and the threads' desk is left alone.
        let child = unsafe { libc::fork() };
        drop(books);
        match child {
            -1 => page.fail(Kind::Host, format_args!("no child can be forked: error {}", crate::errno::get())),
            0 => self.go_on_in_child(next, number),
            _ => {}
        }
        let status = match wait_for(child, 0) {
            Ok(status) => status.unwrap_or(0),
            Err(error) => page.fail(Kind::Host, format_args!("no child can be waited for: error {error}")),
        };
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            page.fail(Kind::Crash, format_args!("the child of a fork was ended by signal {signal}"));
        }
        match libc::WEXITSTATUS(status) {
            0 => {}
            FAULT => page.fail(Kind::Exit, format_args!("the child of a fork failed")), // it said how
            status => page.fail(Kind::Exit, format_args!("the child of a fork exited with {status}")),
        }
        page.set_in_child(false);
        self.check();
    }

    /// The child has this thread alone. Blocks that the others had are lost to it.
    fn go_on_in_child(&mut self, next: &[Operation], number: usize) -> ! {
        self.in_child = true;
        if self.signals.leave_behind() {
            self.live = None;
        }
        if let Some(team) = self.team.take() {
            if !team.is_idle() {
                self.live = None;
            }
            std::mem::forget(team);
        }
        self.check();
        for (after, operation) in next.iter().take(OF_A_CHILD).enumerate() {
            self.judge.page.begin(number + after);
            self.perform(operation, &[], 0);
        }
        self.finish();
        // SAFETY: ends the process at once; nothing of the parent's is run twice.
        unsafe { libc::_exit(0) }
    }

    fn exhaust(&mut self, size: usize) {
        let (page, subject) = (self.judge.page, self.judge.subject);
        let Ok(layout) = Layout::from_size_align(size, 16) else { return };
        let mut taken = Row::new(UNLIMITED_BLOCKS);
        self.judge.turn_pressure();
        let own = subject.limit(Some(HEADROOM));
        let limit = if own { None } else { AddressSpace::limit(HEADROOM as u64) };
        if own || limit.is_some() {
            count(&page.counters.limited);
            while taken.len() * size < UNLIMITED && taken.room() > 0 && self.judge.books.have_room() {
                let Some(block) = self.judge.allocate(layout, false, 0) else {
                    count(&page.counters.exhausted);
                    break;
                };
                taken.push(block);
            }
            self.check();
        }
        while let Some(block) = taken.pop() {
            self.judge.free(block);
        }
        drop(limit);
        if own {
            subject.limit(None);
        }
        self.judge.turn_pressure();
        // There is memory again.
        self.allocate(size, 16, false, 0);
    }

    fn finish(&mut self) {
        let page = self.judge.page;
        self.signals.every(0);
        // Before what is live is counted.
        self.end_threads();
        self.check();
        while let Some(block) = self.held.pop() {
            self.judge.free(block);
        }
        self.count_live();
        self.cpus.run_on_all();
        page.progress();
    }

    /// Fails if more or less is live than at the beginning.
    fn count_live(&self) {
        let (page, subject) = (self.judge.page, self.judge.subject);
        let Some(before) = self.live else { return };
        let mut after = subject.live_bytes();
        if after != Some(before) && page.counters.in_handlers.load(Relaxed) > 0 {
            // What a handler freed may have been put off.
            subject.drain(false);
            after = subject.live_bytes();
        }
        if let Some(after) = after
            && before != after
        {
            let text = format_args!("{after:?} bytes are live when all is freed, and were {before:?} at the beginning");
            page.fail(Kind::Leak, text);
        }
    }
}
