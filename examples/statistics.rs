//! What the allocator says about itself, and what a program may tell it while it runs.
//!
//! ```sh
//! cargo run --release --example statistics
//! PERSEQ_STATS=text cargo run --release --example global_allocator    # the same at the end of any program
//! ```

use perseq::{Limits, ReleasePolicy};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

fn main() {
    perseq::set_limits(Limits { soft: Some(256 << 20), hard: Some(1 << 30) });
    perseq::set_release(ReleasePolicy::After(std::time::Duration::from_millis(500)));

    let strings: Vec<String> = (0..200_000).map(|n| n.to_string()).collect();
    let full = perseq::stats();
    drop(strings);
    let empty = perseq::stats();
    println!("in use: {} bytes, then {}", full.live_small_bytes, empty.live_small_bytes);
    println!("held:   {} bytes, then {}", full.held_bytes, empty.held_bytes);
    println!("{} bytes go back to the kernel", perseq::release());

    perseq::for_each_cache(&mut |cache| println!("cache of {}: {} objects", cache.owner, cache.cached_objects));
    let mut json = String::new();
    perseq::write_json(&mut json).expect("a string takes it");
    println!("all of it as JSON: {} characters", json.len());
}
