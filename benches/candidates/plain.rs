//! One thread's lists, changed by plain loads and stores, and what Rust has without `unsafe`.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed};

use rseq::slab::SENTINEL;
use rseq::{Miss, Registration, Slab, local};

use super::memory::{First, HEADERS, Header, Slabs};
use super::{CAPACITY, Candidate, LISTS, Object};
use crate::kit;

fn fit<T>(answer: Option<T>) -> Result<T, Miss> {
    answer.ok_or(Miss::Unfit)
}

/// P with the pointer header.
#[derive(Clone, Copy)]
pub struct Pointer(&'static Slabs);

impl Candidate for Pointer {
    const NAME: &'static str = "P, pointer";

    fn new(_: &Registration) -> Self {
        Pointer(Slabs::leak(Header::Pointer, First::OwnSlab))
    }

    #[inline(always)]
    fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        // SAFETY: the cell names this thread's slab, and lists are below LISTS.
        fit(unsafe { local::pop(kit::cell().get(), list) })
    }

    #[inline(always)]
    fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        // SAFETY: as in `pop`; objects are aligned to 64.
        fit(unsafe { local::push(kit::cell().get(), list, object) }.then_some(()))
    }

    fn locate(self) {
        // SAFETY: a slab that was filled in, and is kept.
        kit::cell().set(unsafe { &*self.0.slab(0).cast::<Slab<LISTS>>() });
    }
}

/// A list with an index header, in the slab that the kit's cell names.
macro_rules! indexed {
    ($name:ident, $text:literal, $header:expr, $half:ty, $scale:literal) => {
        #[derive(Clone, Copy)]
        pub struct $name(&'static Slabs);

        impl Candidate for $name {
            const NAME: &'static str = $text;

            fn new(_: &Registration) -> Self {
                $name(Slabs::leak($header, First::OwnSlab))
            }

            #[inline(always)]
            fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
                let slab = std::ptr::from_ref(kit::cell().get()).cast::<u8>();
                // SAFETY: header and array of this thread's slab; the slot below the first object is odd.
                unsafe {
                    let next = &*slab.add(HEADERS + $scale * list).cast::<$half>();
                    let at = next.load(Relaxed);
                    let item = (*slab.cast::<AtomicUsize>().add(at as usize - 1)).load(Relaxed);
                    if item & SENTINEL != 0 {
                        return Err(Miss::Unfit);
                    }
                    next.store(at - 1, Relaxed);
                    fit(NonNull::new(item as *mut u8))
                }
            }

            #[inline(always)]
            fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
                let slab = std::ptr::from_ref(kit::cell().get()).cast::<u8>();
                // SAFETY: as in `pop`; `at` is below the end.
                unsafe {
                    let [next, end] = &*slab.add(HEADERS + $scale * list).cast::<[$half; 2]>();
                    let at = next.load(Relaxed);
                    if at >= end.load(Relaxed) {
                        return Err(Miss::Unfit);
                    }
                    (*slab.cast::<AtomicUsize>().add(at as usize)).store(object.as_ptr() as usize, Relaxed);
                    next.store(at + 1, Relaxed);
                }
                Ok(())
            }

            fn locate(self) {
                // SAFETY: only its address is used; it is kept, and as large as a slab.
                kit::cell().set(unsafe { &*self.0.slab(0).cast::<Slab<LISTS>>() });
            }
        }
    };
}

indexed!(U32, "P, 32 bit", Header::U32, AtomicU32, 8);
indexed!(U16, "P, 16 bit", Header::U16, AtomicU16, 4);

thread_local!(static STACKS: RefCell<[Vec<NonNull<u8>>; LISTS]> = const { RefCell::new([const { Vec::new() }; LISTS]) });

/// The standard library's thread-local storage with a vector for each list.
#[derive(Clone, Copy)]
pub struct Stack;

impl Candidate for Stack {
    const NAME: &'static str = "Vec";

    fn new(_: &Registration) -> Self {
        STACKS.with_borrow_mut(|stacks| stacks.iter_mut().for_each(Vec::clear));
        Stack
    }

    #[inline(always)]
    fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        fit(STACKS.with_borrow_mut(|stacks| stacks[list].pop()))
    }

    #[inline(always)]
    fn push(self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        STACKS.with_borrow_mut(|stacks| {
            let fits = stacks[list].len() < CAPACITY;
            if fits {
                stacks[list].push(object);
            }
            fit(fits.then_some(()))
        })
    }

    fn locate(self) {}
}

/// No list: what an atomic addition for each operation costs, on a line that nobody else uses.
#[derive(Clone, Copy)]
pub struct Atomic(&'static [Object]);

impl Candidate for Atomic {
    const NAME: &'static str = "atomic";

    fn new(_: &Registration) -> Self {
        Atomic(Object::leak(LISTS))
    }

    #[inline(always)]
    fn pop(self, list: usize) -> Result<NonNull<u8>, Miss> {
        self.0[list].link.fetch_add(1, Relaxed);
        Ok(self.0[list].pointer())
    }

    #[inline(always)]
    fn push(self, list: usize, _: NonNull<u8>) -> Result<(), Miss> {
        self.0[list].link.fetch_sub(1, Relaxed);
        Ok(())
    }

    fn locate(self) {}
}
