//! Time slice extensions: a thread asks not to be preempted for a moment (Linux 7.0).
//!
//! A thread that is preempted while it holds a lock keeps everybody waiting until it runs again. So before the moment it
//! sets a byte in its area, the *request*, and clears it behind it. Where the kernel would have preempted the thread in
//! between, it *grants* a few microseconds instead (5, at most 50: `rseq/slice_ext_nsec` in debugfs), once. Who finds
//! that it was granted some gives the CPU up when the moment is over, by a system call; any other system call ends the
//! extension as well, before it does anything else. Who does not is preempted when the time is over.
//!
//! ```
//! use rseq::slice::{Slice, End};
//!
//! let registration = rseq::probe()?;
//! match Slice::find(&registration).and_then(|slice| slice.enable_thread().map(|()| slice)) {
//!     Ok(slice) => {
//!         let asking = slice.ask();
//!         // ... a lock is taken, held and given back ...
//!         match asking.end() {
//!             End::Undisturbed => {}
//!             End::Granted => println!("the kernel waited, and this thread has given up its CPU since"),
//!             End::Lost => println!("this thread was preempted all the same"),
//!         }
//!     }
//!     Err(why) => println!("no slice extensions: {why}"),
//! }
//! # Ok::<(), rseq::Unavailable>(())
//! ```
//!
//! # What to know
//!
//! * Each thread enables them for itself, once. A child of `fork` has what its parent's thread had; `execve` ends it.
//! * The kernel gives them for areas registered with more than 32 bytes: glibc's from 2.41 on, and areas of this crate's
//!   own without the feature `short-area`.
//! * It clears the request when it preempts the thread, so what is left of the moment is not protected, and needs no
//!   protection: the thread has a new slice. [`End::Lost`] says that it happened. A fence ([`crate::fence`]) that
//!   interrupts the CPU clears the request as well.
//! * A signal handler that comes in between may ask too: [`Slice::ask`] within another one's moment changes nothing.
//! * A thread that asks and never ends costs others 5 µs at each of its preemptions, no more.
//! * A request without [`Slice::enable_thread`] is never granted, but is cleared by a preemption. Linux 7.2 does that; no
//!   document promises it.

use core::fmt;
use core::marker::PhantomData;

use linux_raw_sys::general::__NR_prctl;

use crate::abi;
use crate::arch;
use crate::syscall;
use crate::thread::{Registration, Unavailable};

/// Why a thread has no slice extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// The thread has no area.
    NoArea(Unavailable),
    /// The kernel does not know them (EINVAL).
    Unknown,
    /// The kernel was built without them (ENOTSUPP, 524).
    NotBuilt,
    /// The area was registered with 32 bytes, and the kernel has them for longer ones.
    ShortArea,
    /// The kernel has them, and was told at its start to give none.
    SwitchedOff,
    /// The kernel, or a filter, refused with this errno.
    Errno(i32),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoArea(why) => why.fmt(f),
            Refused::Unknown => f.write_str("the kernel knows no slice extensions (Linux 7.0)"),
            Refused::NotBuilt => f.write_str("the kernel was built without CONFIG_RSEQ_SLICE_EXTENSION"),
            Refused::ShortArea => f.write_str("the rseq area has 32 bytes, as with glibc before 2.41"),
            Refused::SwitchedOff => f.write_str("the kernel was started with rseq_slice_ext=0"),
            Refused::Errno(errno) => write!(f, "prctl(PR_RSEQ_SLICE_EXTENSION) was refused (errno {errno})"),
        }
    }
}

impl core::error::Error for Refused {}

/// How a moment ended for which a thread asked for more time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Nobody wanted the CPU.
    Undisturbed,
    /// The kernel granted an extension, and the moment was over before it was.
    Granted,
    /// The thread was preempted in the moment: no extension was granted, or it was too short.
    Lost,
}

/// Slice extensions, in a process whose kernel has them. See the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice(Registration);

impl Slice {
    /// Asks the kernel whether it gives slice extensions to threads registered like the calling one, which it registers
    /// if that was not done. Enables nothing.
    ///
    /// # Errors
    ///
    /// Why it gives none. A kernel that was told to give none may say so in [`Slice::enable_thread`] only.
    pub fn find(registration: &Registration) -> Result<Slice, Refused> {
        registration.ensure_thread().map_err(Refused::NoArea)?;
        match control(abi::SLICE_EXTENSION_GET, 0) {
            Ok(_) => {}
            Err(libc::EINVAL) => return Err(Refused::Unknown),
            Err(abi::ENOTSUPP) => return Err(Refused::NotBuilt),
            Err(errno) => return Err(Refused::Errno(errno)),
        }
        let slice = Slice(*registration);
        if slice.flags() & abi::SLICE_AVAILABLE == 0 {
            return Err(slice.not_given());
        }
        Ok(slice)
    }

