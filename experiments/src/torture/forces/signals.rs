//! Signals in the middle of anything. Their handlers give the CPU away, and do not allocate: that is promised nowhere.

use crate::torture::force::{Acting, Force, anywhere, refused};
use crate::torture::order::Order;
use nix::libc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// A timer for each thread, every 50 us.
pub const TIMERS: Force =
    Force { name: "timers", what: "signals of 50 us timers", takes_memory: false, absent: timers_absent, act: timers };

/// Signals from another thread.
pub const SIGNALS: Force =
    Force { name: "signals", what: "signals from another thread", takes_memory: false, absent: anywhere, act: signals };

const PERIOD_NS: i64 = 50_000;

/// Times the handler ran.
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: errno is this thread's.
    let errno = unsafe { *libc::__errno_location() };
    if HANDLED.fetch_add(1, Relaxed).is_multiple_of(4) {
        // SAFETY: a system call that a handler may make.
        unsafe { libc::sched_yield() };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn handle(signal: i32) -> bool {
    // SAFETY: a plain structure, of which all zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    // A handler may interrupt that of another signal, but not itself: where CPUs are short, a timer comes again before its
    // handler has ended, and so on until the stack has.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler lives for ever and does only what a handler may.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) == 0 }
}

/// A timer that interrupts this thread.
struct Timer(libc::timer_t);

impl Timer {
    fn of(thread: i32, signal: i32) -> Option<Timer> {
        // SAFETY: a plain structure, of which all zero is a value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = thread;
        let mut timer = std::ptr::null_mut();
        // SAFETY: both are ours.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } != 0 {
            return None;
        }
        let timer = Timer(timer);
        let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD_NS };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a timer of ours.
        let set = unsafe { libc::timer_settime(timer.0, 0, &times, std::ptr::null_mut()) };
        (set == 0).then_some(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: a timer of ours, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn timers_absent(_: &Order) -> Option<String> {
    let signal = libc::SIGRTMIN();
    // SAFETY: gettid has no preconditions.
    let thread = unsafe { libc::gettid() };
    if handle(signal) && Timer::of(thread, signal).is_some() { None } else { refused("a timer of one thread") }
}

fn timers(acting: &mut Acting) {
    let signal = libc::SIGRTMIN();
    handle(signal);
    let mut timers: Vec<Option<Timer>> = acting.shared.members.iter().map(|_| None).collect();
    let mut seen = HANDLED.load(Relaxed);
    while acting.goes_on() {
        for (member, timer) in acting.shared.members.iter().zip(&mut timers) {
            let thread = member.thread.load(SeqCst);
            if timer.is_none() && thread != 0 {
                *timer = Timer::of(thread, signal);
            }
        }
        acting.sleep_us(2000);
        let now = HANDLED.load(Relaxed);
        if now > seen {
            acting.happened();
        }
        seen = now;
    }
    // Before the threads end.
}

fn signals(acting: &mut Acting) {
    handle(libc::SIGUSR1);
    while acting.goes_on() {
        for _ in 0..32 {
            if let Some(thread) = acting.any_thread() {
                // SAFETY: sends a signal we handle to a thread of ours, or, if it has ended, to none.
                let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
                if sent == 0 {
                    acting.happened();
                }
            }
        }
        acting.sleep_us(50);
    }
}
