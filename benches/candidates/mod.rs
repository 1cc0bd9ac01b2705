//! Fast paths tried against each other; `README.md` says which and why.

pub mod check;
pub mod compare;
mod memory;
mod own;
pub mod patterns;
mod plain;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::ptr::NonNull;

use patterns::{Entry, Job, entry};
use rseq::{Miss, Registration};

/// Lists of a slab, as many as the allocator has classes.
pub const LISTS: usize = 44;
/// The list that is used where one is: not the first, as in the allocator.
pub const LIST: usize = 7;
/// What a list that is bounded can hold.
pub const CAPACITY: usize = 126;

/// Lists of free objects. Methods are called by one thread at a time, or by any number if it is a sequence.
pub trait Candidate: Copy + Send + Sync + 'static {
    /// As in the README's table.
    const NAME: &'static str;
    /// New lists, all empty.
    fn new(registration: &Registration) -> Self;
    /// Whether a list holds [`CAPACITY`] objects and no more.
    const BOUNDED: bool = true;
    fn pop(self, list: usize) -> Result<NonNull<u8>, Miss>;
    fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    /// Finds the calling thread's slab, at first and after [`Miss::Moved`].
    fn locate(self);
}

/// An object of the lists: its first word is a linked list's.
#[repr(C, align(64))]
pub struct Object {
    pub link: std::sync::atomic::AtomicUsize,
    /// 1 while a thread has it.
    pub owner: std::sync::atomic::AtomicU32,
}

impl Object {
    pub fn leak(count: usize) -> &'static [Object] {
        (0..count).map(|_| Object { link: 0.into(), owner: 1.into() }).collect::<Vec<_>>().leak()
    }

    pub fn pointer(&'static self) -> NonNull<u8> {
        NonNull::from(self).cast()
    }
}

/// Checks all candidates and gets them ready to be timed, in the README's order. The first is the crate's own, and the one
/// named [`plain::Pointer::NAME`] is what the others are compared with.
pub fn all(registration: &Registration, storm: check::Storm<'_>) -> Vec<Entry> {
    fn sequence<C: Candidate>(registration: &Registration, storm: check::Storm<'_>, job: Job) -> Entry {
        check::model(C::new(registration));
        check::conserves(C::new(registration), storm);
        entry(C::new(registration), job)
    }
    fn thread<C: Candidate>(registration: &Registration, job: Job) -> Entry {
        check::model(C::new(registration));
        entry(C::new(registration), job)
    }
    let mut entries = vec![sequence::<own::Crate>(registration, storm, Job::Same)];
    #[cfg(target_arch = "x86_64")]
    {
        entries.push(sequence::<x86_64::NamedBase>(registration, storm, Job::Same));
        entries.push(sequence::<x86_64::NamedIndexed>(registration, storm, Job::Same));
        entries.push(sequence::<x86_64::NamedU32>(registration, storm, Job::Same));
        entries.push(sequence::<x86_64::NamedU16>(registration, storm, Job::Same));
        entries.push(sequence::<x86_64::IndexedPointer>(registration, storm, Job::Same));
        entries.push(sequence::<x86_64::IndexedU32>(registration, storm, Job::Same));
        entries.push(sequence::<x86_64::NamedLinked>(registration, storm, Job::Less));
        check::is_found_out(x86_64::NotArmed::new(registration), storm);
        entries.push(thread::<x86_64::NotArmed>(registration, Job::Less));
    }
    #[cfg(not(target_arch = "x86_64"))]
    println!("I with other headers, S8, linked and not armed: not measured, they are written for x86-64");
    entries.push(thread::<plain::Pointer>(registration, Job::Thread));
    entries.push(thread::<plain::U32>(registration, Job::Thread));
    entries.push(thread::<plain::U16>(registration, Job::Thread));
    entries.push(thread::<plain::Stack>(registration, Job::Thread));
    entries.push(entry(plain::Atomic::new(registration), Job::Less));
    entries
}
