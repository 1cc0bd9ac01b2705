//! Stopping slabs and rows: what is answered, who may use them meanwhile, and that nothing stays stopped.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rseq::slab::make_array;
use rseq::{
    CpuId, Index, Miss, MmCid, Node, PerCpuBuffer, PerCpuList, Registration, Rows, STOPPED, Slab, StopError, Stopping,
    fence, local, sequence,
};

mod kit;

const CAPACITY: usize = 64;

static NO_SLAB: Slab<1> = Slab::new();

rseq::thread_cell! {
    fn cell() -> "stop_test_cell": 1, NO_SLAB
}

/// Slabs of the first `count` indices, with room in them.
fn slabs<I: Index>(count: usize) -> &'static [Slab<1>] {
    let slabs: &'static [Slab<1>] = (0..count).map(|_| Slab::new()).collect::<Vec<_>>().leak();
    for (index, slab) in slabs.iter().enumerate() {
        let memory = NonNull::from(vec![0_usize; CAPACITY + 2].leak()).cast();
        // SAFETY: the slab is new and stays where it is; the array is its own; it is the only one with its index.
        unsafe {
            slab.detach();
            assert!(local::replace(slab, 0, slab.nothing(), make_array(memory, CAPACITY)));
            slab.start::<I>(index as u32);
        }
    }
    slabs
}

fn ids(slabs: &[Slab<1>]) -> Vec<u32> {
    slabs.iter().map(Slab::id).collect()
}

#[test]
fn a_slab_is_held_once_and_comes_back() {
    fence::register().expect("membarrier");
    let slabs = slabs::<CpuId>(1);
    let stopped = slabs[0].stop().expect("stops");
    assert_eq!(slabs[0].id(), STOPPED);
    assert_eq!(slabs[0].stop().err(), Some(StopError::Held));
    assert!(ptr::eq(stopped.slab(), &slabs[0]));
    drop(stopped);
    assert_eq!(slabs[0].id(), 0);
    drop(slabs[0].stop().expect("stops again"));
    assert_eq!(Slab::<1>::new().stop().err(), Some(StopError::Held), "nobody's");
}

#[test]
fn a_set_is_stopped_together_and_started_one_by_one() {
    fence::register().expect("membarrier");
    let slabs = slabs::<MmCid>(4);
    let alone = slabs[1].stop().expect("stops");
    let mut stopping = Stopping::new();
    let answers: Vec<_> = slabs.iter().map(|slab| stopping.add(slab)).collect();
    assert_eq!(answers, [Ok(()), Err(StopError::Held), Ok(()), Ok(())], "what is held is left out");
    assert_eq!(stopping.add(&slabs[0]), Err(StopError::Held), "once only");
    let mut set = stopping.fence().expect("membarrier");
    assert_eq!(ids(slabs), [STOPPED; 4]);
    let first = set.next().expect("three");
    assert!(ptr::eq(first.slab(), &slabs[3]));
    drop(first);
    assert_eq!(ids(slabs), [STOPPED, STOPPED, STOPPED, 3], "its guard is gone");
    drop(set);
    assert_eq!(ids(slabs), [0, STOPPED, 2, 3], "and what nobody asked for as well");
    drop(alone);
    assert_eq!(ids(slabs), [0, 1, 2, 3]);
    assert_eq!(Stopping::<1>::new().fence().expect("no slabs need no fence").count(), 0);
}

/// Panics are the harness's to catch: the crate is built to unwind in tests.
#[test]
fn a_panic_leaves_nothing_stopped() {
    fence::register().expect("membarrier");
    let slabs = slabs::<CpuId>(3);
    let before_the_fence = || {
        let mut stopping = Stopping::new();
        slabs.iter().for_each(|slab| stopping.add(slab).expect("stops"));
        panic!("expected, before the fence");
    };
    assert!(catch_unwind(AssertUnwindSafe(before_the_fence)).is_err());
    assert_eq!(ids(slabs), [0, 1, 2]);
    let while_stopped = || {
        let mut stopping = Stopping::new();
        slabs.iter().for_each(|slab| stopping.add(slab).expect("stops"));
        for stopped in stopping.fence().expect("membarrier") {
            stopped.pop_batch(1, &mut []); // there is no list 1
        }
    };
    assert!(catch_unwind(AssertUnwindSafe(while_stopped)).is_err());
    assert_eq!(ids(slabs), [0, 1, 2]);
}

