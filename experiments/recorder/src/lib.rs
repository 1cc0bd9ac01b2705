//! A preloadable recorder: the C library's malloc, with a note of each call. `perseq trace record` uses it.
//!
//! Notes go to the file `PERSEQ_TRACE_FILE.PID`, which is mapped and shared, so nothing is lost when the program dies. A
//! process that executes another program writes a file for each: the second is `PERSEQ_TRACE_FILE.PID.2`.
//! It has room for `PERSEQ_TRACE_EVENTS` notes (default 2^24) and is sparse: only what is written takes space.
//!
//! ```text
//! bytes   what, little-endian
//! 0-7     "PSQRAW01"
//! 8-15    notes taken, more than the file holds if it was too short
//! 16-23   notes the file has room for
//! 24-39   name of the process, then zeros
//! 40-47   when it began, in nanoseconds of CLOCK_MONOTONIC
//! 48-55   when it came to its end, as that; 0 if it runs, was killed or executed another program
//! 56-63   its id
//! 64-...  notes of 24 bytes: address u64, size u64, thread u32, kind u32 (0 not written, 1 allocated, 2 freed)
//! ```
//!
//! The place of a note is its place in time: an allocation is noted after the C library made it, a release before it
//! is carried out. A forked child is not recorded; a program it executes is, in a file of its own. Recording orders all
//! threads by one counter, so it keeps who allocated and who freed, not how fast.
//!
//! For glibc: the calls behind are its `__libc_malloc` family.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(pointer: *mut c_void);
}

/// The first bytes of a file.
#[repr(C)]
struct Head {
    magic: [u8; 8],
    taken: AtomicU64,
    room: u64,
    name: [u8; 16],
    began: u64,
    ended: AtomicU64,
    process: u64,
}

/// One note.
#[repr(C)]
struct Note {
    address: AtomicU64,
    size: AtomicU64,
    thread: AtomicU32,
    kind: AtomicU32,
}

const ALLOCATED: u32 = 1;
const FREED: u32 = 2;
const DEFAULT_ROOM: u64 = 1 << 24;
/// Programs that one process executes, each with a file of its own.
const MOST_PROGRAMS: c_int = 1000;

/// The mapped file; null: not recording.
static FILE: AtomicPtr<Head> = AtomicPtr::new(null_mut());

/// Runs when the library is loaded, before the program's own start.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    let Some((file, room)) = open() else { return };
    let bytes = size_of::<Head>() + room as usize * size_of::<Note>();
    // SAFETY: a descriptor of ours and a length that is not 0; the map is never taken away.
    let map = unsafe {
        if libc::ftruncate(file, bytes as libc::off_t) != 0 {
            return complain(b"perseq-recorder: PERSEQ_TRACE_FILE cannot be made long enough\n");
        }
        let map = libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0);
        libc::close(file);
        map
    };
    if map == libc::MAP_FAILED {
        return complain(b"perseq-recorder: PERSEQ_TRACE_FILE cannot be mapped\n");
    }
    let head = map.cast::<Head>();
    // SAFETY: the map is that large, zeroed and ours alone until FILE names it.
    unsafe {
        head.write(Head {
            magic: *b"PSQRAW01",
            taken: AtomicU64::new(0),
            room,
            name: name(),
            began: now(),
            ended: AtomicU64::new(0),
            process: libc::getpid() as u64,
        });
    };
    // SAFETY: the handler is this library's and lives for ever.
    unsafe { libc::pthread_atfork(None, None, Some(stop)) };
    FILE.store(head, Release);
}

/// Runs after the program's own end, if it comes to one.
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

extern "C" fn end() {
    let head = FILE.load(Acquire);
    if !head.is_null() {
        // SAFETY: once named, the map stays.
        unsafe { (*head).ended.store(now(), Relaxed) };
    }
}

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the kernel writes at most 16 bytes, the last of them 0.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// In a forked child: its addresses are the parent's again, so they cannot go to the same file.
extern "C" fn stop() {
    FILE.store(null_mut(), Release);
}

