//! A timer whose signal interrupts whatever goes on, and a handler that allocates where the subject allows it.
//!
//! The handler sets the timer again when it is done, so that it never takes all the time there is.

use std::alloc::Layout;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crate::block::Block;
use crate::errno;
use crate::subject::Subject;
use crate::verdict::{Kind, Page, count};

/// What the handler uses: of the one case that this process does now.
static CONTEXT: AtomicPtr<()> = AtomicPtr::new(null_mut());
/// Microseconds to the next signal; 0: there is none.
static EVERY: AtomicU32 = AtomicU32::new(0);

/// Handlers that are on their way, in any thread.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Sizes that a handler asks for, in turn.
const SIZES: [usize; 6] = [24, 200, 1000, 16, 5000, 40_000];

struct Context<'a, S> {
    subject: &'a S,
    page: &'a Page,
}

/// The signals of a case, until it is dropped.
pub struct Signals<'a, S> {
    context: Context<'a, S>,
    before: Option<libc::sigaction>,
}

impl<'a, S: Subject> Signals<'a, S> {
    pub fn new(subject: &'a S, page: &'a Page) -> Signals<'a, S> {
        Signals { context: Context { subject, page }, before: None }
    }

    /// One every so many microseconds from now on; 0: no more.
    pub fn every(&mut self, every: u32) {
        if every == 0 {
            if self.before.is_some() {
                stop();
            }
            return;
        }
        if self.before.is_none() {
            CONTEXT.store((&raw mut self.context).cast(), SeqCst);
            // SAFETY: plain structures, of which all zero is a value. The handler is one for ever, and finds its context
            // until we are dropped.
            let before = unsafe {
                let (mut action, mut before) = (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed());
                action.sa_sigaction = interrupted::<S> as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGALRM, &action, &mut before);
                before
            };
            self.before = Some(before);
        }
        EVERY.store(every, SeqCst);
        set_timer(every);
    }

    /// In the child of a fork, which has neither the timer nor the other threads: whether one of them handled a signal just
    /// then, and took with it what it had allocated.
    pub fn leave_behind(&self) -> bool {
        EVERY.store(0, SeqCst);
        RUNNING.swap(0, SeqCst) > 0
    }
}

impl<S> Drop for Signals<'_, S> {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        stop();
        // SAFETY: structures of ours. What is still on its way is ignored, and the old action comes back.
        unsafe {
            let mut ignored = std::mem::zeroed::<libc::sigaction>();
            ignored.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(libc::SIGALRM, &ignored, null_mut());
            libc::sigaction(libc::SIGALRM, &before, null_mut());
        }
        CONTEXT.store(null_mut(), SeqCst);
    }
}

/// No more signals, and none that is still being handled, in whichever thread.
fn stop() {
    // Who begins later sees this, and does nothing.
    EVERY.store(0, SeqCst);
    while RUNNING.load(SeqCst) > 0 {
        std::thread::yield_now();
    }
    // Who began before may have set it.
    set_timer(0);
}

fn set_timer(microseconds: u32) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let once =
        libc::itimerval { it_interval: none, it_value: libc::timeval { tv_sec: 0, tv_usec: microseconds.into() } };
    // SAFETY: reads a structure of ours.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &once, null_mut()) };
}

extern "C" fn interrupted<S: Subject>(_: libc::c_int) {
    let before = errno::get();
    RUNNING.fetch_add(1, SeqCst);
    let every = EVERY.load(SeqCst);
    if every != 0 {
        // SAFETY: the context of `every`, which waits for us before it is gone.
        if let Some(context) = unsafe { CONTEXT.load(SeqCst).cast::<Context<'_, S>>().as_ref() } {
            count(&context.page.counters.interrupted);
            if context.subject.allows_handlers() {
                use_heap(context);
            }
        }
        set_timer(every);
    }
    RUNNING.fetch_sub(1, SeqCst);
    errno::set(before);
}

fn use_heap<S: Subject>(context: &Context<'_, S>) {
    let turn = context.page.counters.in_handlers.fetch_add(1, Relaxed);
    let size = SIZES[turn as usize % SIZES.len()];
    let Ok(layout) = Layout::from_size_align(size, 8) else { return };
    // SAFETY: the size is not 0; freed with the layout that it was allocated with.
    unsafe {
        let Some(start) = NonNull::new(context.subject.allocate(layout)) else { return };
        let block = Block { start, layout, name: !turn, key: 0 };
        block.write();
        if let Some(difference) = block.difference() {
            let at = difference.at;
            context
                .page
                .fail(Kind::Changed, format_args!("byte {at} of a block that a handler of a signal just filled"));
        }
        context.subject.free(start.as_ptr(), layout);
    }
}
