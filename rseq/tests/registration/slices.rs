//! Slice extensions: refused for the right reason, or granted, given up, lost, and each thread's own.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rseq::abi::{SLICE_AVAILABLE, SLICE_ENABLED};
use rseq::slice::{End, Refused, Slice};

use super::*;

/// Longest that something may take that happens thousands of times a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kernel says, asked without this crate: `PR_RSEQ_SLICE_EXTENSION` and `_GET`.
fn kernel_says() -> Result<i32, i32> {
    // SAFETY: numbers only.
    match unsafe { libc::prctl(79, 1, 0, 0, 0) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().expect("an errno")),
        answer => Ok(answer),
    }
}

/// The extensions of the calling thread, or the reason why there are none, which has to be the right one.
fn find(found: &Registration) -> Result<Slice, Refused> {
    let (slice, flags) = (Slice::find(found), kit::area(found)[4]);
    let enabled = slice.and_then(|slice| slice.enable_thread().map(|()| slice));
    let known = rseq::kernel::Release::running().is_some_and(|release| release >= rseq::kernel::Release::new(7, 0, 0));
    match kernel_says() {
        Err(libc::EINVAL) => assert_eq!((enabled, known), (Err(Refused::Unknown), false)),
        Err(524) => assert_eq!((enabled, known), (Err(Refused::NotBuilt), true)),
        Err(errno) => panic!("prctl: errno {errno}"),
        Ok(_) if flags & SLICE_AVAILABLE == 0 && found.length() == ORIGINAL_LENGTH => {
            assert_eq!(enabled, Err(Refused::ShortArea));
        }
        Ok(_) if flags & SLICE_AVAILABLE == 0 => assert_eq!(enabled, Err(Refused::SwitchedOff)),
        Ok(_) => {
            let slice = enabled.expect("the kernel has them");
            assert_eq!(kernel_says(), Ok(1));
            assert!(slice.is_enabled());
            assert_eq!(kit::area(found)[4], SLICE_AVAILABLE | SLICE_ENABLED, "the kernel's flags");
            assert_eq!(slice.enable_thread(), Ok(()), "again");
        }
    }
    if let Err(why) = enabled {
        assert_eq!((kit::area(found)[4], kit::area(found)[7]), (flags, 0), "a refusal leaves nothing");
        println!("refused: {why}");
    }
    enabled
}

/// Runs `body` on one CPU with a thread that wakes up there all the time and takes it over.
fn disturbed<R>(body: impl FnOnce() -> R) -> R {
    let (cpus, cpu, stop) = (kit::allowed_cpus(), kit::pin_to_any(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(kit::pin(0, cpu), "the CPU is still there");
            while !stop.load(Relaxed) {
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let result = body();
        stop.store(true, Relaxed);
        result
    });
    assert!(kit::allow(0, &cpus));
    result
}

/// A moment, of some thousand instructions at most.
fn moment(turns: u32) {
    for turn in 0..turns {
        std::hint::black_box(turn);
    }
}

/// Repeats `attempt` until it has succeeded so often.
fn until(times: u32, what: &str, mut attempt: impl FnMut() -> bool) {
    let (mut left, mut attempts, begin) = (times, 0_u64, Instant::now());
    while left > 0 {
        left -= u32::from(attempt());
        attempts += 1;
        assert!(begin.elapsed() < PATIENCE, "{what}: {} of {times} in {attempts} attempts", times - left);
    }
    println!("{what}: {times} in {attempts} attempts");
}

/// What the kernel's word says: the request and the grant.
fn word(found: &Registration) -> u32 {
    kit::area(found)[7]
}

fn granted_and_given_up(found: &Registration, slice: &Slice) {
    until(20, "granted, and given up in time", || {
        slice.request();
        moment(300);
        if slice.withdraw() != End::Granted {
            return false;
        }
        let ended = slice.give_up();
        assert_eq!(word(found), 0, "over");
        assert!(!slice.give_up(), "once");
        ended
    });
    until(20, "granted, and ended by the value", || {
        let asking = slice.ask();
        moment(300);
        let end = asking.end();
        assert_eq!(word(found) & 0xff00, 0, "no grant is left");
        end == End::Granted
    });
    until(20, "granted, and ended by another system call", || {
        slice.request();
        moment(300);
        let granted = slice.withdraw() == End::Granted;
        if granted {
            // SAFETY: getpid has no preconditions.
            unsafe { libc::syscall(libc::SYS_getpid) };
            assert_eq!(word(found), 0, "over");
            assert!(!slice.give_up(), "nothing is left to give up");
        }
        granted
    });
}

fn lost_where_it_takes_too_long(slice: &Slice) {
    until(20, "lost", || {
        slice.request();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(2) {
            moment(100);
        }
        let end = slice.withdraw();
        if end == End::Granted {
            slice.give_up();
        }
        end == End::Lost
    });
}

fn moments_within_moments(found: &Registration, slice: &Slice) {
    until(20, "undisturbed, one in another", || {
        let outer = slice.ask();
        let inner = slice.ask();
        let asked = word(found);
        let (inner, still) = (inner.end(), word(found));
        drop(slice.ask());
        let outer = outer.end();
        let undisturbed = (asked, still, outer) == (1, 1, End::Undisturbed);
        assert!(inner == End::Undisturbed || !undisturbed);
        assert_eq!(word(found) & 0xff, 0, "nothing is asked for afterwards");
        undisturbed
    });
}

/// A thread that has not enabled them is not granted any, and sees that it was preempted.
fn others_are_only_told(found: &Registration, slice: &Slice) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            found.ensure_thread().expect("registers");
            assert_eq!((kernel_says(), slice.is_enabled()), (Ok(0), false), "each thread for itself");
            disturbed(|| {
                until(20, "lost by who is not granted any", || {
                    slice.request();
                    moment(2000);
                    let end = slice.withdraw();
                    assert_ne!(end, End::Granted);
                    end == End::Lost
                });
            });
        });
    });
}

