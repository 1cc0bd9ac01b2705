//! What a cache of constructed objects saves, and what it costs: objects that own buffers and a lock, built each time and
//! cached; and memory that needs no constructor, where the cache is all there is. `cargo bench --bench objects`
//!
//! The last lines say how many constructions the cache saved.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashMap;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::Mutex;

use perseq::objects::{Construct, ObjectCache};

mod kit;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

/// What a server might keep for a connection.
struct Session {
    input: Vec<u8>,
    headers: HashMap<u32, u32>,
    state: Mutex<Vec<u64>>,
}

impl Session {
    fn new() -> Session {
        Session { input: vec![0; 4096], headers: HashMap::with_capacity(32), state: Mutex::new(Vec::with_capacity(64)) }
    }

    /// A little work, which leaves nothing that the next user would see.
    fn work(&mut self) {
        self.input[17] = 1;
        self.headers.insert(1, 2);
        self.state.get_mut().expect("not poisoned").push(3);
        black_box(&mut *self);
    }

    fn reset(&mut self) {
        self.headers.clear();
        self.state.get_mut().expect("not poisoned").clear();
    }
}

fn main() {
    let mut criterion = kit::criterion().configure_from_args();
    kit::pin();
    let mut group = criterion.benchmark_group("objects");
    group.bench_function("session, built each time", |b| b.iter(|| black_box(Box::new(Session::new())).work()));
    let sessions = ObjectCache::<Session>::builder().by_fn(Session::new).reset(Session::reset);
    let sessions = sessions.build().expect("memory");
    group.bench_function("session, cached", |b| b.iter(|| sessions.get().expect("memory").work()));
    let locked = ObjectCache::<Session>::builder().by_fn(Session::new).reset(Session::reset).per_cpu(0);
    let locked = locked.build().expect("memory");
    group.bench_function("session, cached behind one lock", |b| b.iter(|| locked.get().expect("memory").work()));

    let layout = Layout::new::<[u64; 8]>();
    group.bench_function("64 B, allocated", |b| {
        b.iter(|| {
            // SAFETY: the layout is not empty, and the block is freed with it.
            unsafe {
                let block = black_box(ALLOCATOR.alloc(layout));
                ALLOCATOR.dealloc(block, layout);
            }
        });
    });
    let memory = ObjectCache::<MaybeUninit<[u64; 8]>>::builder().uninit().build().expect("memory");
    group.bench_function("64 B, cached", |b| b.iter(|| drop(black_box(memory.get()))));
    group.finish();
    criterion.final_summary();
    report("session, cached", &sessions);
    report("session, cached behind one lock", &locked);
    report("64 B, cached", &memory);
}

fn report<T, C: Construct<T>>(name: &str, cache: &ObjectCache<T, C>) {
    let stats = cache.stats();
    println!("{name}: {} constructions, {} elided; per CPU: {}", stats.ctor, stats.ctor_elided, cache.is_per_cpu());
}
