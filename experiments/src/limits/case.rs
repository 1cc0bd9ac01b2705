//! The rows of the table. Each is one number, measured by a process of its own.

use super::{core, rlimit};
use nix::libc::{self, c_void};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// Which of two numbers is the better one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Better {
    /// The smaller one.
    Less,
    /// The larger one.
    More,
    /// The larger one, but none above this: it would break a limit.
    MoreUpTo(f64),
}

/// A row.
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the number is.
    pub what: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which is better.
    pub better: Better,
    /// A limit that holds before the program starts, in bytes.
    pub limit: Option<(Resource, u64)>,
    /// Measures it, in the process that it is about.
    pub measure: fn() -> Result<f64, String>,
}

const fn case(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    better: Better,
    measure: fn() -> Result<f64, String>,
) -> Case {
    Case { name, what, unit, better, limit: None, measure }
}

const ULIMIT: Option<(Resource, u64)> = Some((Resource::RLIMIT_AS, 1_000_000 << 10));
const DATA: Option<(Resource, u64)> = Some((Resource::RLIMIT_DATA, 512 << 20));
/// What the program limits its own address space to.
const LATE_BYTES: u64 = 2 << 30;

/// Every row, in the order of the table.
pub const CASES: &[Case] = &[
    case("idle", "VmSize of a process that allocated little", "MiB", Better::Less, || {
        little();
        vm_size()
    }),
    case("threads", "VmSize less stacks, with 8 threads that allocated little", "MiB", Better::Less, eight_threads),
    case("grown", "VmSize with 1 GiB in use, in blocks of 64 KiB", "MiB", Better::Less, || {
        grow(1 << 14, 64 << 10);
        vm_size()
    }),
    case("shrunk", "VmSize 5 s after that was freed", "MiB", Better::Less, || {
        shrink(grow(1 << 14, 64 << 10));
        vm_size()
    }),
    case(core::CASE, "size of a core made by gcore, of a process that allocated little", "MiB", Better::Less, || {
        little();
        core::wait()
    }),
    case(
        "mlockall",
        "least RLIMIT_MEMLOCK at which mlockall works for an ordinary user",
        "MiB",
        Better::Less,
        mlockall,
    ),
    case("late", "of thread, mmap, malloc and popen: work after RLIMIT_AS of 2 GiB", "of 4", Better::More, late),
    case("late-malloc", "malloc gives under that limit", "MiB of 2048", Better::MoreUpTo(2048.0), || {
        limit(Resource::RLIMIT_AS, LATE_BYTES)?;
        Ok(blocks_until_null(1 << 20, 8192) as f64)
    }),
    Case {
        limit: ULIMIT,
        ..case("ulimit", "malloc gives under ulimit -v 1000000", "MiB of 976", Better::MoreUpTo(977.0), || {
            Ok((blocks_until_null(100_000, 100_000) as f64 * 100_000.0) / MIB)
        })
    },
    Case {
        limit: ULIMIT,
        ..case("ulimit-threads", "threads under ulimit -v 1000000", "threads", Better::More, threads)
    },
    Case {
        limit: DATA,
        ..case("ulimit-data", "malloc gives under ulimit -d 524288", "MiB of 512", Better::MoreUpTo(512.0), || {
            Ok((blocks_until_null(100_000, 100_000) as f64 * 100_000.0) / MIB)
        })
    },
    case("charge", "commit charge left 5 s after 400 MiB were freed", "MiB", Better::Less, || {
        let before = charge()?;
        shrink(grow(400, 1 << 20));
        Ok(charge()? - before)
    }),
    case("mappings", "mappings of 40,000 blocks that grew", "mappings", Better::Less, || {
        grow_by_realloc()?;
        mappings()
    }),
    case(
        "mappings-own",
        "of 300 mmaps and a thread of the program's own: work beside them",
        "of 301",
        Better::More,
        || {
            grow_by_realloc()?;
            own_mappings()
        },
    ),
    case("aligned", "of 400 blocks of 1 MiB aligned to 1 GiB: can be had", "of 400", Better::More, aligned),
    case("beyond", "malloc of 4 times the machine's memory: granted", "of 1", Better::Less, || {
        // SAFETY: sysconf has no preconditions.
        let memory = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) * libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        Ok(f64::from(u8::from(!malloc(4 * memory).is_null())))
    }),
    case("many", "untouched blocks of 1 GiB until null", "GiB of 1024", Better::More, || {
        Ok(blocks_until_null(1 << 30, 1024) as f64)
    }),
];

