//! Threads that live for a moment, and threads that are cancelled.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, anywhere, thread};
use crate::torture::holder::Holder;
use nix::libc::{self, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Short-lived threads that leave blocks behind.
pub const BIRTHS: Force = Force {
    name: "births",
    what: "threads that live for a moment",
    takes_memory: false,
    absent: anywhere,
    act: births,
};

/// Threads that are cancelled.
pub const CANCELS: Force =
    Force { name: "cancels", what: "cancelled threads", takes_memory: false, absent: anywhere, act: cancels };

fn births(acting: &mut Acting) {
    let next = AtomicU64::new(1 << 21);
    let shared = acting.shared;
    while acting.goes_on() {
        std::thread::scope(|scope| {
            let live = |_| {
                let owner = next.fetch_add(1, Relaxed);
                let born = thread().spawn_scoped(scope, move || {
                    let mut holder = shared.holder(owner);
                    (0..80).for_each(|_| holder.allocate());
                    (0..40).for_each(|_| holder.free());
                    holder.objects
                });
                match born {
                    Ok(thread) => thread,
                    Err(error) => fault(format_args!("a short-lived thread: {error}")),
                }
            };
            let threads: Vec<_> = (0..4).map(live).collect();
            for thread in threads {
                let Ok(objects) = thread.join() else { fault(format_args!("a short-lived thread panicked")) };
                objects.into_iter().for_each(|object| acting.send(object));
                acting.happened();
            }
        });
    }
}

/// A thread that is to be cancelled. It belongs to the canceller, which outlives it.
struct Victim {
    holder: Holder,
    /// Wait for the cancellation before the first allocation.
    late: bool,
    asked: AtomicBool,
}

// Declared as functions that do not unwind, though they end the thread by unwinding: so no frame between here and the
// thread's beginning has a table of handlers, and the unwinder passes.
unsafe extern "C" {
    fn pthread_testcancel();
    fn pthread_cancel(thread: libc::pthread_t) -> libc::c_int;
}

/// The life of a victim: it ends in `pthread_testcancel`, never in the allocator, which is no cancellation point.
extern "C-unwind" fn live(victim: *mut c_void) -> *mut c_void {
    loop {
        step(victim.cast());
        // SAFETY: no frame of this thread has anything to drop, here or above.
        unsafe { pthread_testcancel() };
    }
}

#[inline(never)]
extern "C" fn step(victim: *mut Victim) {
    // SAFETY: the canceller touches nothing but `asked` until this thread was joined.
    let victim = unsafe { &mut *victim };
    if victim.late {
        while !victim.asked.load(Acquire) {
            std::hint::spin_loop();
        }
    }
    for _ in 0..20 {
        if victim.holder.objects.len() < 60 {
            victim.holder.allocate();
        } else {
            victim.holder.free();
        }
    }
}

fn cancels(acting: &mut Acting) {
    const CANCELED: *mut c_void = -1_isize as *mut c_void;
    type Start = extern "C" fn(*mut c_void) -> *mut c_void;
    type Unwinding = extern "C-unwind" fn(*mut c_void) -> *mut c_void;
    // SAFETY: the two differ in what the compiler may assume of the caller, which is C.
    let start: Start = unsafe { std::mem::transmute::<Unwinding, Start>(live) };
    let mut owner = 1 << 22;
    while acting.goes_on() {
        owner += 1;
        let late = acting.random.once_in(2);
        let victim = Victim { holder: acting.shared.holder(owner), late, asked: AtomicBool::new(false) };
        let victim = Box::into_raw(Box::new(victim));
        let mut thread = 0;
        // SAFETY: the victim lives until the thread was joined.
        let error = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), start, victim.cast()) };
        if error != 0 {
            fault(format_args!("a thread to cancel: {}", std::io::Error::from_raw_os_error(error)));
        }
        if !late {
            let us = acting.random.below(300);
            acting.sleep_us(us as u64);
        }
        // SAFETY: a thread of ours that was not joined.
        unsafe { pthread_cancel(thread) };
        // SAFETY: the field is atomic, and the victim lives.
        unsafe { (*victim).asked.store(true, Release) };
        let mut answer = null_mut();
        // SAFETY: joined once.
        let error = unsafe { libc::pthread_join(thread, &mut answer) };
        if error != 0 || answer != CANCELED {
            fault(format_args!("a cancelled thread returned {answer:p} (error {error})"));
        }
        // SAFETY: the thread is gone.
        let mut victim = unsafe { Box::from_raw(victim) };
        if victim.holder.objects.is_empty() {
            fault(format_args!("a thread was cancelled inside of the allocator"));
        }
        victim.holder.objects.drain(..).for_each(|object| acting.send(object));
        acting.happened();
    }
}