/// The file and how many notes it has room for.
fn open() -> Option<(c_int, u64)> {
    // SAFETY: C strings; getenv does not allocate.
    let (path, events) =
        unsafe { (libc::getenv(c"PERSEQ_TRACE_FILE".as_ptr()), libc::getenv(c"PERSEQ_TRACE_EVENTS".as_ptr())) };
    if path.is_null() {
        return None;
    }
    let mut room = DEFAULT_ROOM;
    if !events.is_null() {
        // SAFETY: a C string.
        let parsed = unsafe { libc::strtoull(events, null_mut(), 10) };
        if parsed == 0 || parsed > 1 << 32 {
            complain(b"perseq-recorder: PERSEQ_TRACE_EVENTS: expected a number from 1 to 2^32\n");
            return None;
        }
        room = parsed;
    }
    for number in 1..=MOST_PROGRAMS {
        let mut name = [0u8; 4096];
        let format = if number == 1 { c"%s.%d" } else { c"%s.%d.%d" };
        // SAFETY: the buffer's own length is given; the arguments are what the formats say, or one more.
        let file = unsafe {
            let process = libc::getpid();
            let length = libc::snprintf(name.as_mut_ptr().cast(), name.len(), format.as_ptr(), path, process, number);
            if length < 0 || length as usize >= name.len() {
                complain(b"perseq-recorder: PERSEQ_TRACE_FILE is too long\n");
                return None;
            }
            libc::open(name.as_ptr().cast(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o600)
        };
        if file >= 0 {
            return Some((file, room));
        }
        // SAFETY: the calling thread's errno.
        if unsafe { *libc::__errno_location() } != libc::EEXIST {
            break;
        }
    }
    complain(b"perseq-recorder: PERSEQ_TRACE_FILE cannot be created\n");
    None
}

fn complain(line: &[u8]) {
    // SAFETY: a buffer and its length.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

fn note(kind: u32, pointer: *mut c_void, size: usize) {
    let head = FILE.load(Acquire); // pairs with `start`
    if head.is_null() || pointer.is_null() {
        return;
    }
    // SAFETY: once named, the map stays.
    let (taken, room) = unsafe { (&(*head).taken, (*head).room) };
    // Relaxed: the C library orders an address's release before its next allocation, and we count in between.
    let place = taken.fetch_add(1, Relaxed);
    if place >= room {
        return;
    }
    // SAFETY: the map has `room` notes behind its head.
    let note = unsafe { &*head.add(1).cast::<Note>().add(place as usize) };
    note.address.store(pointer as u64, Relaxed);
    note.size.store(size as u64, Relaxed);
    // SAFETY: gettid has no preconditions.
    note.thread.store(unsafe { libc::syscall(libc::SYS_gettid) } as u32, Relaxed);
    note.kind.store(kind, Release); // last: a note without a kind was not finished
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: by our own contract.
    let pointer = unsafe { __libc_malloc(size) };
    note(ALLOCATED, pointer, size);
    pointer
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: by our own contract.
    let pointer = unsafe { __libc_calloc(count, size) };
    note(ALLOCATED, pointer, count.wrapping_mul(size)); // it did not overflow, or the pointer is null
    pointer
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    // Noted before it happens: the address may be another thread's the moment after. If the C library then refuses, the
    // block is noted as new under its old address; its old size is not known, and the new one serves.
    note(FREED, pointer, 0);
    // SAFETY: by our own contract.
    let moved = unsafe { __libc_realloc(pointer, size) };
    if moved.is_null() && size != 0 {
        note(ALLOCATED, pointer, size);
    }
    note(ALLOCATED, moved, size);
    moved
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(pointer: *mut c_void) {
    note(FREED, pointer, 0);
    // SAFETY: by our own contract.
    unsafe { __libc_free(pointer) };
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    // SAFETY: by our own contract.
    let pointer = unsafe { __libc_memalign(align, size) };
    note(ALLOCATED, pointer, size);
    pointer
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    // SAFETY: by our own contract.
    unsafe { memalign(align, size) }
}

/// As the C library's.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(result: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    // SAFETY: by our own contract.
    let pointer = unsafe { memalign(align, size) };
    if pointer.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller gave a place for the result.
    unsafe { result.write(pointer) };
    0
}

/// As the C library's, whichever library the program itself brings along: its blocks are the C library's here.
///
/// # Safety
///
/// * That of the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(pointer: *mut c_void) -> usize {
    type Usable = unsafe extern "C" fn(*mut c_void) -> usize;
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    let mut found = FOUND.load(Relaxed);
    if found.is_null() {
        // SAFETY: C strings; the C library is loaded, and this asks for nothing else.
        let library = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        // SAFETY: a handle, and a C string.
        found = unsafe { libc::dlsym(library, c"malloc_usable_size".as_ptr()) };
        FOUND.store(found, Relaxed);
    }
    if found.is_null() {
        return 0;
    }
    // SAFETY: the C library's function of this name has this type; by our own contract.
    unsafe { core::mem::transmute::<*mut c_void, Usable>(found)(pointer) }
}
