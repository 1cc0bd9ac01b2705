//! A cache of constructed objects: a buffer that is given back keeps its memory, and the next user gets it without the
//! constructor.
//!
//! ```sh
//! cargo run --release --example objects
//! ```

use perseq::objects::{BuildError, ObjectCache};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

fn main() -> Result<(), BuildError> {
    let buffers = ObjectCache::<Vec<u8>>::builder().by_fn(|| Vec::with_capacity(4096)).reset(Vec::clear).build()?;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for request in 0..10_000_u32 {
                    let mut buffer = buffers.get().expect("memory");
                    buffer.extend_from_slice(&request.to_le_bytes());
                } // given back here
            });
        }
    });
    let stats = buffers.stats();
    println!("{} buffers made for {} users", stats.ctor, stats.ctor + stats.ctor_elided);
    Ok(())
}
