//! What came out of a case, in a page that the child shares with who forked it: it is there when the child is gone.

use std::cell::UnsafeCell;
use std::fmt::{self, Write};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Bytes of the longest text.
const TEXT: usize = 1024;
/// The exit status of a child that wrote what was wrong.
pub const FAULT: i32 = 113;

/// What kind of thing was wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// A block was handed out where another lies: twice, or partly.
    Overlap = 1,
    /// A block is not as it was filled.
    Changed,
    /// What a resized block should have kept is gone.
    NotKept,
    /// A block that should be zero is not.
    NotZero,
    /// A block is not as aligned as was asked.
    Misaligned,
    /// No memory, though nothing limits it.
    Refused,
    /// A block of half of the address space.
    Granted,
    /// errno is not what the subject promises.
    Errno,
    /// More or fewer bytes are live at the end than at the beginning.
    Leak,
    /// A signal ended the process.
    Crash,
    /// Nothing happened for too long.
    Hang,
    /// The process exited by itself, or panicked.
    Exit,
    /// The host refuses what the kit needs: this says nothing of the subject.
    Host,
}

const KINDS: [Kind; 13] = [
    Kind::Overlap,
    Kind::Changed,
    Kind::NotKept,
    Kind::NotZero,
    Kind::Misaligned,
    Kind::Refused,
    Kind::Granted,
    Kind::Errno,
    Kind::Leak,
    Kind::Crash,
    Kind::Hang,
    Kind::Exit,
    Kind::Host,
];

/// What was wrong with a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Of what kind.
    pub kind: Kind,
    /// In words.
    pub text: String,
    /// The operation during which it was seen, counted from 0. As many as there are: at the end.
    pub operation: usize,
    /// Whether a child of the operation `fork` saw it.
    pub in_child: bool,
}

macro_rules! tally {
    ($($(#[$meaning:meta])* $name:ident)*) => {
        /// How often each thing happened: what the streams reached.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Tally {
            /// Streams that were done and found nothing.
            pub cases: u64,
            $($(#[$meaning])* pub $name: u64,)*
        }

        impl Tally {
            /// Adds those of another.
            pub fn add(&mut self, other: &Tally) {
                self.cases += other.cases;
                $(self.$name += other.$name;)*
            }
        }

        /// The same while it is counted.
        #[derive(Default)]
        pub struct Counters {
            $(pub $name: AtomicU64,)*
        }

        impl Counters {
            /// Adds them to a tally.
            pub fn add_to(&self, tally: &mut Tally) {
                $(tally.$name += self.$name.load(Relaxed);)*
            }
        }
    };
}

tally! {
    /// Blocks handed out.
    allocated
    /// Requests refused, where memory was limited or the request impossible.
    refused
    /// Blocks resized.
    resized
    /// Blocks freed.
    freed
    /// Blocks sent to another thread.
    sent
    /// Times that the threads ended.
    ended
    /// Moves to another CPU.
    moved
    /// Signals that interrupted.
    interrupted
    /// Blocks allocated in handlers of signals.
    in_handlers
    /// Children forked by operations.
    forked
    /// Times that the subject gave back what it kept.
    drained
    /// Times that memory was limited.
    limited
    /// Times that it came to an end then.
    exhausted
}

/// Counts one more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The page itself.
pub struct Page {
    /// Grows with everything that is done: what does not hang.
    progress: AtomicU64,
    /// The operation that is being done.
    operation: AtomicU32,
    /// Whether who writes is a child of the operation `fork`.
    in_child: AtomicU32,
    /// 0: nothing is wrong. 1: somebody writes. 2: it is written.
    state: AtomicU32,
    kind: AtomicU8,
    length: AtomicU32,
    text: UnsafeCell<[u8; TEXT]>,
    pub counters: Counters,
    /// Not in a child: who finds a fault says it on standard error, and aborts.
    in_place: bool,
}

// SAFETY: the text is written by whoever changed the state from 0, and read when it is 2.
unsafe impl Sync for Page {}

impl Page {
    pub fn new(in_place: bool) -> Page {
        Page {
            progress: AtomicU64::new(0),
            operation: AtomicU32::new(0),
            in_child: AtomicU32::new(0),
            state: AtomicU32::new(0),
            kind: AtomicU8::new(0),
            length: AtomicU32::new(0),
            text: UnsafeCell::new([0; TEXT]),
            counters: Counters::default(),
            in_place,
        }
    }

    /// Notes that something was done.
    pub fn progress(&self) {
        self.progress.fetch_add(1, Relaxed);
    }

    /// How much was done.
    pub fn progressed(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    /// Notes which operation is next.
    pub fn begin(&self, operation: usize) {
        self.operation.store(operation as u32, Relaxed);
        self.progress();
    }

    /// Notes whether a child of the operation `fork` is at work. Its parent waits meanwhile.
    pub fn set_in_child(&self, in_child: bool) {
        self.in_child.store(u32::from(in_child), Relaxed);
    }

    /// Whether a child of the operation `fork` is at work.
    pub fn is_in_child(&self) -> bool {
        self.in_child.load(Relaxed) != 0
    }

    /// Whether a fault was written.
    pub fn is_written(&self) -> bool {
        self.state.load(SeqCst) == 2
    }

    /// Writes what is wrong, if nothing is yet, and ends the process. Allocates nothing.
    pub fn fail(&self, kind: Kind, text: fmt::Arguments<'_>) -> ! {
        if self.state.compare_exchange(0, 1, SeqCst, SeqCst).is_ok() {
            // SAFETY: we changed the state, so nobody else writes, and nobody reads yet.
            let mut writer = Writer { place: unsafe { &mut *self.text.get() }, length: 0 };
            let _ = writer.write_fmt(text); // cut where it is too long
            self.length.store(writer.length as u32, Relaxed);
            self.kind.store(kind as u8, Relaxed);
            self.state.store(2, SeqCst);
        }
        if self.in_place {
            if let Some(fault) = self.written() {
                eprintln!("{fault}");
            }
            std::process::abort();
        }
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(FAULT) }
    }

    /// What was written.
    pub fn written(&self) -> Option<Fault> {
        if !self.is_written() {
            return None;
        }
        // SAFETY: it is written, and nobody writes again.
        let text = unsafe { &*self.text.get() };
        let text = &text[..self.length.load(Relaxed) as usize];
        let kind = *KINDS.iter().find(|kind| **kind as u8 == self.kind.load(Relaxed))?;
        Some(self.fault(kind, String::from_utf8_lossy(text).into_owned()))
    }

    /// A fault that was seen from outside.
    pub fn fault(&self, kind: Kind, text: String) -> Fault {
        let operation = self.operation.load(Relaxed) as usize;
        Fault { kind, text, operation, in_child: self.is_in_child() }
    }
}

/// Writes into a fixed place.
struct Writer<'a> {
    place: &'a mut [u8],
    length: usize,
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let length = text.len().min(self.place.len() - self.length);
        self.place[self.length..self.length + length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        if length == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

impl Fault {
    /// Words for who saw it, where that is not the stream's own process.
    pub(crate) fn in_whom(&self) -> &'static str {
        if self.in_child { ", in the child of a fork" } else { "" }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at operation {}{}: {}", self.kind, self.operation, self.in_whom(), self.text)
    }
}
