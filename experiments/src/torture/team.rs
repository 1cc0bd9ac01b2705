//! Threads that allocate, check, resize, free and send each other blocks, while the forces of a storm act on them.

use super::fault::fault;
use super::force::{Acting, Force, Shared, thread};
use super::heap::Heap;
use super::holder::HELD;
use super::order::Order;
use super::random::{Random, hash};
use nix::libc;
use std::sync::Barrier;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

/// How long a force may take until it happened once, after the storm's time.
const PATIENCE: Duration = Duration::from_secs(40);
/// What happened.
#[derive(Debug)]
pub struct Tally {
    /// Operations of the team.
    pub operations: u64,
    /// How often each force happened.
    pub happened: Vec<u64>,
}

/// Lets the forces act on a team. Afterwards every thread has ended and every block was freed.
pub fn run(order: &Order, heap: Heap, forces: &[&'static Force]) -> Result<Tally, String> {
    let shared = Shared::new(order, heap, forces.iter().any(|force| force.takes_memory));
    let (end, started) = (AtomicBool::new(false), Barrier::new(forces.len()));
    let happened: Vec<_> = forces.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let team: Vec<_> = (0..order.threads)
            .map(|number| {
                let (shared, end) = (&shared, &end);
                thread().spawn_scoped(scope, move || work(shared, number, end))
            })
            .collect::<Result<_, _>>()
            .map_err(|error| format!("threads for the team: {error}"))?;
        // A force may forbid what a thread needs for its start.
        while shared.members.iter().any(|member| member.thread.load(SeqCst) == 0) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let acting: Vec<_> = forces
            .iter()
            .zip(&happened)
            .map(|(force, happened)| {
                let random = Random::new(order.seed, hash(force.name));
                let (mut acting, started) = (Acting::new(&shared, random, happened), &started);
                thread().spawn_scoped(scope, move || {
                    started.wait();
                    (force.act)(&mut acting);
                })
            })
            .collect::<Result<_, _>>()
            .map_err(|error| format!("threads for the forces: {error}"))?;
        let (start, time) = (Instant::now(), Duration::from_secs_f64(order.seconds));
        let all_happened = || happened.iter().all(|count| count.load(Relaxed) > 0);
        while start.elapsed() < time || (!all_happened() && start.elapsed() < time + PATIENCE) {
            std::thread::sleep(Duration::from_millis(2).min(time));
        }
        shared.forces_end.store(true, SeqCst);
        join(acting);
        end.store(true, SeqCst);
        join(team);
        Ok::<_, String>(())
    })?;
    for member in &shared.members {
        shared.receive(member);
    }
    if let Some((force, _)) = forces.iter().zip(&happened).find(|(_, count)| count.load(Relaxed) == 0) {
        return Err(format!("not once did this happen: {}", force.what));
    }
    Ok(Tally {
        operations: shared.members.iter().map(|member| member.operations.load(Relaxed)).sum(),
        happened: happened.into_iter().map(AtomicU64::into_inner).collect(),
    })
}

fn join(threads: Vec<std::thread::ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        if thread.join().is_err() {
            fault(format_args!("a thread of the torture panicked"));
        }
    }
}

fn work(shared: &Shared, number: usize, end: &AtomicBool) {
    let member = &shared.members[number];
    // SAFETY: gettid has no preconditions.
    member.thread.store(unsafe { libc::gettid() }, SeqCst);
    let mut holder = shared.holder(number as u64);
    while !end.load(Relaxed) {
        while number > 1 && shared.rest.load(Relaxed) && !end.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..32 {
            match holder.random.below(100) {
                0..=44 if holder.objects.len() < HELD => holder.allocate(),
                0..=79 => holder.free(),
                80..=89 => holder.resize(),
                _ => {
                    if let Some(object) = holder.take() {
                        shared.send(&mut holder.random, object);
                    }
                }
            }
            member.operations.fetch_add(1, Relaxed);
        }
        shared.receive(member);
    }
    holder.free_all();
    member.thread.store(0, SeqCst);
}
