//! Memory goes back without being asked for, and stays within limits.

mod kit;

use std::alloc::{alloc, dealloc};
use std::time::{Duration, Instant};

use kit::object::{Object, layout};
use kit::{Child, in_every_mode, resident_bytes};
use perseq::{Limits, Mode, ReleasePolicy, stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const MIB: usize = 1 << 20;

fn blocks(count: usize, size: usize) -> Vec<Object> {
    (0..count).map(|name| Object::new(layout(size, 8), name as u64)).collect()
}

/// Work that reaches slow paths, and frees what it takes.
fn work() {
    Object::new(layout(100_000, 8), 1).free();
}

/// Waits until `done`, doing `meanwhile`; false after a time no period takes.
fn wait_until(done: impl Fn() -> bool, meanwhile: impl Fn()) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        meanwhile();
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// What nobody used for a period goes back, from the slow paths of whoever is there; what is used in turn does not.
#[test]
fn what_stayed_free_goes_back() {
    in_every_mode("what_stayed_free_goes_back", || {
        const PERIOD: Duration = Duration::from_millis(150);
        perseq::set_release(ReleasePolicy::After(PERIOD));
        perseq::release();
        let before = resident_bytes();
        let start = Instant::now();
        blocks(100, MIB).into_iter().for_each(Object::free);
        let kept = stats();
        if start.elapsed() < PERIOD {
            assert!(kept.free_page_bytes >= 99 * MIB as u64, "nothing goes back before its time: {kept:?}");
        } else {
            kit::not_tested("quiet-host", "nothing goes back before its time", "we were stopped for a period");
        }
        let least = || stats().free_page_bytes <= MIB as u64;
        assert!(wait_until(least, work), "after periods without use: {:?}", stats());
        assert!(resident_bytes() < before + 8 * MIB as u64, "{before} before, {} now", resident_bytes());
        let returned = stats().returned_bytes;
        // In use in turn: never free for a period, so it stays, however long it goes on.
        let start = Instant::now();
        let mut longest = Duration::ZERO;
        while start.elapsed() < 4 * PERIOD {
            let turn = Instant::now();
            blocks(20, MIB).into_iter().for_each(Object::free);
            longest = longest.max(turn.elapsed());
        }
        let went = stats().returned_bytes - returned;
        if longest * 2 > PERIOD {
            kit::not_tested("quiet-host", "what is used in turn stays", format_args!("a turn took {longest:?}"));
        } else {
            assert!(went <= 2 * MIB as u64, "{went} bytes in use went back: {:?}", stats());
        }
    });
}

#[test]
fn at_once_or_never() {
    in_every_mode("at_once_or_never", || {
        perseq::set_release(ReleasePolicy::Now);
        blocks(100, MIB).into_iter().for_each(Object::free);
        work();
        assert_eq!(stats().free_page_bytes, 0, "{:?}", stats());
        // Tables that the last release needs for what caches hold are not made of the pages that it counts.
        perseq::release();
        perseq::set_release(ReleasePolicy::Never);
        let before = stats().returned_bytes;
        blocks(100, MIB).into_iter().for_each(Object::free);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            work();
        }
        assert_eq!(stats().returned_bytes, before);
        assert!(perseq::release() >= 100 * MIB);
        assert_eq!(stats().free_page_bytes, 0, "{:?}", stats());
    });
}

/// The environment says the same, and one wrong value ends the process.
#[test]
fn said_by_the_environment() {
    if let Some(role) = kit::role() {
        blocks(50, MIB).into_iter().for_each(Object::free);
        work();
        let free = stats().free_page_bytes;
        match role.as_str() {
            "now" => assert_eq!(free, 0),
            "limits" => {
                let limits = perseq::limits();
                assert_eq!(limits, Limits { soft: Some(64 << 20), hard: Some(1 << 30) });
            }
            _ => assert!(free >= 49 * MIB as u64, "{free}"),
        }
        return;
    }
    let child = |role| Child::of("said_by_the_environment", role).mode(Mode::PerCpu);
    child("now").env("PERSEQ_RELEASE", "now").run().passed();
    child("never").env("PERSEQ_RELEASE", "never").run().passed();
    child("huge pages").env("PERSEQ_THP", "always").run().passed();
    child("no huge pages").env("PERSEQ_THP", "never").run().passed();
    child("limits").env("PERSEQ_SOFT_LIMIT", "64M").env("PERSEQ_HARD_LIMIT", "1G").run().passed();
    for (name, bad) in [
        ("PERSEQ_RELEASE", "soon"),
        ("PERSEQ_RELEASE", "0"),
        ("PERSEQ_RELEASE", "-1"),
        ("PERSEQ_BACKGROUND", "yes"),
        ("PERSEQ_SOFT_LIMIT", "0"),
        ("PERSEQ_HARD_LIMIT", "much"),
        ("PERSEQ_HARD_LIMIT", "1K"),
        ("PERSEQ_HARD_LIMIT", "1023K"),
        ("PERSEQ_HARD_LIMIT", "0%"),
        ("PERSEQ_SOFT_LIMIT", "101%"),
        ("PERSEQ_THP", "sometimes"),
    ] {
        child("refused").env(name, bad).run().aborted_saying(&format!("{name}={bad}: expected"));
    }
}