#[test]
fn a_refused_fence_leaves_everything_as_it_was() {
    fence::register().expect("membarrier");
    let (slabs, rows) = (slabs::<CpuId>(3), Rows::<AtomicU64>::with_count(2).expect("rows"));
    // A filter is a thread's.
    let answers = std::thread::scope(|scope| {
        let refused = || {
            kit::refuse(libc::SYS_membarrier, libc::EPERM).expect("filters are allowed");
            // SAFETY: errno is this thread's.
            unsafe { *libc::__errno_location() = 77 };
            let mut stopping = Stopping::new();
            slabs.iter().for_each(|slab| stopping.add(slab).expect("no system call yet"));
            let answers = [
                slabs_fence(stopping),
                slabs[0].stop().err(),
                rows.stop(1).err(),
                fence::register().err().map(StopError::Fence),
            ];
            // SAFETY: as above.
            assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is the caller's");
            // Structures made where fences are refused do without sequences.
            let counter = rseq::PerCpuCounter::<CpuId>::new().expect("address space");
            counter.add(3);
            assert_eq!((counter.is_per_cpu(), counter.sum()), (false, 3));
            answers
        };
        scope.spawn(refused).join().expect("no panic")
    });
    assert_eq!(answers, [Some(StopError::Fence(libc::EPERM)); 4]);
    assert_eq!(StopError::Fence(libc::EPERM).to_string().lines().count(), 1);
    assert_eq!(ids(slabs), [0, 1, 2]);
    assert!(!rows.is_stopped(1));
    assert!(rows.stop(1).is_ok() && slabs[0].stop().is_ok());
}

/// A filter that is set when everything has been made: who drains is told, and nothing is lost.
#[test]
fn drains_say_that_fences_are_refused_later() {
    if rseq::probe().is_err() {
        return kit::not_tested("rseq", "stopping a slab", "the kernel has none");
    }
    for errno in [libc::EPERM, libc::ENOMEM] {
        let events = PerCpuBuffer::<64>::new().expect("address space");
        let mut nodes = [Node::new(1), Node::new(2), Node::new(4)];
        let list = PerCpuList::<u64>::new().expect("address space");
        assert!(events.is_per_cpu() && list.is_per_cpu());
        nodes.iter_mut().for_each(|node| list.push(node));
        (0..3).for_each(|event| events.append(1 << event).expect("room"));
        // A filter is a thread's.
        std::thread::scope(|scope| {
            let drain = || {
                kit::refuse(libc::SYS_membarrier, errno).expect("filters are allowed");
                let mut seen = 0;
                assert_eq!(events.drain(|event| seen += event), Err(StopError::Fence(errno)));
                assert_eq!(list.drain(|node| seen += node.value), Err(StopError::Fence(errno)));
                assert_eq!(seen, 0);
                let full = events.lengths().position(|length| length > 0).expect("three events");
                assert_eq!(events.take_from(full, &mut [0; 8]), Err(StopError::Fence(errno)));
            };
            scope.spawn(drain).join().expect("no panic");
        });
        let (mut sum, mut nodes) = (0, 0);
        assert_eq!(events.drain(|event| sum += event), Ok(()));
        assert_eq!(list.drain(|node| nodes += node.value), Ok(()));
        assert_eq!((sum, nodes), (7, 7));
    }
}

fn slabs_fence(stopping: Stopping<'_, 1>) -> Option<StopError> {
    stopping.fence().err()
}

