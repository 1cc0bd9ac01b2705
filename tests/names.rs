//! Names of mappings (`PERSEQ_NAMES=1`): what the kernel shows of them, and, where it has none, what it was asked for.
//!
//! A filter hands the calls to the test there, which answers them as a kernel that gives names, or as one that does not.

mod kit;

use std::alloc::{GlobalAlloc, Layout, alloc, dealloc, realloc};
use std::io::Read;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

use kit::object::layout;
use kit::{Child, not_tested};
use perseq::pages::{Mmap, PageAllocator};
use perseq::{Heap, Mode, ReleasePolicy, stats};

#[global_allocator]
static ALLOCATOR: perseq::Perseq = perseq::Perseq::new();

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const HEAP: &str = "perseq:heap";
const TABLES: &str = "perseq:tables";
const EMERGENCY: &str = "perseq:emergency";
const APART: &str = "perseq:apart";

/// A mapping, and its name: `[anon:...]` without the brackets, else what the kernel calls it.
#[derive(Debug)]
struct Mapping {
    range: Range<usize>,
    name: String,
}

/// All mappings, and the bytes that the heap had mapped then.
fn mappings_and_committed() -> (Vec<Mapping>, u64) {
    let mut text = String::with_capacity(4 * MIB);
    let mut file = std::fs::File::open("/proc/self/maps").expect("/proc is mounted");
    file.read_to_string(&mut text).expect("maps");
    let committed = stats().committed_bytes;
    assert!(text.len() < 4 * MIB, "nothing was allocated in between");
    (text.lines().filter_map(mapping).collect(), committed)
}

fn mappings() -> Vec<Mapping> {
    mappings_and_committed().0
}

fn mapping(line: &str) -> Option<Mapping> {
    let fields: Vec<_> = line.splitn(6, ' ').collect();
    let (start, end) = fields[0].split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).expect("an address");
    let name = fields.get(5).map_or("", |name| name.trim());
    let anonymous = name.strip_prefix("[anon:").and_then(|name| name.strip_suffix(']'));
    Some(Mapping { range: address(start)..address(end), name: anonymous.unwrap_or(name).to_owned() })
}

/// A block whose first byte is written.
fn block(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the size is not 0, and the byte is ours.
    unsafe {
        let block = alloc(layout(size, align));
        assert!(!block.is_null(), "{size} bytes");
        block.write(1);
        block
    }
}

fn free(block: *mut u8, size: usize, align: usize) {
    // SAFETY: allocated with this layout, and freed once.
    unsafe { dealloc(block, layout(size, align)) };
}

/// Every way to come to pages of the heap: small and large blocks, some aligned to much, some that grow and move. They are
/// freed again.
fn use_heap() {
    let sizes = [24, 700, 5000, 40_000, 300_000, 3 * MIB, 60 * MIB];
    let held: Vec<_> = sizes
        .iter()
        .map(|size| (*size, (0..(70 * MIB / size).min(20_000)).map(|_| block(*size, 8)).collect()))
        .collect();
    let mut growing: Vec<_> = (0..40).map(|_| (block(300_000, 8), 300_000)).collect();
    for _ in 0..4 {
        for (start, size) in &mut growing {
            // SAFETY: allocated with this layout.
            *start = unsafe { realloc(*start, layout(*size, 8), *size + 200_000) };
            assert!(!start.is_null());
            *size += 200_000;
        }
    }
    let aligned: Vec<_> = (0..3).map(|_| block(100_000, 4 * GIB)).collect();
    aligned.into_iter().for_each(|block| free(block, 100_000, 4 * GIB));
    growing.into_iter().for_each(|(start, size)| free(start, size, 8));
    for (size, blocks) in held {
        let blocks: Vec<_> = blocks;
        blocks.into_iter().for_each(|block| free(block, size, 8));
    }
}

/// Bytes of the mappings of a name.
fn named(mappings: &[Mapping], name: &str) -> usize {
    mappings.iter().filter(|mapping| mapping.name == name).map(|mapping| mapping.range.len()).sum()
}