/// The row called `name`.
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

const MIB: f64 = 1_048_576.0;

fn malloc(size: usize) -> *mut u8 {
    // Not to be optimized out with what is done to it.
    // SAFETY: an integer.
    std::hint::black_box(unsafe { libc::malloc(size) }.cast())
}

fn free(block: *mut u8) {
    // SAFETY: blocks here come from malloc and are freed once.
    unsafe { libc::free(block.cast()) };
}

/// A few blocks of many sizes.
fn little() {
    for size in 1..200 {
        let block = malloc(size * 37);
        if size % 2 == 0 {
            free(block);
        }
    }
}

/// Blocks that were written to.
fn grow(count: usize, size: usize) -> Vec<*mut u8> {
    let blocks: Vec<_> = (0..count).map(|_| malloc(size)).filter(|block| !block.is_null()).collect();
    for block in &blocks {
        // SAFETY: a block of this size.
        unsafe { block.write_bytes(1, size) };
    }
    blocks
}

/// Frees them, and goes on with little for 5 seconds, as a server does: without a call no allocator can give back.
fn shrink(blocks: Vec<*mut u8>) {
    blocks.into_iter().for_each(free);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        little_and_back();
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn little_and_back() {
    let blocks: Vec<_> = (1..100).map(|size| malloc(size * 97)).collect();
    blocks.into_iter().for_each(free);
}

fn blocks_until_null(size: usize, most: usize) -> usize {
    (0..most).take_while(|_| !malloc(size).is_null()).count()
}

fn status(field: &str) -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| format!("/proc/self/status has no {field}"))
}

fn vm_size() -> Result<f64, String> {
    status("VmSize:")
}

fn limit(kind: Resource, bytes: u64) -> Result<(), String> {
    rlimit::set(kind, bytes).map_err(|error| format!("setrlimit: {error}"))
}

extern "C" fn pause(_: *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: no preconditions.
        unsafe { libc::pause() };
    }
}

extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
    null_mut()
}

fn start(body: extern "C" fn(*mut c_void) -> *mut c_void) -> Option<libc::pthread_t> {
    let mut thread = 0;
    // SAFETY: the body takes no argument.
    let error = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), body, null_mut()) };
    (error == 0).then_some(thread)
}

fn threads() -> Result<f64, String> {
    Ok((0..1000).take_while(|_| start(pause).is_some()).count() as f64)
}

fn eight_threads() -> Result<f64, String> {
    const STACK_BYTES: usize = 256 << 10;
    let done = std::sync::Barrier::new(9);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let live = || {
                little();
                done.wait();
                done.wait();
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, live);
            if let Err(error) = thread {
                // The others wait for it.
                eprintln!("a thread: {error}");
                std::process::exit(1);
            }
        }
        done.wait();
        let size = vm_size();
        done.wait();
        size.map(|size| size - (8 * STACK_BYTES) as f64 / MIB)
    })
}

/// In a child for each limit: a limit that was lowered cannot be raised again.
fn mlockall() -> Result<f64, String> {
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| format!("getrlimit: {error}"))?;
    // Asking for what there is already needs no right.
    limit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY)
        .map_err(|error| format!("RLIMIT_MEMLOCK may not be raised above {} MiB here: {error}", most >> 20))?;
    little();
    for mib in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536, 262_144] {
        // SAFETY: the child makes system calls and allocates, which a forked child may here: there is one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let works = locks_all(mib);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!works)) };
        }
        let mut status = 0;
        // SAFETY: a child of ours.
        if unsafe { libc::waitpid(child, &mut status, 0) } != child {
            return Err(format!("waitpid: {}", std::io::Error::last_os_error()));
        }
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
            return Ok(f64::from(mib));
        }
    }
    Err("refused at 256 GiB".into())
}

