//! The heap profile of a Rust program: samples freed by their layout, in every mode, and under all that the torture does.
//!
//! What C programs and whole processes do is in `preload/tests/profile.rs`.

mod kit;
#[path = "kit/likely.rs"]
mod likely;

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;

use kit::Child;
use kit::object::layout;
use kit::torture::{Plan, run};
use likely::is_likely;
use perseq::{Mode, Perseq};

#[global_allocator]
static ALLOCATOR: Perseq = Perseq::new();

/// Bytes from one sample to the next: the least there can be, for many samples.
const RATE: usize = 4096;

fn child(test: &str) -> Child {
    Child::of(test, "profiled").env("PERSEQ_PROFILE", "4K,/nonexistent/none")
}

/// Runs `body` in a process of each mode, and hardened, with a profile.
fn in_every_mode(test: &str, body: impl FnOnce()) {
    if kit::role().is_none() {
        for mode in Mode::ALL {
            child(test).mode(mode).run().passed();
        }
        child(test).env("PERSEQ_HARDENED", "1").run().passed();
        return;
    }
    body();
}

/// Whether this C library walks stacks; says so if not, and that nothing is sampled then.
fn stacks_are_walked() -> bool {
    if cfg!(target_env = "gnu") {
        return true;
    }
    assert!(perseq::write_profile(&mut String::new()).is_err(), "there is no profile without stacks");
    kit::not_tested("backtrace", "heap profiles", "this C library has no backtrace()");
    false
}

/// Samples of blocks of so many bytes that `function` allocates: live, and all.
fn samples(size: u64, function: fn(Layout) -> *mut u8) -> (u64, u64) {
    let mut text = String::new();
    perseq::write_profile(&mut text).expect("a profile is taken");
    let (samples, _) = text.split_once("\nMAPPED_LIBRARIES:\n").expect("mappings");
    let (mut live, mut all) = (0, 0);
    for line in samples.lines().skip(1).filter(|line| !line.starts_with('#')) {
        let (counts, frames) = line.split_once('@').expect("a line of a site");
        let counts: Vec<u64> =
            counts.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        let is_within = |frame: &str| {
            let frame = usize::from_str_radix(frame.trim_start_matches("0x"), 16).expect("an address");
            (function as usize..function as usize + 512).contains(&frame)
        };
        if counts[3] / counts[2] == size && frames.split_whitespace().take(8).any(is_within) {
            (live, all) = (live + counts[0], all + counts[2]);
        }
    }
    (live, all)
}

/// Asserts that of so many blocks as many are samples as is likely.
fn likely(blocks: u32, size: u64, samples: u64) {
    let p = 1.0 - (-(size as f64) / RATE as f64).exp();
    let mean = f64::from(blocks) * p;
    assert!(is_likely(blocks.into(), p, samples), "{size}: {samples} of {blocks}, expected {mean:.1}");
}

#[inline(never)]
fn plain(layout: Layout) -> *mut u8 {
    // SAFETY: the size is not 0.
    black_box(unsafe { alloc(layout) })
}

#[inline(never)]
fn zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = black_box(unsafe { alloc_zeroed(layout) });
    // SAFETY: so many bytes, just allocated.
    assert!(unsafe { std::slice::from_raw_parts(block, layout.size()) }.iter().all(|byte| *byte == 0));
    block
}

/// Writes a block and frees it.
fn free(block: *mut u8, layout: Layout) {
    assert!((block as usize).is_multiple_of(layout.align()));
    // SAFETY: a block of this layout, which the caller gives up.
    unsafe {
        block.write_bytes(0x5a, layout.size());
        dealloc(block, layout);
    }
}

#[test]
fn samples_are_freed_by_their_layout() {
    if !stacks_are_walked() {
        return;
    }
    in_every_mode("samples_are_freed_by_their_layout", || {
        const BLOCKS: u32 = 6000;
        for (size, align, function) in [
            (48, 8, plain as fn(Layout) -> *mut u8),
            (1024, 1024, plain),
            (2560, 8, zeroed),
            (8192, 8192, zeroed),
            (32768, 8, plain),
            (81920, 16384, plain),
            (49152, 8, zeroed),
        ] {
            let (layout, blocks) = (layout(size, align), if size > 8192 { BLOCKS / 20 } else { BLOCKS });
            let begin = samples(size as u64, function);
            let held: Vec<_> = (0..blocks).map(|_| function(layout) as usize).collect();
            let (live, all) = samples(size as u64, function);
            assert_eq!(live - begin.0, all - begin.1, "nothing was freed");
            likely(blocks, size as u64, live - begin.0);
            // By another thread.
            std::thread::spawn(move || held.into_iter().for_each(|block| free(block as *mut u8, layout)))
                .join()
                .expect("it frees");
            assert_eq!(samples(size as u64, function), (begin.0, all));
        }
        perseq::release();
        perseq::check();
    });
}

