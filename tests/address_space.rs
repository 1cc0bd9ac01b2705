//! The heap's address space grows and shrinks with what the heap has, and every limit on it is honoured.
//!
//! Each test runs in a process of its own, whose limits and mappings are no other test's.

mod kit;

use std::alloc::{alloc, dealloc, realloc};
use std::ptr;

use kit::object::layout;
use kit::{Child, not_tested};
use perseq::stats;

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

fn alone(test: &str, body: impl FnOnce()) {
    if kit::role().is_some() {
        body();
        perseq::check();
    } else {
        Child::of(test, "alone").run().passed();
    }
}

/// As [`alone`], and once more with names for all mappings, where the kernel has them: what is mapped may still be joined.
fn alone_and_named(test: &str, body: impl FnOnce()) {
    if kit::role().is_none() {
        if kit::kernel::has_names() {
            Child::of(test, "alone").env("PERSEQ_NAMES", "1").run().passed();
        } else {
            not_tested("mapping-names", "the number of mappings with names", "prctl(PR_SET_VMA) is refused");
        }
    }
    alone(test, body);
}

/// Bytes of a line of `/proc/self/status`.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")).unwrap_or_else(|| panic!("{name} in {text}"));
    number.parse::<usize>().expect("a number") << 10
}

/// A block whose first byte is written, or null.
fn block(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { alloc(layout(size, align)) };
    if !block.is_null() {
        assert!((block as usize).is_multiple_of(align));
        // SAFETY: ours.
        unsafe { block.write(size as u8) };
    }
    block
}

fn free(block: *mut u8, size: usize, align: usize) {
    // SAFETY: allocated with this layout, and not used any more.
    unsafe { dealloc(block, layout(size, align)) };
}

fn set_limit(resource: kit::Resource, bytes: usize) {
    let limit = libc::rlimit { rlim_cur: bytes as u64, rlim_max: bytes as u64 };
    // SAFETY: the structure is ours.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "{}", std::io::Error::last_os_error());
}

/// Bytes that a core dump of this process would hold: all that may be read or written and is not kept out of it.
fn dumped() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let (mut sum, mut size) = (0, 0);
    for line in smaps.lines() {
        if let Some(text) = line.strip_prefix("Size:") {
            size = text.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10;
        }
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            sum += if flags.split_whitespace().any(|flag| flag == "dd") { 0 } else { size };
        }
    }
    sum
}

/// Bytes that the kernel accounts for: private mappings that may be written.
fn accounted() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let (mut sum, mut size) = (0, 0);
    for line in smaps.lines() {
        if let Some(text) = line.strip_prefix("Size:") {
            size = text.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10;
        }
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            sum += if flags.split_whitespace().any(|flag| flag == "ac") { size } else { 0 };
        }
    }
    sum
}

/// At any time, the address space is at most 64 MiB and half as much again as is committed; a core dump holds no more.
#[test]
fn it_follows_the_heap() {
    alone("it_follows_the_heap", || {
        let beside = status("VmSize") - stats().committed_bytes as usize;
        let check = |what: &str| {
            let (size, committed) = (status("VmSize"), stats().committed_bytes as usize);
            assert!(size <= beside + 64 * MIB + committed / 2 * 3, "{what}: {size} with {committed} committed");
            let dumped = dumped();
            assert!(dumped <= beside + 64 * MIB + committed / 2 * 3, "{what}: {dumped} with {committed} committed");
        };
        check("at the start");
        for size in [100, 5000, 100_000, 3 * MIB, 70 * MIB] {
            let mut held = Vec::with_capacity(1 << 22);
            while held.len() * size < 300 * MIB {
                held.push(block(size, 8));
                assert!(!held[held.len() - 1].is_null());
                if held.len() * size % (32 * MIB) < size {
                    check("growing");
                }
            }
            // Half of it, in a comb; then the rest.
            for start in [0, 1] {
                for place in (start..held.len()).step_by(2) {
                    free(held[place], size, 8);
                }
                perseq::release();
                check("shrinking");
            }
            drop(held);
            perseq::release();
            let (size_now, now) = (status("VmSize"), stats());
            assert!(size_now <= beside + 64 * MIB, "{size}: {size_now} bytes stayed: {now:?}");
            assert!(now.committed_bytes <= now.held_bytes + 16 * MIB as u64, "{size}: {now:?}");
        }
    });
}

