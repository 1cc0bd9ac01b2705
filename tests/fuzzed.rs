//! What libFuzzer found worth keeping (`tests/fuzz/run.sh`), played again; and the faults that it must show.

use std::panic::catch_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use play::{Fault, Played, play};

#[path = "fuzz/src/play.rs"]
mod play;

/// The inputs of `tests/fuzz/seeds`, one a line, in hexadecimal digits.
fn seeds() -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("tests/fuzz/seeds: {pair} is no byte"))
    };
    include_str!("fuzz/seeds").lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// Inputs that nobody chose: longer than those kept, and the same each time.
fn made_up(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 1_u64;
    (0..count).map(move |_| {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        };
        let length = 50 + 4 * usize::from(next());
        (0..length).map(|_| next()).collect()
    })
}

/// What `work` returns; a failure if that takes longer than two minutes.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || send.send(work()));
    match receive.recv_timeout(Duration::from_secs(120)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it takes longer than two minutes"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().expect_err("a panic")),
    }
}

fn all(inputs: impl Iterator<Item = Vec<u8>>) -> Played {
    inputs.fold(Played::default(), |sum, input| {
        let played = play(&input, None);
        Played {
            allocated: sum.allocated + played.allocated,
            refused: sum.refused + played.refused,
            resized: sum.resized + played.resized,
            freed: sum.freed + played.freed,
            released_bytes: sum.released_bytes + played.released_bytes,
        }
    })
}

/// A row of inputs that misses a kind of outcome would prove little of it.
fn reaches_all(played: Played) {
    let Played { allocated, refused, resized, freed, released_bytes } = played;
    assert!(allocated > 1000 && refused > 20 && resized > 20 && released_bytes > 1 << 20, "{played:?}");
    assert_eq!(freed, allocated, "each block is freed once");
}

#[test]
fn what_was_kept_finds_nothing() {
    reaches_all(in_time(|| all(seeds().into_iter())));
}

#[test]
fn what_nobody_chose_finds_nothing() {
    reaches_all(in_time(|| all(made_up(100))));
}

#[test]
fn what_was_kept_shows_each_planted_fault() {
    for (fault, words) in [
        (Fault::Twice, "overlaps"),
        (Fault::Shrunk, "are not"),
        (Fault::Dirty, "are not 0"),
        (Fault::Lost, "bytes are held"),
    ] {
        let shows = in_time(move || {
            seeds().iter().any(|input| {
                let Err(why) = catch_unwind(|| play(input, Some(fault))) else { return false };
                why.downcast_ref::<String>().is_some_and(|why| why.contains(words))
            })
        });
        assert!(shows, "no seed shows {fault:?}");
    }
    assert_eq!(Fault::named("shrunk"), Some(Fault::Shrunk));
    assert_eq!(Fault::named("none"), None);
}