/// All that the heap has mapped has its name, and nothing else does.
fn the_heap_is_named(when: &str) {
    let (mappings, committed) = mappings_and_committed();
    assert_eq!(named(&mappings, HEAP) as u64, committed, "{when}: bytes with its name, and bytes mapped");
}

/// As the kernel shows them.
#[test]
fn every_mapping_of_the_heap_has_its_name() {
    if kit::role().is_none() {
        if !kit::kernel::has_names() {
            let why = "prctl(PR_SET_VMA) is refused: it needs CONFIG_ANON_VMA_NAME";
            return not_tested("mapping-names", "names of mappings as the kernel shows them", why);
        }
        let child = || Child::of("every_mapping_of_the_heap_has_its_name", "named").env("PERSEQ_NAMES", "1");
        for mode in Mode::ALL {
            child().mode(mode).run().passed();
        }
        child().env("PERSEQ_HARDENED", "1").run().passed();
        child().env("PERSEQ_THP", "always").env("PERSEQ_RELEASE", "now").run().passed();
        return;
    }
    the_heap_is_named("at the start");
    let first = block(1000, 8);
    for round in 0..3 {
        use_heap();
        the_heap_is_named(&format!("{round}: used"));
        perseq::release();
        the_heap_is_named(&format!("{round}: given back"));
    }
    free(first, 1000, 8);
    assert!(named(&mappings(), TABLES) > 0, "blocks 4 GiB apart have tables of their own");
    perseq::check();
}

/// As the kernel shows them.
#[test]
fn what_is_apart_has_names_of_its_own() {
    const NAME: &str = "what_is_apart_has_names_of_its_own";
    if kit::role().is_none() {
        if !kit::kernel::has_names() {
            return not_tested("mapping-names", "names of heaps apart as the kernel shows them", "see above");
        }
        Child::of(NAME, "named").env("PERSEQ_NAMES", "1").run().passed();
        return;
    }
    free(block(100, 8), 100, 8); // the environment is read by now
    assert_eq!(named(&mappings(), APART), 0);
    let of = |address: usize| {
        let found = mappings().into_iter().find(|mapping| mapping.range.contains(&address));
        found.map(|mapping| mapping.name).unwrap_or_default()
    };
    let (heap, pages) = (Heap::new(Mmap::new()), PageAllocator::new(Mmap::new(), GIB));
    let run = pages.allocate(5 * MIB, 1).expect("memory");
    for size in [100, 10 * MIB] {
        // SAFETY: the size is not 0; it is freed with the heap.
        let inside = unsafe { heap.alloc(Layout::from_size_align(size, 8).expect("a layout")) };
        assert_eq!((of(inside as usize), of(run.start.as_ptr() as usize)), (APART.into(), APART.into()), "{size}");
    }
    drop((heap, pages));
    assert_eq!(named(&mappings(), APART), 0, "they are gone");
}

/// What a handler got.
static OF_HANDLERS: [AtomicPtr<u8>; 4096] = [const { AtomicPtr::new(ptr::null_mut()) }; 4096];
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn allocate_in_handler(_: libc::c_int) {
    let number = HANDLED.fetch_add(1, Relaxed);
    if let Some(place) = OF_HANDLERS.get(number) {
        place.store(block(100_000, 8), Relaxed);
    }
}

