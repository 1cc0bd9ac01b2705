//! Random streams of operations on the C interface, judged by the test kit: preloaded in every mode, and opened late under
//! its other names.
//!
//! This program runs itself again on libperseq, so that the functions of its own process are the subject.

mod kit;
#[path = "kit/timed.rs"]
mod timed;

use std::alloc::Layout;
use std::ffi::{CStr, c_char, c_int};
use std::mem::transmute_copy;

use allocator_test_kit::{Ability, ByC, Errno, Kit, Subject, Tally};

/// A function of that name in this process.
fn symbol(name: &CStr) -> Option<*mut libc::c_void> {
    // SAFETY: a string of ours.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// The mode of the libperseq that this process runs on. `None`: it runs on none.
fn mode() -> Option<String> {
    let function = symbol(c"perseq_mode")?;
    // SAFETY: a function of this type, as perseq.h says, and the string that it returns.
    let name = unsafe {
        let function: extern "C" fn() -> *const c_char = transmute_copy(&function);
        CStr::from_ptr(function())
    };
    Some(name.to_str().expect("UTF-8").to_owned())
}

/// The C family of this process, which is libperseq's, and what libperseq says of itself.
struct Preloaded {
    family: ByC,
    /// Whether what is live is the stream's alone: the C library allocates for each of its threads, and keeps that with
    /// their stacks.
    counts: bool,
    trim: unsafe extern "C" fn(usize) -> c_int,
    drain: unsafe extern "C" fn() -> usize,
    information: unsafe extern "C" fn() -> Information,
}

/// `struct mallinfo2`.
#[repr(C)]
struct Information([usize; 10]);

/// Where that has the bytes in the program's hands.
const UORDBLKS: usize = 7;

impl Preloaded {
    fn new(counts: bool) -> Preloaded {
        let function = |name| symbol(name).unwrap_or_else(|| panic!("no {name:?}"));
        let (trim, drain) = (function(c"perseq_malloc_trim"), function(c"perseq_drain"));
        let information = function(c"mallinfo2");
        let family = ByC::of_the_process().promising(Errno::KEPT);
        let handlers = !mode().expect("libperseq's").starts_with("perthread");
        // SAFETY: functions of these types, as perseq.h and glibc's malloc.h say.
        unsafe {
            Preloaded {
                family: if handlers { family.in_handlers() } else { family },
                counts,
                trim: transmute_copy(&trim),
                drain: transmute_copy(&drain),
                information: transmute_copy(&information),
            }
        }
    }
}

// SAFETY: passes calls on.
unsafe impl Subject for Preloaded {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same, here and below.
        unsafe { self.family.allocate(layout) }
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.family.allocate_zeroed(layout) }
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.family.resize(block, layout, size) }
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.family.free(block, layout) }
    }

    fn drain(&self, whole: bool) -> bool {
        // SAFETY: neither has preconditions.
        unsafe {
            if whole {
                (self.trim)(0);
            } else {
                (self.drain)();
            }
        }
        true
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        // SAFETY: no preconditions.
        let Information(numbers) = unsafe { (self.information)() };
        self.counts.then(|| [numbers[UORDBLKS] as u64, 0])
    }

    fn allows_handlers(&self) -> bool {
        self.family.allows_handlers()
    }

    fn errno(&self) -> Errno {
        self.family.errno()
    }
}

fn passes<S: Subject>(kit: &Kit, make: impl Fn() -> S) -> Tally {
    let passed = kit.run(make).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{passed:?}");
    let Tally { allocated, refused, resized, freed, interrupted, forked, exhausted, .. } = passed;
    let reached = [allocated, refused, resized, freed, interrupted, forked, exhausted];
    assert!(reached.iter().all(|count| *count > 0), "{passed:?}");
    passed
}

#[test]
fn preloaded_in_every_mode() {
    if mode().is_some() {
        let counted = passes(&Kit::new().seed(2).cases(15).without(Ability::Threads), || Preloaded::new(true));
        let shared = passes(&Kit::new().seed(3).cases(15), || Preloaded::new(false));
        assert!(shared.sent > 0 && shared.ended > 0 && counted.drained > 0, "{shared:?}, {counted:?}");
        return;
    }
    if !kit::is_glibc("streams on libperseq, preloaded", "a Rust program is linked statically there") {
        return;
    }
    let program = std::env::current_exe().expect("the path of this binary");
    for mode in timed::every_mode() {
        let mut command = timed::on_libperseq(&program, mode, &[]);
        command.args(["preloaded_in_every_mode", "--exact", "--nocapture", "--test-threads=1"]);
        timed::run(command).ended(0, "1 passed");
    }
}

/// A second allocator in a process whose own is the C library's.
#[test]
fn opened_late() {
    if !kit::is_glibc("streams on a library that is opened late", "musl keeps no room for its thread-local words") {
        return;
    }
    let family = ByC::of_library(kit::library(), "perseq_").unwrap_or_else(|error| panic!("{error}"));
    let family = family.promising(Errno::KEPT).in_handlers();
    let passed = passes(&Kit::new().seed(4).cases(15), || &family);
    assert!(passed.sent > 0 && passed.in_handlers > 0, "{passed:?}");
}