fn forked_children_have_them(found: &Registration, slice: &Slice) {
    slice.request();
    // SAFETY: the child asks and ends; it allocates nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let enabled = slice.is_enabled() && kernel_says() == Ok(1);
        slice.withdraw();
        slice.request();
        let asks = word(found) & 0xff == 1;
        slice.withdraw();
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!(enabled && asks))) };
    }
    slice.withdraw();
    let mut status = -1;
    // SAFETY: our child; the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "in the child");
}

/// A handler that asks in the middle of a moment, at any of its instructions.
fn handlers_ask_as_well(found: &Registration, slice: Slice) {
    static SLICE: OnceLock<Slice> = OnceLock::new();
    static ASKED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn handler(_: i32) {
        let slice = SLICE.get().expect("set before");
        drop(slice.ask());
        ASKED.fetch_add(1, Relaxed);
    }
    SLICE.get_or_init(|| slice);
    // SAFETY: the handler makes loads, stores and one system call.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    // SAFETY: pthread_self has no preconditions.
    let this = unsafe { libc::pthread_self() } as usize; // a number here, an address there
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // SAFETY: the thread waits for this one.
                unsafe { libc::pthread_kill(this as libc::pthread_t, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        until(100, "moments with handlers in them", || {
            let before = ASKED.load(Relaxed);
            let asking = slice.ask();
            moment(300);
            let within = ASKED.load(Relaxed) != before;
            asking.end();
            within
        });
        stop.store(true, Relaxed);
    });
    assert_eq!(word(found) & 0xff, 0, "nothing is asked for afterwards");
}

#[test]
fn granted_or_refused_with_the_reason() {
    const NAME: &str = "slices::granted_or_refused_with_the_reason";
    play_if_asked(|role| {
        let length = match role {
            "probe" => return probe_role(),
            "libc" => rseq::feature_length(),
            role => role.parse().expect("a length"),
        };
        let found = rseq::probe_with(length).expect("registers");
        let Ok(slice) = find(&found) else { return };
        disturbed(|| {
            granted_and_given_up(&found, &slice);
            lost_where_it_takes_too_long(&slice);
        });
        moments_within_moments(&found, &slice);
        others_are_only_told(&found, &slice);
        forked_children_have_them(&found, &slice);
        disturbed(|| handlers_ask_as_well(&found, slice));
        println!("granted");
    });
    if !kernel_registers(NAME) {
        return;
    }
    let mut texts = vec![expect(again(NAME, "libc"))];
    for length in ["32", "33"] {
        if length.parse().is_ok_and(|length: u32| length <= rseq::abi::OWN_LENGTH) {
            let mut command = again(NAME, length);
            command.env(OWN.0, OWN.1);
            texts.push(expect(command));
        }
    }
    for text in &texts {
        assert!(text.contains("\ngranted\n") != text.contains("\nrefused: "), "one of both: {text}");
        text.lines().for_each(|line| println!("{line}"));
    }
    if !texts.iter().any(|text| text.contains("\ngranted\n")) {
        let why = texts[0].lines().find(|line| line.starts_with("refused: ")).expect("a reason");
        kit::not_tested("slice-extensions", "grants of slice extensions", why);
    }
}

/// A filter that forbids the call is told as what it is.
#[test]
fn forbidden() {
    const NAME: &str = "slices::forbidden";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let found = rseq::probe().expect("registers");
        kit::refuse(libc::SYS_prctl, libc::EPERM).expect("a filter");
        assert_eq!(Slice::find(&found), Err(Refused::Errno(libc::EPERM)));
    });
    if kernel_registers(NAME) {
        expect(again(NAME, "forbidden"));
    }
}