fn threads_called(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let called = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.filter_map(Result::ok).filter(called).count()
}

/// Also where all that is free would do if it were in one place.
#[test]
fn failing_calls_are_cheap_in_pieces() {
    in_every_mode("failing_calls_are_cheap_in_pieces", || {
        perseq::release();
        perseq::set_release(ReleasePolicy::Never);
        let comb = blocks(128, MIB);
        let (teeth, gaps): (Vec<_>, Vec<_>) = comb.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        gaps.into_iter().for_each(|(_, object)| object.free());
        let hard = stats().held_bytes as usize;
        perseq::set_limits(Limits { soft: None, hard: Some(hard) });
        let huge = layout(stats().reserved_bytes as usize, 8);
        // SAFETY: the size is not 0.
        let failing = || assert!(std::hint::black_box(unsafe { alloc(huge) }).is_null());
        failing();
        let before = stats().returned_bytes;
        for _ in 0..200 {
            Object::new(layout(MIB, 8), 1).free();
            failing();
        }
        let went = stats().returned_bytes - before;
        assert_eq!(went, 0, "more than there is was asked for: nothing can help");
        perseq::set_limits(Limits::default());
        teeth.into_iter().for_each(|(_, object)| object.free());
    });
}

/// A process that does nothing at all gives memory back if it has the thread, in a child as well; then the thread ends.
#[test]
fn background_thread() {
    const NAME: &str = "perseq-release";
    in_every_mode("background_thread", || {
        perseq::set_release(ReleasePolicy::After(Duration::from_millis(50)));
        perseq::set_background(true);
        let idle_release = || {
            blocks(100, MIB).into_iter().for_each(Object::free);
            assert!(wait_until(|| stats().free_page_bytes == 0, || {}), "{:?}", stats());
            assert!(wait_until(|| threads_called(NAME) == 0, || {}), "the thread ends when it has nothing to do");
        };
        idle_release();
        let keep = blocks(20, MIB);
        // Forked while the thread lives: the child has none until it starts its own.
        blocks(100, MIB).into_iter().for_each(Object::free);
        let child = kit::fork(60, || {
            idle_release(); // the count of threads is the child's
        });
        kit::reap(child);
        keep.into_iter().for_each(Object::free);
        idle_release();
    });
}

/// The thread does not keep a process alive whose main thread has ended.
#[test]
fn background_thread_lets_the_process_end() {
    if kit::role().is_none() {
        let outcome = Child::of("background_thread_lets_the_process_end", "main thread").mode(Mode::PerCpu).run();
        return drop(outcome.passed());
    }
    let child = kit::fork(60, || {
        perseq::set_release(ReleasePolicy::After(Duration::from_millis(50)));
        perseq::set_background(true);
        blocks(10, MIB).into_iter().for_each(Object::free);
        // SAFETY: ends the forked child's only other thread; what is on its stack is not needed again.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    kit::reap(child); // or its alarm ends it, which `reap` does not accept
}

/// Above the soft limit, what is free goes back before more is taken: churn of many sizes stays near it.
#[test]
fn soft_limit() {
    in_every_mode("soft_limit", || {
        perseq::set_release(ReleasePolicy::Never);
        perseq::release();
        let soft = stats().held_bytes as usize + 48 * MIB;
        perseq::set_limits(Limits { soft: Some(soft), hard: None });
        assert_eq!(perseq::limits(), Limits { soft: Some(soft), hard: None });
        for round in 0..30 {
            // 32 MiB live, of a size that does not fit into what the round before left.
            let size = MIB + round * 72 * 1024;
            let held = blocks(32 * MIB / size, size);
            let now = stats();
            assert!(now.held_bytes <= soft as u64, "round {round}: {soft} allowed, {now:?}");
            held.into_iter().for_each(Object::free);
        }
        // What is needed is had, limit or not.
        let held = blocks(100, MIB);
        assert!(stats().held_bytes > soft as u64);
        held.into_iter().for_each(Object::free);
    });
}

/// Beyond the hard limit, allocation fails, and what is held never exceeds it; freed memory can be had again.
#[test]
fn hard_limit() {
    in_every_mode("hard_limit", || {
        perseq::release();
        let hard = stats().held_bytes as usize + 40 * MIB;
        let mut held: Vec<(*mut u8, usize)> = Vec::with_capacity(1 << 17);
        perseq::set_limits(Limits { soft: None, hard: Some(hard) });
        for size in [700, 9000, 50_000, 3 * MIB, 33 * MIB] {
            loop {
                // SAFETY: the size is not 0.
                let block = unsafe { alloc(layout(size, 8)) };
                if block.is_null() {
                    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM));
                    break;
                }
                // SAFETY: ours, of this size.
                unsafe { block.write_bytes(0xa5, size) };
                held.push((block, size));
            }
            let bytes: usize = held.iter().map(|(_, size)| size).sum();
            let now = stats();
            assert!(now.held_bytes <= hard as u64, "{size}: {hard} allowed, {now:?}");
            assert!(bytes >= 30 * MIB, "{size}: only {bytes} bytes could be had: {now:?}");
            for (block, size) in held.drain(..) {
                // SAFETY: allocated above with this layout.
                unsafe { dealloc(block, layout(size, 8)) };
            }
        }
        perseq::set_limits(Limits::default());
        blocks(100, MIB).into_iter().for_each(Object::free);
    });
}

