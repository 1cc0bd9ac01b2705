//! What a caller pays: allocate and free through the front door, inlined, one thread, in each mode, beside
//! the system allocator and the bare sequences.
//!
//! The mode is the process's, so the benchmark runs itself once per mode. `cargo bench --bench front_door`

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use perseq::{Mode, Perseq};
use rseq::{CpuId, Handle, sequence};

mod kit;

use kit::estimate::Estimate;

static PERSEQ: Perseq = Perseq::new();

fn main() {
    if std::env::var_os("PERSEQ_MODE").is_some() {
        let mut criterion = kit::criterion().configure_from_args();
        kit::pin();
        measure(&mut criterion);
        criterion.final_summary();
        return;
    }
    let program = std::env::current_exe().expect("the path of this program");
    for mode in Mode::ALL {
        let status = std::process::Command::new(&program)
            .args(std::env::args_os().skip(1))
            .env("PERSEQ_MODE", mode.name())
            .status()
            .expect("this program starts again");
        assert!(status.success(), "{mode}: {status}");
    }
}

fn measure(criterion: &mut Criterion) {
    let mode = perseq::active_mode();
    if mode.active != mode.requested {
        eprintln!("{}: not measured, {} is active: {}", mode.requested, mode.active, mode.reason);
        return;
    }
    let mut group = criterion.benchmark_group(mode.active.name());
    let bare = (mode.active == Mode::PerCpu).then(|| {
        let handle = rseq::probe().expect("active").handle::<CpuId>();
        kit::provide::<CpuId>(handle);
        handle
    });
    if let Some(handle) = bare {
        group.bench_function("bare pop+push", |b| b.iter(|| bare_pair(handle)));
    }
    pairs::<64>(&mut group, "perseq", &PERSEQ);
    pairs::<64>(&mut group, "system", &System);
    pairs::<1024>(&mut group, "perseq", &PERSEQ);
    pairs::<1024>(&mut group, "system", &System);
    batches(&mut group, "perseq", &PERSEQ);
    batches(&mut group, "system", &System);
    group.finish();
    if let Some(handle) = bare {
        tax(handle);
    }
}

/// One pop and one push of a slab of this program's own.
#[inline(always)]
fn bare_pair(handle: Handle) {
    // SAFETY: the handle is for CpuId, and the kit's slabs are found by it.
    unsafe {
        match sequence::pop::<CpuId, { kit::LISTS }>(handle, kit::cell(), kit::LIST) {
            Ok(object) => {
                let _ = sequence::push::<CpuId, { kit::LISTS }>(handle, kit::cell(), kit::LIST, black_box(object));
            }
            Err(_) => kit::locate::<CpuId>(handle),
        }
    }
}

/// One allocation of 64 bytes and its release.
#[inline(always)]
fn front_door_pair() {
    const LAYOUT: Layout = layout(64);
    // SAFETY: the layout is not empty, and what was allocated is freed with it.
    unsafe {
        let object = black_box(PERSEQ.alloc(LAYOUT));
        PERSEQ.dealloc(object, LAYOUT);
    }
}

/// What the front door adds to the bare sequences: both in turn, round by round, as the median of the rounds'
/// ratios with its 95 % interval by order statistics.
fn tax(handle: Handle) {
    const ROUNDS: usize = 401;
    const PAIRS: u32 = 100_000;
    fn timed(pair: impl Fn()) -> f64 {
        let start = Instant::now();
        (0..PAIRS).for_each(|_| pair());
        start.elapsed().as_secs_f64() / f64::from(PAIRS) * 1e9
    }
    let mut ratios = Vec::with_capacity(ROUNDS);
    let (mut bare, mut front) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        bare.push(timed(|| bare_pair(handle)));
        front.push(timed(front_door_pair));
        ratios.push(front[front.len() - 1] / bare[bare.len() - 1]);
    }
    let [ratio, bare, front] = [ratios, bare, front].map(Estimate::of);
    println!(
        "percpu 64 B pair: front door {:.2} ns, bare {:.2} ns, ratio {ratio:.3}, {ROUNDS} rounds in turn",
        front.middle, bare.middle
    );
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Allocate and free at once: one object, the newest of its list each time.
fn pairs<const SIZE: usize>(group: &mut Group<'_>, name: &str, allocator: &'static impl GlobalAlloc) {
    let layout = const { layout(SIZE) };
    group.bench_function(format!("{name} {SIZE} B pair"), |b| {
        b.iter(|| {
            // SAFETY: the layout is not empty, and what was allocated is freed with it.
            unsafe {
                let object = black_box(allocator.alloc(layout));
                allocator.dealloc(object, layout);
            }
        });
    });
}

/// Allocate a thousand, then free them in the order they came: every tier takes part.
fn batches(group: &mut Group<'_>, name: &str, allocator: &'static impl GlobalAlloc) {
    let layout = const { layout(64) };
    let mut objects = vec![std::ptr::null_mut(); 1000];
    group.throughput(criterion::Throughput::Elements(1000));
    group.bench_function(format!("{name} 64 B x 1000, then free"), |b| {
        b.iter(|| {
            // SAFETY: as in `pairs`.
            unsafe {
                objects.iter_mut().for_each(|object| *object = allocator.alloc(layout));
                black_box(&objects);
                objects.iter().for_each(|object| allocator.dealloc(*object, layout));
            }
        });
    });
}

/// Constant, so that its size class is too.
const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a size that is no layout's"),
    }
}
