//! What a force is, and what it shares with the team it acts on.

use super::heap::Heap;
use super::holder::Holder;
use super::object::Object;
use super::order::Order;
use super::random::Random;
use nix::libc;
use std::sync::Mutex;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

/// Blocks that wait for a thread at most.
const WAITING: usize = 32;
/// Stack of a thread.
const STACK_BYTES: usize = 256 << 10;

/// One thread that does one thing to the process until the storm is over.
pub struct Force {
    /// Its name, which also seeds its random numbers.
    pub name: &'static str,
    /// What happens, as a plural.
    pub what: &'static str,
    /// Allocation may fail meanwhile.
    pub takes_memory: bool,
    /// Why it cannot be had in this process.
    pub absent: fn(&Order) -> Option<String>,
    /// Acts until the storm is over.
    pub act: fn(&mut Acting),
}

/// It can be had everywhere.
pub fn anywhere(_: &Order) -> Option<String> {
    None
}

/// The last error of a system call, as a reason.
pub fn refused(what: &str) -> Option<String> {
    Some(format!("{what}: {}", std::io::Error::last_os_error()))
}

/// A thread of the team, as forces see it.
pub struct Member {
    /// Its kernel thread id; 0 before it starts and after it ends.
    pub thread: AtomicI32,
    /// What it did so far.
    pub operations: AtomicU64,
    mail: Mutex<Vec<Object>>,
}

/// What team and forces share.
pub struct Shared<'a> {
    /// What the process was asked to do.
    pub order: &'a Order,
    /// The heap under test.
    pub heap: Heap,
    /// The team.
    pub members: Vec<Member>,
    /// CPUs this process may run on.
    pub cpus: Vec<usize>,
    /// All members but the first two rest.
    pub rest: AtomicBool,
    /// Allocation may fail.
    pub may_refuse: bool,
    /// The forces are to end.
    pub forces_end: AtomicBool,
}

/// A force at work.
pub struct Acting<'a> {
    /// What it shares with the team.
    pub shared: &'a Shared<'a>,
    /// Its own random numbers.
    pub random: Random,
    happened: &'a AtomicU64,
}

impl<'a> Shared<'a> {
    /// A team that has not started.
    pub fn new(order: &'a Order, heap: Heap, may_refuse: bool) -> Shared<'a> {
        let member = || Member {
            thread: AtomicI32::new(0),
            operations: AtomicU64::new(0),
            mail: Mutex::new(Vec::with_capacity(WAITING)),
        };
        let members = (0..order.threads).map(|_| member()).collect();
        let (rest, forces_end) = (AtomicBool::new(false), AtomicBool::new(false));
        Shared { order, heap, members, cpus: allowed_cpus(), rest, may_refuse, forces_end }
    }

    /// Places for blocks, under a name that no other holder has.
    pub fn holder(&self, owner: u64) -> Holder {
        Holder::new(self.heap, self.may_refuse, Random::new(self.order.seed, owner), owner)
    }

    /// Into the mail of any member; freed at once where that is full or in use.
    pub fn send(&self, random: &mut Random, object: Object) {
        let member = &self.members[random.below(self.members.len())];
        if let Ok(mut mail) = member.mail.try_lock()
            && mail.len() < WAITING
        {
            return mail.push(object);
        }
        object.free(self.heap);
    }

    /// Checks and frees what was sent to a member.
    pub fn receive(&self, member: &Member) {
        while let Some(object) = member.mail.try_lock().ok().and_then(|mut mail| mail.pop()) {
            object.free(self.heap);
        }
    }
}

impl<'a> Acting<'a> {
    /// A force that begins.
    pub fn new(shared: &'a Shared<'a>, random: Random, happened: &'a AtomicU64) -> Acting<'a> {
        Acting { shared, random, happened }
    }

    /// Until the storm is over.
    pub fn goes_on(&self) -> bool {
        !self.shared.forces_end.load(Relaxed)
    }

    /// It happened once more.
    pub fn happened(&self) {
        self.happened.fetch_add(1, Relaxed);
    }

    /// The kernel's id of any thread of the team. None: one that is not there now.
    pub fn any_thread(&mut self) -> Option<i32> {
        let member = &self.shared.members[self.random.below(self.shared.members.len())];
        Some(member.thread.load(SeqCst)).filter(|thread| *thread != 0)
    }

    /// Sends a block to a thread of the team, or frees it.
    pub fn send(&mut self, object: Object) {
        self.shared.send(&mut self.random, object);
    }

    /// Waits.
    pub fn sleep_us(&self, us: u64) {
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// A thread to start.
pub fn thread() -> std::thread::Builder {
    std::thread::Builder::new().stack_size(STACK_BYTES)
}

/// The CPUs that this process may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a plain bit set, of which all zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours and has the size given.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return vec![0];
    }
    // SAFETY: the index is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Lets a thread run on these CPUs only; 0 is the calling one. Where one is offline or the thread gone, nothing
/// changes, and the answer is false.
pub fn run_on(thread: i32, cpus: &[usize]) -> bool {
    // SAFETY: a plain bit set, of which all zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the index came from a set of this size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` has the size given.
    unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &set) == 0 }
}
