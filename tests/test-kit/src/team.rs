//! Two threads that are sent blocks. They are the C library's: a thread of the core library would allocate.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::block::Block;
use crate::books::MOST_BLOCKS;
use crate::judge::Judge;
use crate::operation::Errand;
use crate::own::{Own, Row};
use crate::subject::Subject;
use crate::system::Cpus;
use crate::verdict::{Kind, count};

/// How many they are.
pub const THREADS: usize = 2;

#[derive(Clone, Copy)]
struct Job {
    block: Block,
    errand: Errand,
}

struct Desk {
    jobs: [Row<Job>; THREADS],
    /// Blocks that were resized.
    back: Row<Block>,
    /// Jobs not done.
    pending: usize,
    over: bool,
}

struct Office {
    desk: Mutex<Desk>,
    /// Something changed.
    news: Condvar,
    /// Blocks that the threads have, or have for us.
    out: AtomicUsize,
    cpus: Cpus,
}

impl Office {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        self.news.wait(desk).unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What a thread is told.
struct Brief<'a, S> {
    judge: &'a Judge<'a, S>,
    office: *const Office,
    number: usize,
}

/// The threads of a case. They end when it is dropped.
pub struct Team<'a, S> {
    office: Own<Office>,
    /// Here as long as the threads.
    _briefs: [Own<Brief<'a, S>>; THREADS],
    threads: [libc::pthread_t; THREADS],
}

impl<'a, S: Subject> Team<'a, S> {
    pub fn new(judge: &'a Judge<'a, S>) -> Team<'a, S> {
        let row = |_| Row::new(MOST_BLOCKS);
        let desk = Desk { jobs: [0, 1].map(row), back: Row::new(MOST_BLOCKS), pending: 0, over: false };
        let (news, out) = (Condvar::new(), AtomicUsize::new(0));
        let office = Own::new(Office { desk: Mutex::new(desk), news, out, cpus: Cpus::allowed() });
        let briefs = [0, 1].map(|number| Own::new(Brief { judge, office: &raw const *office, number }));
        let threads = [0, 1].map(|number| {
            // SAFETY: a handle of ours; the brief and what it names outlive the thread, which is joined.
            unsafe {
                let mut thread = std::mem::zeroed();
                let brief = (&raw const *briefs[number]).cast_mut().cast::<c_void>();
                let code = libc::pthread_create(&mut thread, null_mut(), work::<S>, brief);
                if code != 0 {
                    judge.page.fail(Kind::Host, format_args!("no thread can be started: error {code}"));
                }
                thread
            }
        });
        Team { office, _briefs: briefs, threads }
    }

    /// Sends a block to the thread `to`.
    pub fn send(&self, to: usize, block: Block, errand: Errand) {
        let mut desk = self.office.desk();
        self.office.out.fetch_add(1, SeqCst);
        desk.pending += 1;
        desk.jobs[to % THREADS].push(Job { block, errand });
        drop(desk);
        self.office.news.notify_all();
    }

    /// Waits until all is done, and gives the blocks that came back to `take`.
    pub fn wait(&self, mut take: impl FnMut(Block)) {
        let mut desk = self.office.desk();
        while desk.pending > 0 {
            desk = self.office.wait(desk);
        }
        while let Some(block) = desk.back.pop() {
            self.office.out.fetch_sub(1, SeqCst);
            take(block);
        }
    }

    /// Whether no block is with them.
    pub fn is_idle(&self) -> bool {
        self.office.out.load(SeqCst) == 0
    }
}

impl<S> Drop for Team<'_, S> {
    fn drop(&mut self) {
        self.office.desk().over = true;
        self.office.news.notify_all();
        for thread in self.threads {
            // SAFETY: a thread that was started and is joined once.
            unsafe { libc::pthread_join(thread, null_mut()) };
        }
    }
}

extern "C" fn work<S: Subject>(brief: *mut c_void) -> *mut c_void {
    // SAFETY: the team keeps it, and the office, until this thread is joined.
    let (brief, office) = unsafe {
        let brief = &*brief.cast::<Brief<'_, S>>();
        (brief, &*brief.office)
    };
    office.cpus.run_on_all();
    let mut desk = office.desk();
    loop {
        let Some(job) = desk.jobs[brief.number].pop() else {
            if desk.over {
                return null_mut();
            }
            desk = office.wait(desk);
            continue;
        };
        drop(desk);
        let Job { mut block, errand } = job;
        let freed = match errand {
            Errand::Free => {
                brief.judge.free(block);
                true
            }
            Errand::Resize(size) => {
                brief.judge.resize(&mut block, size);
                false
            }
            Errand::PassOn => false,
        };
        desk = office.desk();
        match errand {
            Errand::PassOn => {
                desk.jobs[(brief.number + 1) % THREADS].push(Job { block, errand: Errand::Free });
                count(&brief.judge.page.counters.sent);
            }
            _ => {
                if freed {
                    office.out.fetch_sub(1, SeqCst);
                } else {
                    desk.back.push(block);
                }
                desk.pending -= 1;
            }
        }
        office.news.notify_all();
    }
}