    /// Lets the calling thread ask, from now on. One system call; again, it changes nothing.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn enable_thread(&self) -> Result<(), Refused> {
        self.0.ensure_thread().map_err(Refused::NoArea)?;
        match control(abi::SLICE_EXTENSION_SET, abi::SLICE_ENABLE) {
            Ok(_) => Ok(()),
            Err(abi::ENOTSUPP) => Err(self.not_given()),
            Err(libc::EINVAL) => Err(Refused::Unknown),
            Err(errno) => Err(Refused::Errno(errno)),
        }
    }

    /// Whether the calling thread may ask: a load.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.flags() & abi::SLICE_ENABLED != 0
    }

    /// Asks until the value that is returned is ended or dropped, unless the thread asks already.
    #[inline]
    #[must_use = "dropping it ends the request"]
    pub fn ask(&self) -> Asking<'_> {
        // SAFETY: a word of this thread's area.
        let outermost = unsafe { arch::load_u32(self.0.offset() + abi::SLICE_CTRL) } == 0;
        if outermost {
            self.request();
        }
        Asking { slice: self, outermost, _not_send: PhantomData }
    }

    /// Sets the request. For who keeps count of moments that lie within one another; others [`ask`](Slice::ask).
    #[inline]
    pub fn request(&self) {
        // SAFETY: a byte of this thread's area that users write. The compiler moves no access of memory across it, and
        // the kernel looks on this CPU only.
        unsafe { arch::store_u8(self.0.offset() + abi::SLICE_REQUEST, 1) };
    }

    /// Clears the request. After [`End::Granted`] the thread owes the kernel [`give_up`](Slice::give_up), or any other
    /// system call.
    #[inline]
    pub fn withdraw(&self) -> End {
        // SAFETY: bytes of this thread's area, the first of which users write.
        let (requested, granted) = unsafe {
            let requested = arch::load_u8(self.0.offset() + abi::SLICE_REQUEST);
            arch::store_u8(self.0.offset() + abi::SLICE_REQUEST, 0);
            // After the store: from now on no grant can come.
            (requested, arch::load_u8(self.0.offset() + abi::SLICE_GRANTED))
        };
        if granted != 0 {
            End::Granted
        } else if requested != 0 {
            End::Undisturbed // or it was lost this very moment
        } else {
            End::Lost
        }
    }

    /// Gives up the CPU after an extension. True if that ended it; false if it was over.
    pub fn give_up(&self) -> bool {
        // SAFETY: takes nothing; it changes the calling thread's area as the kernel does.
        let answer = unsafe { syscall::call(abi::NR_RSEQ_SLICE_YIELD, []) };
        answer == Ok(1)
    }

    fn flags(&self) -> u32 {
        // SAFETY: a word of this thread's area.
        unsafe { arch::load_u32(self.0.offset() + abi::FLAGS) }
    }

    /// Why a kernel that has them gives none.
    fn not_given(&self) -> Refused {
        if self.0.length() <= abi::ORIGINAL_LENGTH { Refused::ShortArea } else { Refused::SwitchedOff }
    }
}

/// The calling thread asks for more time while this lives. Made by [`Slice::ask`].
#[derive(Debug)]
pub struct Asking<'a> {
    slice: &'a Slice,
    outermost: bool,
    _not_send: PhantomData<*mut ()>,
}

impl Asking<'_> {
    /// Ends the request, and gives the CPU up if more time was granted. What lies within another one's moment ends
    /// nothing, and is undisturbed.
    pub fn end(mut self) -> End {
        self.finish()
    }

    fn finish(&mut self) -> End {
        if !core::mem::take(&mut self.outermost) {
            return End::Undisturbed;
        }
        let end = self.slice.withdraw();
        if end == End::Granted {
            self.slice.give_up();
        }
        end
    }
}

impl Drop for Asking<'_> {
    #[inline]
    fn drop(&mut self) {
        self.finish();
    }
}

/// `prctl(PR_RSEQ_SLICE_EXTENSION, ...)` for the calling thread.
fn control(what: usize, value: usize) -> Result<usize, i32> {
    // SAFETY: numbers only; the kernel changes the flags of the calling thread's area.
    unsafe { syscall::call(__NR_prctl.into(), [abi::SLICE_EXTENSION, what, value, 0, 0]) }
}
