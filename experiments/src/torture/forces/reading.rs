//! Those who look at the heap, and those who empty it, while others use it.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, anywhere};
use crate::torture::heap::Door;
use nix::libc::{self, c_int, c_void};
use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Statistics.
pub const READERS: Force =
    Force { name: "readers", what: "readings of the statistics", takes_memory: false, absent: anywhere, act: readers };

/// Caches emptied, pages given back.
pub const DRAINS: Force = Force {
    name: "drains",
    what: "drains of all caches and releases of all free pages",
    takes_memory: false,
    absent: anywhere,
    act: drains,
};

/// Takes text and keeps nothing.
struct Sink;

impl fmt::Write for Sink {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

fn readers(acting: &mut Acting) {
    let nowhere = File::options().write(true).open("/dev/null");
    while acting.goes_on() {
        match acting.shared.heap.door {
            Door::Crate => read_crate(),
            Door::Malloc => read_malloc(nowhere.as_ref().map_or(-1, AsRawFd::as_raw_fd)),
        }
        acting.happened();
        acting.sleep_us(100);
    }
}

fn read_crate() {
    let stats = perseq::stats();
    std::hint::black_box(stats);
    perseq::for_each_cache(&mut |cache| {
        if cache.cached_bytes > cache.capacity_bytes {
            fault(format_args!("a cache reports more than it can hold: {cache:?}"));
        }
    });
    let mut classes = 0;
    perseq::for_each_class(&mut |_| classes += 1);
    if classes == 0 {
        fault(format_args!("the statistics know of no class"));
    }
    // The sink takes everything.
    let _ = perseq::write_json(&mut Sink);
    let _ = perseq::write_text(&mut Sink);
}

/// A function of this signature that what is preloaded may have.
fn optional<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name ends with a zero byte.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: `F` is a function pointer, by the callers below, who know the signature behind the name.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

fn read_malloc(nowhere: c_int) {
    if let Some(info) = optional::<extern "C" fn() -> libc::mallinfo2>(c"mallinfo2") {
        std::hint::black_box(info());
    }
    if let Some(write) = optional::<extern "C" fn(c_int, c_int) -> c_int>(c"perseq_write_stats") {
        write(nowhere, 0);
        write(nowhere, 1);
    }
}

fn drains(acting: &mut Acting) {
    while acting.goes_on() {
        let release = acting.random.once_in(3);
        match acting.shared.heap.door {
            Door::Crate if release => drop(perseq::release()),
            Door::Crate => drop(perseq::drain()),
            Door::Malloc => {
                let drain = optional::<extern "C" fn() -> usize>(c"perseq_drain").filter(|_| !release);
                match drain {
                    Some(drain) => drop(drain()),
                    // SAFETY: an integer. Every malloc of Linux has it.
                    None => drop(unsafe { libc::malloc_trim(0) }),
                }
            }
        }
        acting.happened();
        acting.sleep_us(200);
    }
}