/// As the kernel shows them.
#[test]
fn memory_for_who_must_not_wait_has_a_name() {
    if kit::role().is_none() {
        if !kit::kernel::has_names() {
            return not_tested("mapping-names", "names of memory for handlers as the kernel shows them", "see above");
        }
        let child = Child::of("memory_for_who_must_not_wait_has_a_name", "named").env("PERSEQ_NAMES", "1");
        child.mode(Mode::PerCpu).run().passed();
        return;
    }
    let (start, found) = (Instant::now(), || named(&mappings(), EMERGENCY) > 0);
    // SAFETY: the handler does what an allocator allows in one; the structures are plain numbers.
    unsafe {
        let handler: extern "C" fn(libc::c_int) = allocate_in_handler;
        libc::signal(libc::SIGALRM, handler as libc::sighandler_t);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()), 0);
    }
    let mut seen = false;
    while !seen && start.elapsed() < Duration::from_secs(100) {
        for _ in 0..2000 {
            free(block(200_000, 8), 200_000, 8);
        }
        seen = found();
        for place in &OF_HANDLERS {
            let block = place.swap(ptr::null_mut(), Relaxed);
            if !block.is_null() {
                free(block, 100_000, 8);
            }
        }
        HANDLED.store(0, Relaxed);
    }
    // SAFETY: plain numbers again: the timer stops.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &std::mem::zeroed(), ptr::null_mut()) };
    assert!(seen, "no handler got memory of a name of its own");
}

/// Each `PR_SET_VMA_ANON_NAME` that a filter handed to this process: where, how many bytes, and the name's address.
static ASKED: [[AtomicUsize; 3]; 1 << 15] = [const { [const { AtomicUsize::new(0) }; 3] }; 1 << 15];
static ASKED_COUNT: AtomicUsize = AtomicUsize::new(0);
/// The answer is that of a kernel without names.
static REFUSE: AtomicBool = AtomicBool::new(false);

/// The processor's state when a signal came: what a system call was given, and where its answer goes.
#[cfg(target_arch = "x86_64")]
fn arguments(context: &mut libc::ucontext_t) -> ([usize; 3], &mut i64) {
    let registers = &mut context.uc_mcontext.gregs;
    let argument = [libc::REG_RDX, libc::REG_R10, libc::REG_R8].map(|register| registers[register as usize] as usize);
    (argument, &mut registers[libc::REG_RAX as usize])
}

#[cfg(target_arch = "aarch64")]
fn arguments(context: &mut libc::ucontext_t) -> ([usize; 3], &mut u64) {
    let registers = &mut context.uc_mcontext.regs;
    ([registers[2] as usize, registers[3] as usize, registers[4] as usize], &mut registers[0])
}

extern "C" fn answer(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's, of the interrupted code, which is in the system call.
    let (asked, answer) = arguments(unsafe { &mut *context.cast::<libc::ucontext_t>() });
    *answer = if REFUSE.load(Relaxed) { -libc::EINVAL } else { 0 }.into();
    let count = ASKED_COUNT.fetch_add(1, SeqCst);
    if let Some(place) = ASKED.get(count) {
        place.iter().zip(asked).for_each(|(place, value)| place.store(value, Relaxed));
    }
}

/// Before anything is allocated: in a child of a test that wants it, each call for a name comes to [`answer`].
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = watch;

extern "C" fn watch() {
    // SAFETY: looks at this process's environment, which has no second thread yet; strings of ours.
    let role = unsafe { libc::getenv(c"PERSEQ_TEST_ROLE".as_ptr()) };
    // SAFETY: as above.
    let plays = |text: &std::ffi::CStr| !role.is_null() && unsafe { libc::strcmp(role, text.as_ptr()) } == 0;
    if !plays(c"watched") && !plays(c"refused") {
        return;
    }
    REFUSE.store(plays(c"refused"), Relaxed);
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless =
        |k: u32, skip: u8| libc::sock_filter { jf: skip, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) };
    // The number of the system call is the first word of what a filter may look at, its first argument the fifth.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        unless(libc::SYS_prctl as u32, 3),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 16),
        unless(libc::PR_SET_VMA as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_TRAP),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = answer;
    // SAFETY: plain structures; the kernel copies the filter, and a handler that only writes words of ours and the answer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSYS, &action, ptr::null_mut());
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter);
    }
}

