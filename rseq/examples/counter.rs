//! Counts events of many threads without a shared cache line.
//!
//! `cargo run -p perseq-rseq --release --example counter`

use std::time::Instant;

use rseq::{Availability, PerCpuCounter};

fn main() {
    println!("{}", Availability::get());
    let counter = PerCpuCounter::<rseq::CpuId>::new().expect("address space");
    let threads = 4;
    let each = 1_000_000_u64;
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..each).for_each(|_| counter.add(1)));
        }
    });
    let time = started.elapsed();
    assert_eq!(counter.sum(), threads * each);
    let how = if counter.is_per_cpu() { "in sequences" } else { "under a lock" };
    println!("{} additions {how} in {time:?}", counter.sum());
}
