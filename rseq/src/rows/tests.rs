//! Rows that are held, and those who wait for them.

extern crate std;

use super::*;
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};
use std::{println, thread};

#[path = "../../tests/kit/absence.rs"]
mod absence;

#[test]
fn rows_are_powers_of_two_apart() {
    assert_eq!(Rows::<AtomicU64>::SHIFT, 6);
    assert_eq!(Rows::<[AtomicU64; 8]>::SHIFT, 7);
    assert_eq!(Row::<AtomicU64>::VALUE, 8);
}

#[test]
fn a_held_row_is_held_once_and_comes_back() {
    let rows = Rows::<AtomicU64>::with_count(2).expect("two rows");
    fence::register().expect("membarrier");
    let guard = rows.stop(1).expect("stops");
    assert!(rows.is_stopped(1));
    assert_eq!(rows.stop(1).err(), Some(StopError::Held));
    assert!(rows.is_stopped(1), "still the guard's");
    assert_eq!(rows.stop(2).err(), Some(StopError::NoRow));
    assert_eq!(rows.stop_in_turn(2).err(), Some(StopError::NoRow));
    drop(guard);
    assert!(!rows.is_stopped(1));
    assert!(rows.stop(1).is_ok());
}

#[test]
fn too_many_rows_are_refused() {
    assert_eq!(Rows::<AtomicU64>::with_count(usize::MAX / 2).err(), Some(NoMemory(libc::ENOMEM)));
    assert_eq!(Rows::<AtomicU64>::with_count(usize::MAX).err(), Some(NoMemory(libc::ENOMEM)));
}

/// Additions by a load and a store, which would be lost if two threads ever had the row; and threads that would sleep
/// for ever if a wake were.
#[test]
fn many_wait_for_a_row_and_each_has_it() {
    const THREADS: u64 = 8;
    const TIMES: u64 = 2_000;
    fence::register().expect("membarrier");
    let rows = Rows::<AtomicU64>::with_count(1).expect("two rows");
    let rows = &rows;
    let add = |guard: &AtomicU64, turn: u64| {
        let value = guard.load(Relaxed);
        if turn.is_multiple_of(64) {
            syscall::yield_now(); // while others wait
        }
        guard.store(value + 1, Relaxed);
    };
    within(Duration::from_secs(60), || {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(move || {
                    for turn in 0..TIMES {
                        rows.with_overflow(|row| add(row, turn));
                        add(&rows.stop_in_turn(0).expect("membarrier"), turn);
                    }
                });
            }
        });
    });
    assert_eq!((rows.overflow().load(Relaxed), rows.row(0).value.load(Relaxed)), (THREADS * TIMES, THREADS * TIMES));
    assert!(!rows.is_stopped(0));
}

/// Runs `f`; the process is ended if it takes longer than `limit`.
fn within(limit: Duration, f: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            while !done.load(Relaxed) {
                if begin.elapsed() > limit {
                    println!("not done within {limit:?}");
                    std::process::abort();
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        f();
        done.store(true, Relaxed);
    });
}

#[test]
fn who_waits_for_the_overflow_row_sleeps() {
    sleeps_below_a_real_time_thread(|rows| drop(rows.overflow()));
}

#[test]
fn who_works_on_the_overflow_row_sleeps_before() {
    sleeps_below_a_real_time_thread(|rows| rows.with_overflow(|_| ()));
}

/// With any index, the overflow row's too: what is held is row 0.
#[test]
fn who_stops_a_row_in_turn_sleeps() {
    sleeps_below_a_real_time_thread(|rows| drop(rows.stop_in_turn(0).expect("membarrier")));
}

/// An ordinary thread holds all rows, and needs its CPU to be done with them; on that CPU a SCHED_FIFO thread waits.
/// One that looks again and again, though it yields, keeps the holder from running for as long as the kernel lets it.
fn sleeps_below_a_real_time_thread(wait: fn(&Rows<AtomicU64>)) {
    const WORK: Duration = Duration::from_millis(60);
    fence::register().expect("membarrier");
    let rows = Rows::<AtomicU64>::with_count(1).expect("two rows");
    let (rows, cpu) = (&rows, first_allowed_cpu());
    let (held, waiting) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let waited = thread::scope(|scope| {
        let holder = scope.spawn(move || {
            pin(cpu);
            let guards = (rows.overflow(), rows.stop(0).expect("membarrier"));
            held.store(true, Release);
            while !waiting.load(Acquire) {
                thread::sleep(Duration::from_millis(1));
            }
            let begin = cpu_time();
            while cpu_time() - begin < WORK {}
            drop(guards);
        });
        let waiter = scope.spawn(move || {
            while !held.load(Acquire) {
                thread::sleep(Duration::from_millis(1));
            }
            pin(cpu);
            let allowed = fifo();
            waiting.store(true, Release);
            let begin = cpu_time();
            wait(rows);
            allowed.map(|()| cpu_time() - begin)
        });
        holder.join().expect("no panic");
        waiter.join().expect("no panic")
    });
    match waited {
        Ok(time) => assert!(time < WORK * 5, "it kept its CPU for {time:?} while it waited"),
        Err(why) => absence::not_tested("SCHED_FIFO", "how a thread of real-time priority waits for a row", why),
    }
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to be written.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Gives the calling thread the lowest real-time priority.
fn fifo() -> std::io::Result<()> {
    // The kernel's `sched_param`. Not by libc: musl's function refuses.
    let priority: libc::c_int = 1;
    let policy = (libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK) as usize;
    // SAFETY: the calling thread; `priority` is only read.
    let answer = unsafe { syscall::call(libc::SYS_sched_setscheduler, [0, policy, (&raw const priority) as usize]) };
    answer.map(drop).map_err(std::io::Error::from_raw_os_error)
}

fn first_allowed_cpu() -> usize {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is ours to be written.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) }, 0);
    // SAFETY: the number is within the set.
    (0..libc::CPU_SETSIZE as usize).find(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).expect("a CPU")
}

fn pin(cpu: usize) {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the number is within the set; the calling thread.
    let pinned = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    assert_eq!(pinned, 0, "affinity to CPU {cpu}");
}