fn locks_all(mib: u32) -> bool {
    if limit(Resource::RLIMIT_MEMLOCK, u64::from(mib) << 20).is_err() {
        return false;
    }
    // Root has no limit. Where we are not root, nothing changes.
    // SAFETY: integers.
    unsafe {
        libc::setgroups(0, std::ptr::null());
        libc::setgid(65534);
        libc::setuid(65534);
    }
    // SAFETY: integers.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } == 0;
    locked && !malloc(1000).is_null() && !malloc(1 << 20).is_null()
}

fn late() -> Result<f64, String> {
    little();
    limit(Resource::RLIMIT_AS, LATE_BYTES)?;
    let thread = start(nothing).is_some();
    let mapping = map(1 << 20, libc::PROT_READ | libc::PROT_WRITE);
    let block = !malloc(50 << 20).is_null();
    // SAFETY: two C strings.
    let pipe = unsafe { libc::popen(c"exit 7".as_ptr(), c"r".as_ptr()) };
    // SAFETY: an open stream of popen.
    let program = !pipe.is_null() && libc::WEXITSTATUS(unsafe { libc::pclose(pipe) }) == 7;
    Ok([thread, mapping, block, program].into_iter().map(|works| f64::from(u8::from(works))).sum())
}

fn map(bytes: usize, access: i32) -> bool {
    // SAFETY: a new mapping.
    let place = unsafe { libc::mmap(null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    place != libc::MAP_FAILED
}

/// What the kernel would charge for this process under `vm.overcommit_memory=2`, in MiB: private mappings that are or
/// were writable (flag `ac`), and writable ones that are not charged only because they ask not to be (`nr`), which that
/// policy ignores.
fn charge() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/self/smaps").map_err(|error| format!("/proc/self/smaps: {error}"))?;
    let (mut kib, mut size) = (0.0, 0.0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Size:") {
            size = rest.trim().trim_end_matches(" kB").parse::<f64>().map_err(|error| format!("smaps: {error}"))?;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
            if !has("sh") && (has("ac") || (has("nr") && has("wr"))) {
                kib += size;
            }
        }
    }
    Ok(kib / 1024.0)
}

fn mappings() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    Ok(text.lines().count() as f64)
}

/// Blocks that grow in turn from 256 KiB, with every third freed after a round. Only a word of each is used. Who makes
/// all of them resident, by copies or by huge pages, ends where a quarter of the machine's free memory is.
fn grow_by_realloc() -> Result<(), String> {
    const BLOCKS: usize = 40_000;
    const ROUNDS: usize = 6;
    let most = available()? / 4.0;
    let mut blocks = vec![null_mut::<u8>(); BLOCKS];
    for round in 0..ROUNDS {
        for (index, block) in blocks.iter_mut().enumerate() {
            let size = (256 << 10) + (round << 16) + ((index % 7) << 13);
            // SAFETY: null or a block of ours.
            let new: *mut u8 = unsafe { libc::realloc(block.cast(), size) }.cast();
            if new.is_null() {
                return Err(format!("null in round {round} at block {index}"));
            }
            // SAFETY: larger than a word.
            let word = unsafe { &mut *new.cast::<usize>() };
            if !block.is_null() && *word != index {
                return Err(format!("contents lost in round {round} at block {index}"));
            }
            (*word, *block) = (index, new);
            if index % 1000 == 0 && status("VmRSS:")? > most {
                return Err(format!("a word of each block is used, and {most:.0} MiB are resident in round {round}"));
            }
        }
        for block in blocks.iter_mut().skip(round % 3).step_by(3) {
            if round + 1 < ROUNDS {
                free(*block);
                *block = null_mut();
            }
        }
    }
    Ok(())
}

/// Memory that the machine has for programs, in MiB.
fn available() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: f64| kib / 1024.0).ok_or_else(|| "/proc/meminfo has no MemAvailable".to_owned())
}

fn own_mappings() -> Result<f64, String> {
    let access = [libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ]; // in turn, so that none is merged
    let mapped = (0..300).take_while(|index| map(8192, access[index % 2])).count();
    Ok(mapped as f64 + f64::from(u8::from(start(nothing).is_some())))
}

fn aligned() -> Result<f64, String> {
    let one = || {
        let mut block = null_mut();
        // SAFETY: `block` is ours to write.
        unsafe { libc::posix_memalign(&mut block, 1 << 30, 1 << 20) == 0 }
    };
    Ok((0..400).filter(|_| one()).count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
    }
}
