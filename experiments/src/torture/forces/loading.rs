//! Libraries that come and go: plugins whose global allocator is perseq, and libperseq.so itself.

use crate::torture::fault::fault;
use crate::torture::force::{Acting, Force, thread};
use nix::libc::{self, c_char, c_void};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Plugins.
pub const PLUGINS: Force = Force {
    name: "plugins",
    what: "plugins on perseq loaded, used and unloaded",
    takes_memory: false,
    absent: |order| missing(order.plugin.as_deref(), "libperseq_plugin.so", "perseq-plugin"),
    act: plugins,
};

/// The library that replaces malloc, loaded without replacing it.
pub const LIBRARIES: Force = Force {
    name: "libraries",
    what: "libperseq.so loaded, used and unloaded",
    takes_memory: false,
    absent: |order| missing(order.libperseq.as_deref(), "libperseq.so", "perseq-preload"),
    act: libraries,
};

/// Copies that are loaded at the same time, each a library of its own to the dynamic linker.
const COPIES: usize = 3;

fn missing(path: Option<&Path>, file: &str, package: &str) -> Option<String> {
    let none = || format!("no {file} beside this program; `cargo build --release -p {package}` makes it");
    path.is_none().then(none)
}

fn copies(acting: &Acting, original: Option<&Path>) -> Vec<CString> {
    let Some(original) = original else { fault(format_args!("a library that was there is missing")) };
    let copy = |number: usize| {
        let path: PathBuf = acting.shared.order.scratch.join(format!("{number}.so"));
        let copied = std::fs::copy(original, &path).ok()?;
        (copied > 0).then(|| CString::new(path.as_os_str().as_bytes()).ok())?
    };
    let copies: Vec<_> = (0..COPIES).filter_map(copy).collect();
    if copies.len() < COPIES {
        fault(format_args!("cannot copy {} to be loaded", original.display()));
    }
    copies
}

/// A loaded library.
struct Library(*mut c_void);

// SAFETY: a handle may be used by any thread.
unsafe impl Sync for Library {}

impl Library {
    fn open(path: &CStr) -> Library {
        // SAFETY: a library of this project; its constructors, if any, are sound.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure the text is there.
            let text: *const c_char = unsafe { libc::dlerror() };
            // SAFETY: a C string, until the next call.
            fault(format_args!("dlopen: {}", unsafe { CStr::from_ptr(text) }.to_string_lossy()));
        }
        Library(handle)
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: an open library.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if address.is_null() {
            fault(format_args!("the library has no {}", name.to_string_lossy()));
        }
        address
    }

    fn close(self) {
        // SAFETY: closed once; no thread is in it, and nobody keeps a block of it.
        if unsafe { libc::dlclose(self.0) } != 0 {
            fault(format_args!("dlclose failed"));
        }
    }
}

fn plugins(acting: &mut Acting) {
    type Play = extern "C" fn(u64, u64) -> u64;
    let play = |library: &Library, seed: u64| {
        let play = library.symbol(c"perseq_plugin_play");
        // SAFETY: the plugin exports it with this signature.
        let play = unsafe { std::mem::transmute::<*mut c_void, Play>(play) };
        match play(seed, 300) {
            0 => {}
            wrong => fault(format_args!("a plugin found {wrong} of its blocks corrupted")),
        }
    };
    let copies = copies(acting, acting.shared.order.plugin.as_deref());
    around(acting, &copies, &play);
}

fn libraries(acting: &mut Acting) {
    type Malloc = extern "C" fn(usize) -> *mut u8;
    type Free = unsafe extern "C" fn(*mut u8);
    let play = |library: &Library, seed: u64| {
        let (malloc, free) = (library.symbol(c"perseq_malloc"), library.symbol(c"perseq_free"));
        // SAFETY: libperseq exports it with this signature.
        let malloc = unsafe { std::mem::transmute::<*mut c_void, Malloc>(malloc) };
        // SAFETY: as above.
        let free = unsafe { std::mem::transmute::<*mut c_void, Free>(free) };
        let mut blocks = [std::ptr::null_mut::<u8>(); 100];
        for round in 0..4 {
            for (index, block) in blocks.iter_mut().enumerate() {
                *block = malloc(16 + index * 7);
                if block.is_null() {
                    fault(format_args!("the loaded library has no memory"));
                }
                // SAFETY: a block of 8 bytes or more.
                unsafe { block.cast::<u64>().write(seed ^ index as u64 ^ round) };
            }
            for (index, block) in blocks.iter().enumerate() {
                // SAFETY: written above.
                if unsafe { block.cast::<u64>().read() } != seed ^ index as u64 ^ round {
                    fault(format_args!("corrupted: a block of the loaded library"));
                }
                // SAFETY: allocated above, freed once.
                unsafe { free(*block) };
            }
        }
    };
    let copies = copies(acting, acting.shared.order.libperseq.as_deref());
    around(acting, &copies, &play);
}

/// Loads one or more copies, plays in them on this thread and on others, and unloads them; some of those threads live
/// on afterwards, are moved and preempted, and end.
fn around(acting: &mut Acting, copies: &[CString], play: &(dyn Fn(&Library, u64) + Sync)) {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    const THREADS: u64 = 2;
    const LIVES_ON: Duration = Duration::from_millis(100);
    while acting.goes_on() {
        let count = 1 + acting.random.below(copies.len());
        let libraries: Vec<_> = copies[..count].iter().map(|path| Library::open(path)).collect();
        let (seed, played, unloaded) = (acting.random.next(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let (libraries, played, unloaded) = (&libraries, &played, &unloaded);
                let live = move || {
                    libraries.iter().for_each(|library| play(library, seed ^ number));
                    played.fetch_add(1, SeqCst);
                    while unloaded.load(SeqCst) == 0 {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    // A yield takes a turn of every thread beside it: 200 are seconds in a large team.
                    let begin = Instant::now();
                    (0..200).take_while(|_| begin.elapsed() < LIVES_ON).for_each(|_| std::thread::yield_now());
                };
                if let Err(error) = thread().spawn_scoped(scope, live) {
                    fault(format_args!("a thread for a plugin: {error}"));
                }
            }
            libraries.iter().for_each(|library| play(library, seed));
            while played.load(SeqCst) < THREADS {
                acting.sleep_us(100);
            }
            libraries.iter().for_each(|library| Library(library.0).close());
            unloaded.store(1, SeqCst);
        });
        acting.happened();
    }
}
