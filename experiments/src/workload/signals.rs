//! E09: threads that a timer interrupts at a fixed rate while they allocate.

use super::objects::Sizes;
use super::order::Order;
use super::team::thread_ns;
use super::team::{Member, Team, allowed};
use super::working_set::{Shares, WorkingSet, floor_length};
use crate::measurement::{Cache, Measurement};
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Rounds between two looks at whether to stop.
const BATCH: u64 = 8;

static DELIVERED: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(_: nix::libc::c_int) {
    DELIVERED.fetch_add(1, Relaxed);
}

/// Runs it.
pub fn run<A: GlobalAlloc + Sync>(allocator: &'static A, order: &Order) -> Result<Measurement, String> {
    let sizes = Sizes::powers(64, 64)?;
    let depth = order.get("depth")?.max(1) as usize;
    let rate = order.get("signals_per_s")?;
    let threads = order.threads(allowed()?.len())?;
    let length = floor_length(order.measure()?, threads, allowed()?.len());
    let shares = Shares::default();
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler adds to an atomic and does nothing else.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map_err(|error| format!("sigaction: {error}"))?;

    let member = |member: &Member| {
        let mut set = WorkingSet::new(allocator, order, &sizes, depth, member.number);
        member.meet();
        let floor = set.floor(length, BATCH, || ());
        let timer = timer(rate);
        member.meet();
        let start = thread_ns();
        while member.working() && set.run(BATCH) {
            member.count.add(BATCH * depth as u64);
        }
        let end = thread_ns();
        let timer = timer.map(drop); // no more signals: the totals are read next
        member.meet();
        member.meet();
        timer?;
        shares.add(set.made() * depth as u64, end? - start?, floor?);
        set.sums()
    };
    let look = |measurement: &mut Measurement| measurement.caches = Cache::all(order.subject);
    let team = Team::new(order, threads, 2)?;
    let mut measurement = team.run(member, look)?;
    let ops: u64 = measurement.per_thread_pairs.iter().sum();
    (measurement.ops_alloc, measurement.ops_free) = (ops, ops);
    measurement.set("pairs_per_s", measurement.pairs as f64 * 1e9 / measurement.wall_ns as f64);
    shares.describe(&mut measurement);
    let life = (measurement.wall_ns + measurement.warmup_ns) as f64 / 1e9;
    let delivered = DELIVERED.load(Relaxed) as f64;
    measurement.set("signals_per_s_per_thread", delivered / life / threads as f64);
    match order.subject {
        crate::subject::Subject::Perseq(_) => {
            // Over the whole life of the process: signals came during the warm-up as well.
            let restarts = perseq::stats().restarts as f64;
            measurement.set("restarts_per_billion_ops", restarts * 1e9 / (2 * ops).max(1) as f64);
            if delivered > 0.0 {
                measurement.set("restarts_per_signal", restarts / delivered);
            } else {
                measurement.lack("restarts_per_signal", "no signal was sent");
            }
        }
        _ => {
            measurement.lack("restarts_per_billion_ops", "only perseq counts these");
            measurement.lack("restarts_per_signal", "only perseq counts these");
        }
    }
    Ok(measurement)
}

/// A timer that sends SIGUSR1 to the calling thread `rate` times a second. None: not at all.
fn timer(rate: u64) -> Result<Option<Timer>, String> {
    if rate == 0 {
        return Ok(None);
    }
    let thread_id = nix::unistd::gettid().as_raw();
    let event = SigEvent::new(SigevNotify::SigevThreadId { signal: Signal::SIGUSR1, thread_id, si_value: 0 });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event).map_err(|error| format!("timer_create: {error}"))?;
    let period = Duration::from_nanos(1_000_000_000 / rate);
    let set = timer.set(Expiration::Interval(period.into()), TimerSetTimeFlags::empty());
    set.map_err(|error| format!("timer_settime: {error}")).map(|()| Some(timer))
}