/// What goes back is not accounted for any more, so that it is there for others under strict accounting
/// (`vm.overcommit_memory=2`).
#[test]
fn what_goes_back_is_not_accounted_for() {
    alone("what_goes_back_is_not_accounted_for", || {
        perseq::release();
        let before = accounted();
        for size in [1000, 40_000, MIB, 100 * MIB] {
            let held: Vec<_> = (0..400 * MIB / size).map(|_| block(size, 8)).collect();
            assert!(accounted() >= before + 390 * MIB, "memory that may be written is accounted for");
            held.into_iter().for_each(|block| free(block, size, 8));
            perseq::release();
            let after = accounted();
            assert!(after <= before + 16 * MIB, "{size}: {before} before, {after} after");
        }
    });
}

/// A limit that the program sets itself, late, limits the heap, and leaves room for what is not the heap.
#[test]
fn a_late_limit() {
    alone("a_late_limit", || {
        free(block(1000, 8), 1000, 8);
        let limit = status("VmSize") + 500 * MIB;
        set_limit(libc::RLIMIT_AS, limit);
        std::thread::spawn(|| drop(std::hint::black_box(vec![0_u8; 100_000]))).join().expect("a thread");
        // SAFETY: a new mapping touches nothing that exists.
        let mapped = unsafe {
            libc::mmap(ptr::null_mut(), MIB, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(mapped, libc::MAP_FAILED);
        let mut held = Vec::with_capacity(1000);
        for size in [50 * MIB, MIB] {
            held.extend(std::iter::from_fn(|| Some((block(size, 8), size)).filter(|(block, _)| !block.is_null())));
        }
        let sum: usize = held.iter().map(|(_, size)| size).sum();
        assert!((400 * MIB..=500 * MIB).contains(&sum), "{sum} bytes of 500 MiB");
        assert!(status("VmSize") <= limit);
        for (block, size) in held {
            free(block, size, 8);
        }
        // All of it again, at once.
        let again = block(400 * MIB, 8);
        assert!(!again.is_null(), "{:?}", stats());
        free(again, 400 * MIB, 8);
    });
}

/// With a million KiB from the start, at least 720 MiB can be allocated, or 112 threads started.
#[test]
fn an_early_limit() {
    if kit::role().is_none() {
        for _ in 0..2 {
            Child::of("an_early_limit", "little").address_space(1_000_000 << 10).run().passed();
        }
        return;
    }
    let mut held: *mut *mut u8 = ptr::null_mut();
    let mut count = 0;
    loop {
        let next = block(100_000, 8).cast::<*mut u8>();
        if next.is_null() {
            break;
        }
        // SAFETY: ours, and long enough.
        unsafe { next.write(held.cast()) };
        (held, count) = (next, count + 1);
    }
    while !held.is_null() {
        // SAFETY: the link of a block of ours.
        let next = unsafe { held.read() }.cast();
        free(held.cast(), 100_000, 8);
        held = next;
    }
    assert!(count * 100_000 >= 720 * MIB, "{count} blocks of 100,000 bytes");
    perseq::release();
    // The test's own thread and process stand for the rest of a program.
    let mut threads = 0;
    extern "C" fn sleep(_: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
        ptr::null_mut()
    }
    // SAFETY: a plain structure of bytes; the functions initialize and read it.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        assert_eq!(libc::pthread_attr_init(&mut attributes), 0);
        assert_eq!(libc::pthread_attr_setstacksize(&mut attributes, 8 * MIB), 0);
        let mut thread = std::mem::MaybeUninit::uninit();
        while threads < 500 && libc::pthread_create(thread.as_mut_ptr(), &attributes, sleep, ptr::null_mut()) == 0 {
            threads += 1;
        }
    }
    assert!(threads >= 112, "{threads} threads, VmSize {}, {:?}", status("VmSize"), stats());
    std::process::exit(finish(threads));
}

/// Ends a test whose threads sleep for ever, as the harness would.
fn finish(_: usize) -> i32 {
    println!("test result: ok. 1 passed");
    0
}

/// Blocks that only alignment keeps apart take no more than they are.
#[test]
fn aligned_blocks() {
    alone("aligned_blocks", || {
        let beside = status("VmSize");
        let mut blocks = Vec::new();
        for _ in 0..400 {
            let block = block(64 << 10, GIB);
            assert!(!block.is_null(), "{} blocks", blocks.len());
            blocks.push(block);
        }
        let size = status("VmSize");
        assert!(size <= beside + 64 * MIB + 400 * 3 * MIB, "{size} for 400 blocks");
        // In between them there is room.
        let between = block(200 * MIB, 8);
        assert!(!between.is_null());
        perseq::check();
        free(between, 200 * MIB, 8);
        blocks.into_iter().for_each(|block| free(block, 64 << 10, GIB));
        perseq::release();
        assert!(status("VmSize") <= beside + 128 * MIB);
    });
}

/// One block of several times the memory is refused, as the C library's is: the kernel sees that it cannot be. What is
/// more than once was the end of the heap can be had where the kernel lets it.
#[test]
fn more_than_there_is() {
    alone("more_than_there_is", || {
        let policy = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("/proc is mounted");
        let memory = std::fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
        let total = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") << 10
        };
        let more = (total("MemTotal:") + total("SwapTotal:")) * 4;
        if policy.trim() == "1" {
            not_tested(
                "overcommit-heuristic",
                "a block of more than there is",
                "vm.overcommit_memory is 1: everything is granted",
            );
        } else {
            assert!(block(more, 8).is_null(), "{more} bytes");
        }
        if policy.trim() == "2" {
            return not_tested("overcommit-heuristic", "many large blocks", "vm.overcommit_memory is 2");
        }
        // In pieces, each of which could be: 200 GiB in all.
        let piece = total("MemTotal:") / 2;
        let pieces: Vec<_> = (0..(200 * GIB).div_ceil(piece)).map(|_| block(piece, 8)).collect();
        assert!(pieces.iter().all(|piece| !piece.is_null()), "{pieces:?}");
        pieces.into_iter().for_each(|block| free(block, piece, 8));
    });
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted").lines().count()
}

