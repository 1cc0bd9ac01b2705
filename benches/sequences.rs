//! What a restartable sequence costs, bare: one pop and one push of a one-CPU slab, hot, one thread,
//! beside the same list changed by plain loads and stores, a thread-local stack and an atomic.
//!
//! `cargo bench --bench sequences`

use std::cell::RefCell;
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use rseq::{CpuId, Handle, Index, MmCid, local, sequence};

mod kit;

fn pair_of<I: Index>(handle: Handle) {
    // SAFETY: the handle is for `I`, and the kit's slabs are found by it.
    unsafe {
        loop {
            if let Ok(object) = sequence::pop::<I, { kit::LISTS }>(handle, kit::cell(), kit::LIST)
                && sequence::push::<I, { kit::LISTS }>(handle, kit::cell(), kit::LIST, black_box(object)).is_ok()
            {
                return;
            }
            kit::locate::<I>(handle);
        }
    }
}

fn batch_of<I: Index>(handle: Handle, batch: &mut [*mut u8]) {
    // SAFETY: as in `pair_of`.
    unsafe {
        loop {
            if let Ok(count) = sequence::pop_batch::<I, { kit::LISTS }>(handle, kit::cell(), kit::LIST, batch)
                && sequence::push_batch::<I, { kit::LISTS }>(handle, kit::cell(), kit::LIST, &batch[..count]).is_ok()
            {
                return;
            }
            kit::locate::<I>(handle);
        }
    }
}

fn sequences(criterion: &mut Criterion) {
    kit::pin();
    let mut group = criterion.benchmark_group("pop+push");
    match rseq::probe() {
        Ok(registration) => {
            kit::provide::<CpuId>(registration.handle::<CpuId>());
            let handle = registration.handle::<CpuId>();
            group.bench_function("sequence cpu_id", |b| b.iter(|| pair_of::<CpuId>(handle)));
            let mut batch = [std::ptr::null_mut(); 32];
            group.bench_function("sequence cpu_id, batches of 32", |b| {
                b.iter(|| batch_of::<CpuId>(handle, &mut batch));
            });
            if registration.has_mm_cid() {
                kit::provide::<MmCid>(registration.handle::<MmCid>());
                let handle = registration.handle::<MmCid>();
                group.bench_function("sequence mm_cid", |b| b.iter(|| pair_of::<MmCid>(handle)));
            } else {
                eprintln!("sequence mm_cid: not measured, the kernel gives no mm_cid");
            }
        }
        Err(why) => eprintln!("sequences: not measured, {why}"),
    }

    let slab = kit::slab();
    group.bench_function("plain loads and stores", |b| {
        b.iter(|| {
            let slab = black_box(slab);
            // SAFETY: the slab is this thread's alone.
            unsafe {
                let object = local::pop(slab, kit::LIST).expect("filled");
                assert!(local::push(slab, kit::LIST, black_box(object)));
            }
        });
    });

    thread_local!(static STACK: RefCell<Vec<NonNull<u8>>> = const { RefCell::new(Vec::new()) });
    STACK.with_borrow_mut(|stack| stack.push(NonNull::dangling()));
    group.bench_function("thread-local stack", |b| {
        b.iter(|| STACK.with_borrow_mut(|stack| stack.pop().map(|object| stack.push(black_box(object)))));
    });

    let shared = AtomicUsize::new(0);
    group.bench_function("two atomic additions", |b| {
        b.iter(|| {
            shared.fetch_add(1, Ordering::Relaxed);
            shared.fetch_sub(black_box(1), Ordering::Relaxed);
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = kit::criterion(); targets = sequences);
criterion_main!(benches);
