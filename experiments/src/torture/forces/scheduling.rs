//! Who runs first: the scheduler's policies.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, anywhere, refused, run_on};
use crate::torture::order::Order;
use nix::libc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// Policies that everybody may have.
pub const POLICIES: Force = Force {
    name: "policies",
    what: "changes between SCHED_OTHER, BATCH and IDLE",
    takes_memory: false,
    absent: anywhere,
    act: policies,
};

/// A real-time thread beside an idle one, on one CPU.
pub const REALTIME: Force = Force {
    name: "realtime",
    what: "turns of a SCHED_FIFO or RR thread on the CPU of a SCHED_IDLE one",
    takes_memory: false,
    absent: realtime_absent,
    act: realtime,
};

/// How long the real-time thread may need for [`TURN`] operations. The kernel leaves others 50 ms of each second, and
/// the two have the CPU for themselves: a thread that waits without spinning needs milliseconds.
const DEADLINE: Duration = Duration::from_secs(15);
/// Operations of a turn.
const TURN: u64 = 64;

fn set(thread: i32, policy: i32, priority: i32) -> bool {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the structure is ours and is read only.
    unsafe { libc::sched_setscheduler(thread, policy, &parameter) == 0 }
}

fn policies(acting: &mut Acting) {
    while acting.goes_on() {
        if let Some(thread) = acting.any_thread() {
            let policy = acting.random.of(&[libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE]);
            if set(thread, policy, 0) {
                acting.happened();
            }
        }
        acting.sleep_us(200);
    }
}

fn realtime_absent(_: &Order) -> Option<String> {
    if set(0, libc::SCHED_FIFO, 1) && set(0, libc::SCHED_OTHER, 0) { None } else { refused("SCHED_FIFO") }
}

fn realtime(acting: &mut Acting) {
    let shared = acting.shared;
    let cpus = &shared.cpus;
    set(0, libc::SCHED_FIFO, 20); // or it would be one of those who wait
    while acting.goes_on() {
        let threads: Vec<_> = shared.members.iter().take(2).map(|member| member.thread.load(SeqCst)).collect();
        let [first, idle] = threads[..] else { fault(format_args!("this storm needs two threads or more")) };
        if first == 0 || idle == 0 {
            acting.sleep_us(1000);
            continue;
        }
        // Alone on a CPU: else the idle one would wait for the others, which is not the allocator's doing.
        let cpu = acting.random.of(cpus);
        shared.rest.store(true, SeqCst);
        run_on(first, &[cpu]);
        run_on(idle, &[cpu]);
        set(idle, libc::SCHED_IDLE, 0);
        acting.sleep_us(300);
        set(first, acting.random.of(&[libc::SCHED_FIFO, libc::SCHED_RR]), 1);
        let done = || shared.members[0].operations.load(Relaxed);
        let (before, start) = (done(), Instant::now());
        while done() < before + TURN && acting.goes_on() {
            acting.sleep_us(100);
            if start.elapsed() > DEADLINE {
                let (done, seconds) = (done() - before, DEADLINE.as_secs());
                fault(format_args!(
                    "starved: a real-time thread did {done} operations in {seconds} s beside an idle one on its CPU"
                ));
            }
        }
        set(first, libc::SCHED_OTHER, 0);
        set(idle, libc::SCHED_OTHER, 0);
        run_on(first, cpus);
        run_on(idle, cpus);
        shared.rest.store(false, SeqCst);
        acting.happened();
        acting.sleep_us(2000);
    }
}