/// Thousands of blocks that grow in turn are moved without a copy as long as that costs few mappings: those are the
/// program's, too, and Linux lets it have 65,530.
#[test]
fn few_mappings() {
    alone_and_named("few_mappings", || {
        const BLOCKS: usize = 12_000;
        let mut blocks = vec![(ptr::null_mut::<u8>(), 0_usize); BLOCKS];
        for round in 0..6 {
            for (index, (start, size)) in blocks.iter_mut().enumerate() {
                let new = (256 << 10) + (round << 16) + ((index % 7) << 13);
                let moved = if start.is_null() {
                    block(new, 8)
                } else {
                    // SAFETY: allocated with this layout.
                    unsafe { realloc(*start, layout(*size, 8), new) }
                };
                assert!(!moved.is_null());
                // SAFETY: a block of ours of that many bytes, whose first word is its number once it is written.
                unsafe {
                    let word = moved.cast::<usize>();
                    assert!(start.is_null() || word.read() == index, "block {index} is not itself");
                    word.write(index);
                }
                (*start, *size) = (moved, new);
            }
            let now = mappings();
            assert!(now < 14_000, "round {round}: {now} mappings");
            for (start, size) in blocks.iter_mut().skip(round % 3).step_by(3) {
                free(*start, *size, 8);
                (*start, *size) = (ptr::null_mut(), 0);
            }
        }
        assert!(stats().relocated_bytes > 0, "nothing was moved");
        // Of each block one word was written. Where contents are copied, pages that were never touched stay so.
        let peak = status("VmHWM");
        assert!(peak < 1000 * MIB, "{peak} bytes were resident");
        for (start, size) in blocks.into_iter().filter(|(start, _)| !start.is_null()) {
            free(start, size, 8);
        }
        perseq::release();
        let end = mappings();
        assert!(end < 5000, "{end} mappings at the end");
    });
}

/// Holes between blocks are mappings more, and so few.
#[test]
fn few_holes() {
    alone_and_named("few_holes", || {
        let small: Vec<_> = (0..20_000).map(|_| (block(64 << 10, 8), block(5 * MIB, 8))).collect();
        small.iter().for_each(|(_, large)| free(*large, 5 * MIB, 8));
        perseq::release();
        let now = mappings();
        assert!(now < 10_000, "{now} mappings");
        small.into_iter().for_each(|(small, _)| free(small, 64 << 10, 8));
        perseq::release();
        assert!(mappings() < 1000, "{} mappings at the end", mappings());
    });
}

/// Never, at no moment, is more held than the hard limit allows: tables that an operation adds are counted before.
#[test]
fn the_hard_limit_is_exact() {
    alone("the_hard_limit_is_exact", || {
        let hard = stats().held_bytes as usize + 40 * MIB;
        perseq::set_limits(perseq::Limits { soft: None, hard: Some(hard) });
        let mut held: Vec<(*mut u8, usize)> = Vec::with_capacity(1 << 16);
        let mut random = kit::random::Random::stream(11);
        let mut failed = 0;
        for step in 0..60_000 {
            let size = random.of(&[300, 3000, 9000, 20_000, 70_000, 300_000, MIB]) + random.below(999);
            let start = block(size, 8);
            if !start.is_null() {
                held.push((start, size));
            } else {
                failed += 1;
                for _ in 0..random.below(held.len().min(20) + 1) {
                    let (start, size) = held.swap_remove(random.below(held.len()));
                    free(start, size, 8);
                }
            }
            if random.once_in(5) && !held.is_empty() {
                let place = random.below(held.len());
                let (start, size) = held[place];
                let new = size / 2 + 1 + random.below(size);
                // SAFETY: allocated with this layout.
                let resized = unsafe { realloc(start, layout(size, 8), new) };
                if !resized.is_null() {
                    held[place] = (resized, new);
                }
            }
            if step % 16 == 0 {
                let now = stats();
                assert!(now.held_bytes <= hard as u64 && now.peak_held_bytes <= hard as u64, "{hard}: {now:?}");
            }
        }
        assert!(failed > 100, "the limit was met {failed} times");
        perseq::set_limits(perseq::Limits::default());
        held.into_iter().for_each(|(start, size)| free(start, size, 8));
    });
}