/// Threads pass tokens through their index's slab while another takes all slabs together.
fn a_set_is_exclusive<I: Index>(found: Registration) {
    fence::register().expect("membarrier");
    let slabs = slabs::<I>(rseq::kernel::possible_cpus().min(64));
    let handle = found.handle::<I>();
    let stop = AtomicBool::new(false);
    const EACH: usize = 8;
    let token = |number: usize| NonNull::new(ptr::without_provenance_mut::<u8>(16 * (number + 1))).expect("not null");
    let work = |thread: usize| {
        let mut hand: Vec<usize> = (0..EACH).map(|number| EACH * thread + number).collect();
        found.ensure_thread().expect("registers");
        while !stop.load(Relaxed) {
            // SAFETY: the handle is of index `I`; the cell names one of the slabs or none.
            let moved = unsafe {
                let pushed = match hand.pop() {
                    None => Ok(()),
                    Some(number) => {
                        sequence::push::<I, 1>(handle, cell(), 0, token(number)).inspect_err(|_| hand.push(number))
                    }
                };
                let popped =
                    sequence::pop::<I, 1>(handle, cell(), 0).map(|object| hand.push(object.as_ptr() as usize / 16 - 1));
                pushed == Err(Miss::Moved) || popped == Err(Miss::Moved)
            };
            if moved {
                // SAFETY: the handle is of index `I`.
                let index = unsafe { handle.index::<I>() };
                cell().set(slabs.get(index as usize).unwrap_or(&NO_SLAB));
            }
        }
        kit::check_kernel_fields(&found);
        hand
    };
    let mut all = Vec::new();
    let threads = 6;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        for _ in 0..100 {
            let mut stopping = Stopping::new();
            slabs.iter().for_each(|slab| stopping.add(slab).expect("nobody else stops"));
            let mut objects = [ptr::null_mut(); CAPACITY];
            for stopped in stopping.fence().expect("membarrier") {
                let count = stopped.pop_batch(0, &mut objects);
                all.extend(objects[..count].iter().map(|&object| object as usize / 16 - 1));
            }
            std::thread::yield_now();
        }
        stop.store(true, Relaxed);
        workers.into_iter().for_each(|worker| all.extend(worker.join().expect("no panic")));
    });
    for slab in slabs {
        let mut objects = [ptr::null_mut(); CAPACITY];
        let count = slab.stop().expect("stops").pop_batch(0, &mut objects);
        all.extend(objects[..count].iter().map(|&object| object as usize / 16 - 1));
    }
    assert_eq!(all.len(), EACH * threads, "every token once");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (0..EACH * threads).collect());
}

#[test]
fn sets_are_exclusive_by_cpu_id() {
    match rseq::probe() {
        Ok(found) => a_set_is_exclusive::<CpuId>(found),
        Err(why) => kit::not_tested("rseq", "sets of stopped slabs", why),
    }
}

#[test]
fn sets_are_exclusive_by_mm_cid() {
    match rseq::probe() {
        Ok(found) if found.has_mm_cid() => a_set_is_exclusive::<MmCid>(found),
        other => kit::not_tested("mm-cid", "sets of stopped slabs", format_args!("{other:?}")),
    }
}

/// An index beyond what was reserved is no address: its threads go another way.
#[test]
fn an_index_beyond_the_rows_has_none() {
    let found = match rseq::probe() {
        Ok(found) => found,
        Err(why) => return kit::not_tested("rseq", "indices beyond the rows", why),
    };
    let word = rseq::rows::Row::<AtomicU64>::VALUE;
    for cpu in kit::allowed_cpus() {
        if !kit::pin(0, cpu) {
            continue; // offline by now
        }
        for (count, fits) in [(0, false), (cpu, false), (cpu + 1, true)] {
            let rows = Rows::<AtomicU64>::with_count(count).expect("rows");
            // SAFETY: the handle is of the rows' index; the word is a number.
            let answer = unsafe { sequence::add(found.handle::<CpuId>(), &rows, word, 5) };
            assert_eq!(answer, if fits { Ok(()) } else { Err(Miss::Moved) }, "CPU {cpu} of {count}");
            assert_eq!(rows.values().map(|row| row.load(Relaxed)).sum::<u64>(), if fits { 5 } else { 0 });
            assert_eq!(rows.stop(count).err(), Some(StopError::NoRow));
        }
    }
    kit::check_kernel_fields(&found);
}