/// A block that grows or shrinks is freed, and allocated anew, for the profile: wherever it is then.
#[test]
fn resized_blocks_are_counted_as_new() {
    if !stacks_are_walked() {
        return;
    }
    #[inline(never)]
    fn resized(layout: Layout) -> *mut u8 {
        let mut block = plain(kit::object::layout(layout.size() / 2, 8));
        // SAFETY: a block of that size, and the new one is not 0.
        unsafe {
            block.write(0xa5);
            block = black_box(realloc(block, kit::object::layout(layout.size() / 2, 8), layout.size()));
            assert_eq!(block.read(), 0xa5);
        }
        block
    }
    in_every_mode("resized_blocks_are_counted_as_new", || {
        // Small both, to large, large both and so at its place perhaps, and moved by the kernel.
        for (size, blocks) in [(1280, 6000), (40960, 300), (163_840, 300), (1 << 20, 100)] {
            let held: Vec<_> = (0..blocks).map(|_| resized(layout(size, 8))).collect();
            let (live, _) = samples(size as u64, resized);
            likely(blocks, size as u64, live);
            assert_eq!(samples(size as u64 / 2, plain).0, 0);
            held.into_iter().for_each(|block| free(block, layout(size, 8)));
            assert_eq!(samples(size as u64, resized).0, 0);
        }
        perseq::release();
        perseq::check();
    });
}

/// With a sample in every few blocks, all that the torture does goes well.
#[test]
fn programs_run_as_ever() {
    if !stacks_are_walked() {
        return;
    }
    in_every_mode("programs_run_as_ever", || {
        run(Plan::everything(kit::duration(0.5)));
        // All was freed but what the test's own thread has, and what handlers may have put aside.
        let mut text = String::new();
        perseq::write_profile(&mut text).expect("a profile is taken");
        let header = text.lines().next().expect("a header");
        let counts: Vec<u64> =
            header.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        assert!(counts[2] > 500 && counts[0] * 20 < counts[2], "{header}");
    });
}

/// What cannot be a sample for want of memory is a block as without a profile, and is counted.
#[test]
fn a_limit_loses_samples_and_no_block() {
    if !stacks_are_walked() {
        return;
    }
    const TEST: &str = "a_limit_loses_samples_and_no_block";
    if kit::role().is_none() {
        child(TEST).env("PERSEQ_HARD_LIMIT", "32M").run().passed();
        return;
    }
    let layout = layout(512, 8);
    let mut held = Vec::with_capacity(64_000);
    loop {
        let block = plain(layout);
        if block.is_null() {
            break;
        }
        held.push(block);
    }
    assert!((2000..60_000).contains(&held.len()), "{} of 32 MiB", held.len());
    // Of those in spans, which begin at no page, each fourth comes back, and no span with it. Then there is no page for a
    // sample, but there is each block.
    let is_in_a_span = |block: *mut u8| !(block as usize).is_multiple_of(perseq::PAGE_SIZE);
    let (mut seen, mut taken) = (0, 0);
    for block in &mut held {
        seen += usize::from(is_in_a_span(*block));
        if is_in_a_span(*block) && seen.is_multiple_of(4) {
            free(std::mem::replace(block, std::ptr::null_mut()), layout);
            taken += 1;
        }
    }
    assert!(taken > 500, "{taken} of {}", held.len());
    for block in held.iter_mut().filter(|block| block.is_null()) {
        *block = plain(layout);
        assert!(!block.is_null(), "what was freed can be had");
    }
    held.into_iter().for_each(|block| free(block, layout));
    let mut text = String::new();
    perseq::write_profile(&mut text).expect("a profile is taken");
    assert!(text.contains(" samples were not taken, for want of memory\n"), "{text}");
    perseq::check();
}

#[test]
fn without_the_variable_there_is_none() {
    assert!(perseq::write_profile(&mut String::new()).is_err());
}

/// In the hardened mode, a sample is checked as any other block is.
#[test]
fn misuse_of_a_sample_is_seen() {
    if !stacks_are_walked() {
        return;
    }
    const TEST: &str = "misuse_of_a_sample_is_seen";
    let hardened = |misuse: &str, said: &str| {
        // A process that aborts writes no file.
        let child = Child::of(TEST, misuse).env("PERSEQ_PROFILE", concat!("4K,", env!("CARGO_TARGET_TMPDIR"), "/none"));
        child.env("PERSEQ_HARDENED", "1").run().aborted_saying(said).reported();
    };
    let Some(role) = kit::role() else {
        hardened("other class", "free with another size than the allocation's");
        hardened("double", "free");
        hardened("double by address", "double free of a large block");
        return;
    };
    kit::crash::report_crashes();
    // One in five is a sample.
    let block = (0..1000).find_map(|_| {
        let before = samples(1024, plain).1;
        let block = plain(layout(1024, 8));
        (samples(1024, plain).1 > before).then_some(block)
    });
    let block = block.expect("a sample");
    assert!((block as usize).is_multiple_of(perseq::PAGE_SIZE));
    // SAFETY: none: that is the test.
    unsafe {
        match role.as_str() {
            "other class" => dealloc(block, layout(512, 8)),
            "double" => {
                dealloc(block, layout(1024, 8));
                dealloc(block, layout(1024, 8));
            }
            _ => {
                ALLOCATOR.free(block);
                ALLOCATOR.free(block);
            }
        }
    }
    println!("nobody noticed");
}