/// Where the kernel neither moves pages (before 5.7) nor lets a process read its own memory by a call (sandboxes), a
/// block that grows is copied, and nothing is lost.
#[test]
fn moves_refused() {
    use kit::seccomp::Refusal;
    static REFUSED: [Refusal; 2] = [
        Refusal { call: libc::SYS_mremap, errno: libc::EINVAL },
        Refusal { call: libc::SYS_process_vm_readv, errno: libc::EPERM },
    ];
    if kit::role().is_none() {
        Child::of("moves_refused", "refused").refusing(&REFUSED).run().passed();
        return;
    }
    let (mut size, wall) = (MIB, 64 << 10);
    let mut start = block(size, 8);
    let mut walls = Vec::new();
    for round in 0..500 {
        walls.push(block(wall, 8)); // so that it must move
        let new = if size < 8 * MIB { size + 256 * 1024 } else { MIB };
        // SAFETY: allocated with this layout, and longer than what is read and written.
        unsafe {
            start.add(100).cast::<u64>().write_unaligned(round);
            start = realloc(start, layout(size, 8), new);
            assert!(!start.is_null());
            assert_eq!(start.add(100).cast::<u64>().read_unaligned(), round);
        }
        size = new;
    }
    let now = stats();
    assert_eq!(now.relocated_bytes, 0);
    assert!(now.metadata_bytes < 4 * MIB as u64, "moves lost their blocks: {now:?}");
    free(start, size, 8);
    walls.into_iter().for_each(|start| free(start, wall, 8));
    perseq::release();
    let now = stats();
    assert!(now.held_bytes < 8 * MIB as u64, "{now:?}");
    perseq::check();
}

/// Where contents are copied, a block of which little was ever written stays such a block: it takes little memory at its new
/// place, whatever was there before, and none at its old one.
#[test]
fn sparse_blocks_copied() {
    use kit::seccomp::Refusal;
    static REFUSED: [Refusal; 1] = [Refusal { call: libc::SYS_mremap, errno: libc::EINVAL }];
    if kit::role().is_none() {
        Child::of("sparse_blocks_copied", "refused").refusing(&REFUSED).run().passed();
        return;
    }
    const COUNT: usize = 8;
    const WRITTEN: [usize; 3] = [0, 5 * MIB + 5, 12 * MIB - 1];
    perseq::set_release(perseq::ReleasePolicy::Never);
    let apart = |size: usize| [block(size, 8), block(64 << 10, 8)]; // and a wall, so that none joins or grows in place
    let sparse: Vec<_> = (0..COUNT).map(|_| apart(12 * MIB)).collect();
    let old: Vec<_> = (0..COUNT).map(|_| apart(16 * MIB)).collect();
    // SAFETY: ours, here and below, of the size that is written, read or freed.
    unsafe {
        old.iter().for_each(|[start, _]| start.write_bytes(0xee, 16 * MIB));
        sparse.iter().for_each(|[start, _]| WRITTEN.iter().for_each(|at| start.add(*at).write(0x5a)));
    }
    old.iter().for_each(|[start, _]| free(*start, 16 * MIB, 8));
    let before = kit::resident_bytes();
    for [start, _] in &sparse {
        // SAFETY: as above.
        let moved = unsafe { realloc(*start, layout(12 * MIB, 8), 15 * MIB) };
        assert!(!moved.is_null() && moved != *start);
        let within = |old: *mut u8| old <= moved && moved as usize + 15 * MIB <= old as usize + 16 * MIB;
        assert!(old.iter().any(|[old, _]| within(*old)), "a place with old data");
        for at in 0..12 * MIB {
            let expected = if WRITTEN.contains(&at) { 0x5a } else { 0 };
            // SAFETY: as above.
            assert_eq!(unsafe { moved.add(at).read() }, expected, "byte {at}");
        }
    }
    let after = kit::resident_bytes();
    let gone = (COUNT * 11 * MIB) as u64;
    assert!(after + gone < before, "{before} bytes were resident, and {after} after the copies");
    assert_eq!(stats().relocated_bytes, 0);
}
