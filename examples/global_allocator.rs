//! perseq as the allocator of a Rust program.
//!
//! ```sh
//! cargo run --release --example global_allocator
//! PERSEQ_MODE=perthread cargo run --release --example global_allocator
//! ```

use std::collections::BTreeMap;
use std::thread;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

fn main() {
    // What a program allocates, it allocates from perseq now; what one thread made another may drop.
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            thread::spawn(move || (0..10_000).map(|n| (n, format!("{worker}.{n}"))).collect::<BTreeMap<_, _>>())
        })
        .collect();
    let maps: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
    println!("{} strings", maps.iter().map(BTreeMap::len).sum::<usize>());
    drop(maps);
    // The mode that runs, and why if it is not the one that was asked for.
    println!("{}", perseq::active_mode());
}
