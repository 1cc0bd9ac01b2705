//! Traces made up from a fixed seed: the same bytes everywhere. They stand for kinds of programs, not for any program.

use super::format::{Event, Trace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Kinds of programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Each thread serves requests: short-lived objects, a few that stay, some released by another thread.
    Server,
    /// Each thread builds up and throws away at the end of a unit of work.
    Build,
    /// Each thread hands what it made to the next, which releases it.
    Pipeline,
}

impl Kind {
    /// The kind that a definition's parameter means.
    pub fn of(number: u64) -> Result<Kind, String> {
        match number {
            1 => Ok(Kind::Server),
            2 => Ok(Kind::Build),
            3 => Ok(Kind::Pipeline),
            other => Err(format!("trace {other}: expected 1 to 3")),
        }
    }
}

/// Makes a trace of `threads` threads with about `events` events each.
pub fn make(kind: Kind, threads: usize, events: usize) -> Trace {
    let mut random = ChaCha8Rng::seed_from_u64(0x7ace + kind as u64);
    let mut trace = Trace { synthetic: true, objects: 0, threads: vec![Vec::with_capacity(events); threads] };
    match kind {
        Kind::Server => server(&mut trace, &mut random, events),
        Kind::Build => build(&mut trace, &mut random, events),
        Kind::Pipeline => pipeline(&mut trace, &mut random, events),
    }
    trace
}

/// Small sizes are frequent, large ones rare: a power law from 16 to 16 KiB.
fn size(random: &mut ChaCha8Rng) -> u64 {
    let uniform: f64 = random.random_range(0.0..1.0);
    (16.0 * (1.0 - uniform * 0.999).powf(-1.0)).min(16384.0) as u64
}

fn allocate(trace: &mut Trace, thread: usize, size: u64) -> u64 {
    let object = trace.objects;
    trace.objects += 1;
    trace.threads[thread].push(Event::Allocate(object, size));
    object
}

fn server(trace: &mut Trace, random: &mut ChaCha8Rng, events: usize) {
    let threads = trace.threads.len();
    let mut kept: Vec<Vec<u64>> = vec![Vec::new(); threads];
    while trace.threads[0].len() < events {
        for (thread, kept) in kept.iter_mut().enumerate() {
            let objects = random.random_range(4..40);
            let request: Vec<_> = (0..objects).map(|_| allocate(trace, thread, size(random))).collect();
            for object in request.into_iter().rev() {
                match random.random_range(0..100) {
                    0..4 => kept.push(object),
                    // Answered by the neighbour.
                    4..10 => trace.threads[(thread + 1) % threads].push(Event::Free(object)),
                    _ => trace.threads[thread].push(Event::Free(object)),
                }
            }
            while kept.len() > 200 {
                let at = random.random_range(0..kept.len());
                trace.threads[thread].push(Event::Free(kept.swap_remove(at)));
            }
        }
    }
}

fn build(trace: &mut Trace, random: &mut ChaCha8Rng, events: usize) {
    for thread in 0..trace.threads.len() {
        while trace.threads[thread].len() < events {
            let unit: Vec<_> =
                (0..random.random_range(200..1500)).map(|_| allocate(trace, thread, size(random))).collect();
            trace.threads[thread].extend(unit.into_iter().map(Event::Free));
        }
    }
}

fn pipeline(trace: &mut Trace, random: &mut ChaCha8Rng, events: usize) {
    let threads = trace.threads.len();
    while trace.threads[0].len() < events {
        for thread in 0..threads {
            let batch: Vec<_> = (0..16).map(|_| allocate(trace, thread, size(random))).collect();
            trace.threads[(thread + 1) % threads].extend(batch.into_iter().map(Event::Free));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_traces_are_valid_and_the_same_each_time() {
        for kind in [Kind::Server, Kind::Build, Kind::Pipeline] {
            let trace = make(kind, 3, 2000);
            assert_eq!(trace.check(), Ok(()), "{kind:?}");
            assert_eq!(trace, make(kind, 3, 2000));
            assert!(trace.events() >= 2000, "{kind:?}");
        }
    }
}
