//! A tracer: threads write events down where they are, somebody collects them now and then.
//!
//! `cargo run -p perseq-rseq --release --example buffer`

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rseq::PerCpuBuffer;

fn main() {
    let events = PerCpuBuffer::<256>::new().expect("address space");
    let (threads, each) = (4_u64, 10_000_u64);
    let done = AtomicBool::new(false);
    let (mut collected, mut waits) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let events = &events;
                scope.spawn(move || {
                    let mut waits = 0;
                    for event in 0..each {
                        while events.append(thread << 32 | event).is_err() {
                            waits += 1; // full here: let the collector run
                            std::thread::yield_now();
                        }
                    }
                    waits
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while !done.load(Relaxed) {
                events.drain(|_| collected += 1).expect("membarrier");
            }
            collected
        });
        for writer in writers {
            waits += writer.join().expect("no panic");
        }
        done.store(true, Relaxed);
        collected += collector.join().expect("no panic");
    });
    events.drain(|_| collected += 1).expect("membarrier");
    assert_eq!(collected, threads * each);
    println!("{collected} events collected, a full buffer was met {waits} times");
}
