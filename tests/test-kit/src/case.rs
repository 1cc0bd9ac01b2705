//! A stream in a child of its own, whose end says what came out, whatever it is.

use std::time::{Duration, Instant};

use crate::errno;
use crate::operation::Operation;
use crate::own::Own;
use crate::player::play;
use crate::subject::Subject;
use crate::system::wait_for;
use crate::verdict::{FAULT, Fault, Kind, Page, Tally};

/// The longest wait before the child is looked at again.
const LOOK: Duration = Duration::from_millis(50);

/// Does a stream in this process. What is wrong ends it.
pub fn in_place<S: Subject>(make: &impl Fn() -> S, operations: &[Operation]) {
    let page = Own::shared(Page::new(true));
    play(&make(), &page, operations);
}

/// Does a stream in a child. It is killed if it makes no progress for `limit`.
pub fn in_child<S: Subject>(
    make: &impl Fn() -> S,
    operations: &[Operation],
    limit: Duration,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let page = Own::shared(Page::new(false));
    let host = |what: &str| page.fault(Kind::Host, format!("{what}: {}", std::io::Error::last_os_error()));
    let mut ends = [0; 2];
    // SAFETY: two descriptors are ours to be written.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(host("no pipe"));
    }
    let close = |end: i32| {
        // SAFETY: a descriptor of ours, closed once in each process.
        unsafe { libc::close(end) };
    };
    // SAFETY: see the crate's documentation for what the child does.
    let child = unsafe { libc::fork() };
    if child == 0 {
        close(ends[0]);
        do_in_child(make, &page, operations);
    }
    close(ends[1]);
    let status = if child > 0 { watch(child, ends[0], &page, limit) } else { Err(host("no child can be forked")) };
    close(ends[0]);
    let status = status?;
    if let Some(fault) = page.written() {
        return Err(fault);
    }
    if libc::WIFSIGNALED(status) {
        return Err(page.fault(Kind::Crash, format!("the process was ended by signal {}", libc::WTERMSIG(status))));
    }
    match libc::WEXITSTATUS(status) {
        0 => {
            page.counters.add_to(tally);
            Ok(())
        }
        FAULT => Err(page.fault(Kind::Exit, "the process ended while it wrote what is wrong".into())),
        status => Err(page.fault(Kind::Exit, format!("the process exited with {status}"))),
    }
}

fn do_in_child<S: Subject>(make: &impl Fn() -> S, page: &Page, operations: &[Operation]) -> ! {
    // SAFETY: plain system calls. Whatever it starts is in its group, it ends with who waits for it, and leaves no core.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
    }
    let all = || play(&make(), page, operations);
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).is_err() {
        page.fail(Kind::Exit, format_args!("a panic"));
    }
    // SAFETY: ends the process at once; nothing of the parent's is run twice.
    unsafe { libc::_exit(0) }
}

/// Waits for the child to end: `pipe` closes then. One that does nothing for `limit` is killed with all it started.
fn watch(child: libc::pid_t, pipe: i32, page: &Page, limit: Duration) -> Result<i32, Fault> {
    let (mut seen, mut since) = (page.progressed(), Instant::now());
    let look = LOOK.min(limit / 4).as_millis().max(1) as i32;
    loop {
        let mut ends = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure of ours.
        let closed = unsafe { libc::poll(&mut ends, 1, look) } > 0;
        // The child of a child may hold the pipe for a while longer.
        let flags = if closed { 0 } else { libc::WNOHANG };
        match wait_for(child, flags) {
            Ok(Some(status)) => {
                if page.is_in_child() {
                    end_group(child); // a child of its own is left
                }
                return Ok(status);
            }
            Ok(None) => {}
            Err(error) => return Err(page.fault(Kind::Host, format!("no child can be waited for: error {error}"))),
        }
        if page.progressed() != seen {
            (seen, since) = (page.progressed(), Instant::now());
        } else if since.elapsed() > limit {
            let fault = page.fault(Kind::Hang, format!("nothing happened for {limit:?}"));
            end_group(child);
            // It may be so early that it has no group of its own.
            // SAFETY: our child, which was not waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            let _ = wait_for(child, 0);
            // What it wrote before it hung says more.
            return Err(page.written().unwrap_or(fault));
        }
    }
}

/// Ends what the child started.
fn end_group(child: libc::pid_t) {
    let before = errno::get();
    // SAFETY: the group is the child's own, and has its number as long as anybody is in it.
    unsafe { libc::kill(-child, libc::SIGKILL) };
    errno::set(before);
}
