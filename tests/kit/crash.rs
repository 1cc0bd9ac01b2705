//! A crash reporter: what programs do when they are told to abort.

use std::alloc::{GlobalAlloc, Layout};

use super::object::{LARGE_SIZES, SIZES};

/// What the handler's last line says.
pub const REPORTED: &str = "the crash was reported";

/// Blocks the handler takes and frees: more than any cache holds, so that every tier is used.
const BLOCKS: usize = 20_000;

/// Seconds until a process that hangs in its handler is ended by SIGALRM.
const SECONDS: u32 = 60;

/// From now on, SIGABRT is handled by a function that allocates and frees much, small and large, empties the caches and
/// gives memory back, forks a child that does the same, and then returns, so that the process aborts after all. A hang
/// ends it by another signal.
pub fn report_crashes() {
    // SAFETY: alarm has no preconditions; the structure given to setrlimit is ours.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
        libc::alarm(SECONDS);
    }
    // SAFETY: a plain structure, of which all zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_abort as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler lives for ever. That it allocates is the test.
    assert_eq!(unsafe { libc::sigaction(libc::SIGABRT, &action, std::ptr::null_mut()) }, 0);
}

extern "C" fn on_abort(_: libc::c_int) {
    use_heap();
    // SAFETY: the child does what a crash reporter's does, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no preconditions; an alarm is not inherited.
        unsafe { libc::alarm(SECONDS) };
        use_heap();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: `status` is ours to be written.
    unsafe { libc::waitpid(child, &mut status, 0) };
    say(if child > 0 && status == 0 { REPORTED } else { "the crash reporter's child did not end well" });
}

fn use_heap() {
    let mut blocks = [std::ptr::null_mut::<u8>(); BLOCKS];
    let layout = |number: usize| {
        let size =
            if number.is_multiple_of(2000) { LARGE_SIZES[number / 2000 % 4] } else { SIZES[number % SIZES.len()] };
        Layout::from_size_align(size.min(1 << 20), 8).expect("a layout")
    };
    for turn in 0..2 {
        for (number, block) in blocks.iter_mut().enumerate() {
            // SAFETY: the size is not 0; the block has a first byte and a last.
            unsafe {
                *block = perseq::Perseq::new().alloc(layout(number));
                if block.is_null() {
                    say("no memory for the crash reporter");
                    libc::_exit(3);
                }
                block.write(1);
                block.add(layout(number).size() - 1).write(1);
            }
        }
        for (number, block) in blocks.iter().enumerate() {
            // SAFETY: allocated above, with this layout.
            unsafe { perseq::Perseq::new().dealloc(*block, layout(number)) };
        }
        if turn == 0 {
            perseq::for_each_class(&mut |_| ()); // takes the locks of all classes
        }
    }
}

fn say(line: &str) {
    // SAFETY: reads the string.
    unsafe {
        libc::write(2, line.as_ptr().cast(), line.len());
        libc::write(2, c"\n".as_ptr().cast(), 1);
    }
}
