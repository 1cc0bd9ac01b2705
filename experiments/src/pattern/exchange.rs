//! Patterns in which one thread frees what another allocated.

use super::lanes::side_by_side;
use super::object::{Object, Random, Tally};
use super::setting::{Outcome, Setting};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Batches that may wait between a producer and its consumer.
const WAITING: usize = 8;

/// xmalloc: producers and consumers in pairs. The arrays that carry the objects come back to be filled again.
pub fn xmalloc(setting: &Setting) -> Outcome {
    const BATCH: usize = 1000;
    let pairs = (setting.threads / 2).max(1);
    let batches = setting.rounds(6000);
    type End = (SyncSender<Vec<Object>>, Receiver<Vec<Object>>);
    let ends: Vec<Mutex<Option<End>>> = (0..pairs)
        .flat_map(|_| {
            let (full, take) = sync_channel(WAITING);
            let (back, empty) = sync_channel(WAITING + 2);
            (0..WAITING + 2).for_each(|_| drop(back.send(Vec::with_capacity(BATCH))));
            [Mutex::new(Some((full, empty))), Mutex::new(Some((back, take)))]
        })
        .collect();
    side_by_side(pairs * 2, |number| {
        let mut tally = Tally::new(number);
        let mut random = Random::new(setting.seed, number);
        let end = ends[number].lock().ok().and_then(|mut end| end.take());
        let (send, receive) = end.unwrap_or_else(|| super::object::fatal("a thread has no partner"));
        if number % 2 == 0 {
            for _ in 0..batches {
                let Ok(mut batch) = receive.recv() else { break };
                batch.extend((0..BATCH).map(|_| Object::new(32 << random.below(4), &mut tally)));
                drop(send.send(batch)); // a consumer that is gone shows in the sums
            }
        } else {
            while let Ok(mut batch) = receive.recv() {
                batch.drain(..).for_each(|object| object.free(&mut tally));
                drop(send.send(batch)); // the producer may have ended
            }
        }
        tally
    })
    .into()
}

/// mstress: every thread swaps a quarter of its objects against whatever lies in a shared table, keeps a quarter until
/// it ends, and frees the rest soon. Then new threads do the same.
pub fn mstress(setting: &Setting) -> Outcome {
    const TABLE: usize = 1000;
    const OBJECTS: usize = 25_000;
    let table: Vec<AtomicUsize> = (0..TABLE).map(|_| AtomicUsize::new(0)).collect();
    let generations = setting.rounds(100);
    let mut tally = Tally::new(0);
    for generation in 0..generations {
        let sums = side_by_side(setting.threads, |thread| {
            let number = 1 + thread + setting.threads * generation as usize;
            let mut tally = Tally::new(number);
            let mut random = Random::new(setting.seed, number);
            let mut kept = Vec::with_capacity(OBJECTS / 2);
            let mut soon = [Object::NONE; 64];
            for _ in 0..OBJECTS {
                let object = Object::new(stress_size(&mut random), &mut tally);
                match random.below(4) {
                    0 => {
                        // Release hands our writes over, acquire takes those of the object we get.
                        let address = table[random.below(TABLE)].swap(object.address(), AcqRel);
                        Object::at(address).free(&mut tally);
                    }
                    1 => kept.push(object),
                    _ => std::mem::replace(&mut soon[random.below(64)], object).free(&mut tally),
                }
            }
            soon.iter().chain(&kept).for_each(|object| object.free(&mut tally));
            tally
        });
        tally = tally.and(sums);
    }
    table.iter().for_each(|slot| Object::at(slot.swap(0, AcqRel)).free(&mut tally));
    tally.into()
}

/// 90 % up to 512 bytes, 9 % up to 4 KiB, 1 % up to 64 KiB.
fn stress_size(random: &mut Random) -> usize {
    match random.below(100) {
        0 => random.between(4096, 65_536),
        1..10 => random.between(512, 4096),
        _ => random.between(16, 512),
    }
}
