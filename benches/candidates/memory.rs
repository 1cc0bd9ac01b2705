//! Slabs of the candidates: 64 KiB for each possible CPU, filled in when a thread first comes there.

use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rseq::Slab;
use rseq::slab::make_array;

use super::{CAPACITY, LISTS};

/// log2 of the bytes from one slab to the next.
pub const SHIFT: usize = 16;
/// Offset of the first header.
pub const HEADERS: usize = 8;
/// Offset of the first array, behind everything a header or [`Slab`] takes.
const ARRAYS: usize = 1024;
const WORDS: usize = CAPACITY + 2;
const _: () = assert!(size_of::<Slab<LISTS>>() <= ARRAYS && ARRAYS + LISTS * WORDS * 8 <= 1 << SHIFT);

/// How a list's header says where the list is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Pointer,
    U32,
    U16,
    Linked,
}

/// What the first word of a slab says.
#[derive(Clone, Copy)]
pub enum First {
    /// Its CPU.
    Id,
    /// That it may be used.
    Flag,
    /// A [`Slab`] of the crate's, which is started.
    Slab,
    /// A [`Slab`] of the crate's that one thread has.
    OwnSlab,
}

/// One mapping: two slabs that stay zero, then one for each possible CPU.
pub struct Slabs {
    base: *mut u8,
    cpus: usize,
    header: Header,
    first: First,
    made: Mutex<Vec<bool>>,
}

// SAFETY: slabs are filled in under the lock, and then changed by sequences or by their one thread.
unsafe impl Sync for Slabs {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Slabs {}

impl Slabs {
    pub fn leak(header: Header, first: First) -> &'static Slabs {
        let cpus = rseq::kernel::possible_cpus();
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new mapping, which replaces nothing and is kept.
        let memory = unsafe { libc::mmap(ptr::null_mut(), (cpus + 2) << SHIFT, access, kind, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED, "address space for {} slabs", cpus + 2);
        // SAFETY: within the mapping.
        let base = unsafe { memory.cast::<u8>().add(2 << SHIFT) };
        Box::leak(Box::new(Slabs { base, cpus, header, first, made: Mutex::new(vec![false; cpus]) }))
    }

    /// The slab of CPU 0.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// The slab of `cpu`, filled in.
    pub fn slab(&self, cpu: u32) -> *mut u8 {
        assert!((cpu as usize) < self.cpus, "CPU {cpu} of {}", self.cpus);
        // SAFETY: within the mapping.
        let slab = unsafe { self.base.add((cpu as usize) << SHIFT) };
        let mut made = self.made.lock().expect("no panic");
        if !std::mem::replace(&mut made[cpu as usize], true) {
            // SAFETY: zero, ours, and used by nobody before its first word says so.
            unsafe { self.fill(slab, cpu) };
        }
        slab
    }

    /// # Safety
    ///
    /// * `slab` is `1 << SHIFT` zero bytes that nobody uses.
    unsafe fn fill(&self, slab: *mut u8, cpu: u32) {
        if matches!(self.first, First::Slab | First::OwnSlab) {
            // SAFETY: aligned and large enough.
            unsafe { slab.cast::<Slab<LISTS>>().write(Slab::new()) };
        }
        for list in 0..LISTS {
            let begin = ARRAYS / 8 + list * WORDS + 1;
            // SAFETY: arrays and headers are within the slab, by the assertion above, and apart.
            unsafe {
                let memory = NonNull::new_unchecked(slab.add(ARRAYS + list * WORDS * 8).cast());
                let first = make_array(memory, CAPACITY);
                let header = slab.add(HEADERS);
                match self.header {
                    Header::Pointer => header.cast::<usize>().add(list).write(first as usize),
                    Header::U32 => {
                        header.cast::<[u32; 2]>().add(list).write([begin, begin + CAPACITY].map(|n| n as u32))
                    }
                    Header::U16 => {
                        header.cast::<[u16; 2]>().add(list).write([begin, begin + CAPACITY].map(|n| n as u16))
                    }
                    Header::Linked => {}
                }
            }
        }
        // Release: who finds the slab in use finds it filled in.
        match self.first {
            // SAFETY: the first word, which sequences only read.
            First::Id => unsafe { &*slab.cast::<AtomicU32>() }.store(cpu, Ordering::Release),
            // SAFETY: as above.
            First::Flag => unsafe { &*slab.cast::<AtomicUsize>() }.store(1, Ordering::Release),
            // SAFETY: new, its tops point to arrays, and no other slab has this CPU.
            First::Slab => unsafe { (*slab.cast::<Slab<LISTS>>()).start::<rseq::CpuId>(cpu) },
            First::OwnSlab => {}
        }
    }
}

/// The CPU the thread is on.
pub fn cpu() -> u32 {
    // SAFETY: no preconditions.
    u32::try_from(unsafe { libc::sched_getcpu() }).expect("a CPU")
}