/// The ranges that were to have this name, from the `first` call on.
fn asked(name: &str, first: usize) -> Vec<Range<usize>> {
    let count = ASKED_COUNT.load(SeqCst);
    assert!(count <= ASKED.len(), "{count} calls: more than there is room for");
    let calls = ASKED[first..count].iter().map(|call| call.each_ref().map(|word| word.load(Relaxed)));
    // SAFETY: the allocator's own string.
    let text = |address: usize| unsafe { std::ffi::CStr::from_ptr(address as *const std::ffi::c_char) };
    let calls = calls.filter(|[_, _, address]| text(*address).to_str() == Ok(name));
    calls.map(|[start, bytes, _]| start..start + bytes).collect()
}

/// The bytes of `whole` that are in none of the ranges.
fn rest(whole: &Range<usize>, mut ranges: Vec<Range<usize>>) -> usize {
    ranges.sort_unstable_by_key(|range| range.start);
    let (mut next, mut rest) = (whole.start, 0);
    for range in ranges {
        rest += range.start.min(whole.end).saturating_sub(next);
        next = next.max(range.end);
    }
    rest + whole.end.saturating_sub(next)
}

#[test]
fn the_kernel_is_asked_to_name_all_that_is_mapped() {
    const NAME: &str = "the_kernel_is_asked_to_name_all_that_is_mapped";
    if kit::role().is_none() {
        for mode in Mode::ALL {
            Child::of(NAME, "watched").env("PERSEQ_NAMES", "1").mode(mode).run().passed();
        }
        Child::of(NAME, "watched").env("PERSEQ_NAMES", "1").env("PERSEQ_HARDENED", "1").run().passed();
        return;
    }
    perseq::set_release(ReleasePolicy::Never);
    use_heap();
    assert!(!asked(TABLES, 0).is_empty(), "blocks 4 GiB apart have tables of their own");
    // Nothing went back yet: all that was named is mapped.
    drop((asked(HEAP, 0), mappings()));
    let ranges = asked(HEAP, 0);
    let everything = ranges.iter().map(|range| range.start).min().expect("a heap")..usize::MAX;
    let committed = stats().committed_bytes;
    let covered = everything.len() - rest(&everything, ranges);
    assert_eq!(covered as u64, committed, "bytes with a name, and bytes mapped");
    // What is mapped again is named again. A place of before may be among it, with what it was called then.
    perseq::release();
    let (first, before) = (ASKED_COUNT.load(SeqCst), mappings());
    assert!(stats().committed_bytes < committed, "something went back");
    use_heap();
    let after = mappings();
    let (heap, tables) = (asked(HEAP, first), asked(TABLES, first));
    let named: Vec<_> = before.into_iter().map(|mapping| mapping.range).chain(heap).chain(tables).collect();
    let mut looked_at = 0;
    for mapping in after.iter().filter(|mapping| mapping.name.is_empty()) {
        assert_eq!(rest(&mapping.range, named.clone()), 0, "bytes of {mapping:x?} have no name");
        looked_at += mapping.range.len();
    }
    assert!(looked_at as u64 >= stats().committed_bytes, "the heap is among the mappings");
}

/// A kernel without names, or a filter that refuses them, is asked once.
#[test]
fn a_refusal_is_the_last_one() {
    if kit::role().is_none() {
        return drop(Child::of("a_refusal_is_the_last_one", "refused").env("PERSEQ_NAMES", "1").run().passed());
    }
    use_heap();
    assert_eq!(ASKED_COUNT.load(SeqCst), 1);
}

/// Nobody who did not ask for names has the call made: filters that are set late may forbid it.
#[test]
fn nobody_is_asked_for_names_unless_they_are_wanted() {
    const NAME: &str = "nobody_is_asked_for_names_unless_they_are_wanted";
    if kit::role().is_none() {
        Child::of(NAME, "watched").run().passed();
        Child::of(NAME, "watched").env("PERSEQ_NAMES", "0").run().passed();
        return;
    }
    use_heap();
    drop(Heap::new(Mmap::new()));
    assert_eq!(ASKED_COUNT.load(SeqCst), 0);
}
