//! What a restartable sequence costs, bare: pops and pushes of one CPU's lists, hot, one thread, beside the same lists changed by
//! plain loads and stores, and beside other ways to make such a sequence (`candidates/README.md`).
//!
//! `cargo bench --bench sequences` prints absolute times by criterion, and then a comparison round by round, in core cycles.
//! `GLIBC_TUNABLES=glibc.pthread.rseq=0` in front of it measures with an area of our own.

use std::time::{Duration, Instant};

use rseq::{CpuId, Handle, Index, MmCid, sequence};

mod candidates;
mod kit;

use candidates::patterns::Pattern;
use candidates::{check, compare};

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let mut criterion = kit::criterion().measurement_time(Duration::from_secs(1)).configure_from_args();
    let registration = match rseq::probe() {
        Ok(registration) => registration,
        Err(why) => return println!("sequences: not measured, {why}"),
    };
    println!("{}", rseq::Availability::get());
    let cpus = check::allowed_cpus();
    kit::pin();
    let storm = check::Storm { time: Duration::from_millis(if test { 20 } else { 300 }), cpus: &cpus };
    let entries = candidates::all(&registration, storm);
    for pattern in Pattern::ALL {
        let mut group = criterion.benchmark_group(pattern.name());
        group.throughput(criterion::Throughput::Elements(u64::from(pattern.operations())));
        for entry in &entries {
            group.bench_function(entry.name, |b| {
                b.iter_custom(|repetitions| {
                    (entry.prepare)();
                    let started = Instant::now();
                    (entry.run)(pattern, 0, repetitions);
                    started.elapsed()
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("pop and push of a batch of 32");
    batches::<CpuId>(&mut group, "cpu_id", registration.handle::<CpuId>());
    if registration.has_mm_cid() {
        batches::<MmCid>(&mut group, "mm_cid", registration.handle::<MmCid>());
    } else {
        println!("mm_cid: not measured, the kernel gives none");
    }
    group.finish();
    criterion.final_summary();
    compare::compare(&entries, if test { 9 } else { 2001 });
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn batches<I: Index>(group: &mut Group<'_>, name: &str, handle: Handle) {
    kit::provide::<I>(handle);
    let mut batch = [std::ptr::null_mut(); 32];
    group.bench_function(name, |b| b.iter(|| batch_of::<I>(handle, &mut batch)));
}

fn batch_of<I: Index>(handle: Handle, batch: &mut [*mut u8]) {
    // SAFETY: the handle is for `I`, and the kit's slabs are found by it.
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