/// A program that goes on asking for what it cannot have does not have everything drained and given back each time.
#[test]
fn failing_calls_are_cheap() {
    in_every_mode("failing_calls_are_cheap", || {
        perseq::release();
        perseq::set_release(ReleasePolicy::Never);
        let hard = stats().held_bytes as usize + 64 * MIB;
        perseq::set_limits(Limits { soft: None, hard: Some(hard) });
        let failing = || {
            // SAFETY: the size is not 0.
            assert!(std::hint::black_box(unsafe { alloc(layout(65 * MIB, 8)) }).is_null());
        };
        failing();
        let (start, before) = (Instant::now(), stats());
        for _ in 0..200 {
            Object::new(layout(MIB, 8), 1).free();
            blocks(50, 3000).into_iter().for_each(Object::free);
            failing();
        }
        let after = stats();
        let went = (after.returned_bytes - before.returned_bytes) as usize;
        // Once in a while it is tried again, each time with what a round frees.
        let tries = 2 + start.elapsed().as_millis() as usize / 100;
        assert!(went <= tries * 4 * MIB, "{went} bytes went back in {tries} tries: {after:?}");
    });
}

/// What statistics say is held is what the kernel says is resident, when all of it was touched.
#[test]
fn the_kernel_agrees() {
    in_every_mode("the_kernel_agrees", || {
        perseq::set_release(ReleasePolicy::Never);
        perseq::release();
        let (held, resident) = (stats().held_bytes as i64, resident_bytes() as i64);
        let check = |what: &str| {
            let (held, resident) = (stats().held_bytes as i64 - held, resident_bytes() as i64 - resident);
            // Tables are counted by entry, and resident by page; what is in use need not be touched to its end.
            assert!((held - resident).abs() <= 3 * MIB as i64, "{what}: held {held}, resident {resident} more");
        };
        let large = blocks(64, MIB);
        check("large blocks");
        let small = blocks(20_000, 1500);
        check("small blocks");
        let addresses: Vec<_> = large.iter().map(Object::address).collect();
        large.into_iter().for_each(Object::free);
        check("free blocks");
        perseq::release();
        check("released blocks");
        // Page by page: nothing of what was released is resident.
        let mut pages = vec![0u8; MIB / 4096];
        let mut still = 0;
        for address in addresses {
            // SAFETY: a range of the heap's reservation; the vector has a byte for each page of it.
            let answer = unsafe { libc::mincore((address & !4095) as *mut _, MIB, pages.as_mut_ptr()) };
            let error = std::io::Error::last_os_error().raw_os_error();
            // Of what is not all mapped, each page is asked for.
            assert!(answer == 0 || error == Some(libc::ENOMEM), "{error:?}");
            still += if answer == 0 {
                pages.iter().filter(|page| **page & 1 == 1).count()
            } else {
                let resident = |page: &usize| {
                    let mut one = 0u8;
                    // SAFETY: as above, of one page.
                    unsafe {
                        libc::mincore((address & !4095).wrapping_add(page * 4096) as *mut _, 1, &mut one) == 0
                            && one & 1 == 1
                    }
                };
                (0..MIB / 4096).filter(resident).count()
            };
        }
        assert!(still <= 64, "{still} pages of released blocks are resident"); // this vector may be in one
        small.into_iter().for_each(Object::free);
    });
}

/// Huge pages are counted by what they hold.
#[test]
fn huge_pages() {
    in_every_mode("huge_pages", || {
        perseq::set_release(ReleasePolicy::Never);
        let sum =
            |stats: &perseq::Stats| stats.huge_pages_free + stats.huge_pages_partly_used + stats.huge_pages_fully_used;
        let block = Object::new(layout(64 * MIB, 8), 1);
        let full = stats();
        assert!(full.huge_pages_fully_used >= 31 && full.huge_pages_free <= sum(&full) - 31, "{full:?}");
        let mut block = block;
        block.try_resize(MIB, 2).expect("smaller");
        let cut = stats();
        assert!(cut.huge_pages_free >= full.huge_pages_free + 30, "{full:?} {cut:?}");
        assert_eq!(sum(&cut), sum(&full));
        let broken = cut.huge_pages_released_in_part;
        perseq::release();
        let released = stats();
        assert!(released.huge_pages_released_in_part >= broken.max(1), "{released:?}");
        assert!(released.huge_pages_free <= 1, "what is whole is not the heap's any more: {released:?}");
        assert!(released.committed_bytes < cut.committed_bytes - 60 * MIB as u64, "{released:?}");
        block.free();
    });
}
