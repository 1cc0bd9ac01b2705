//! The C family: of the process, whoever provides it, or of a shared library.

use std::alloc::Layout;
use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::transmute_copy;
use std::path::Path;
use std::ptr::null_mut;

use super::{Errno, Subject};
use crate::errno;

/// What `malloc` aligns to without being asked.
const FUNDAMENTAL: usize = 2 * size_of::<usize>();

/// `malloc`, `calloc`, `realloc`, `free`, `posix_memalign` and `aligned_alloc` as a [`Subject`].
///
/// Blocks that are more aligned than `malloc` promises come from `posix_memalign`, and from `aligned_alloc` where their size
/// is a multiple of the alignment. They are resized by a new block and a copy, as `realloc` keeps no alignment.
pub struct ByC {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    posix_memalign: unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int,
    aligned_alloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    errno: Errno,
    allows_handlers: bool,
}

impl ByC {
    /// The functions that this process uses: a preloaded library's, if there is one.
    pub fn of_the_process() -> ByC {
        ByC {
            malloc: libc::malloc,
            calloc: libc::calloc,
            realloc: libc::realloc,
            free: libc::free,
            posix_memalign: libc::posix_memalign,
            aligned_alloc: libc::aligned_alloc,
            errno: Errno::POSIX,
            allows_handlers: false,
        }
    }

    /// The functions of a shared library, which stays loaded. `prefix` stands before their names: `je_`, or nothing.
    ///
    /// # Errors
    ///
    /// What the loader says of a library that it cannot load, or that lacks a function.
    pub fn of_library(library: &Path, prefix: &str) -> Result<ByC, String> {
        let path = CString::new(library.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: a string of ours. What the library does when it is loaded is its own affair.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(loader_says());
        }
        let find = |name: &str| {
            let name = CString::new(format!("{prefix}{name}")).map_err(|error| error.to_string())?;
            // SAFETY: a handle of the loader's, and a string of ours.
            let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if symbol.is_null() { Err(loader_says()) } else { Ok(symbol) }
        };
        let (malloc, calloc, realloc) = (find("malloc")?, find("calloc")?, find("realloc")?);
        let (free, posix_memalign, aligned_alloc) = (find("free")?, find("posix_memalign")?, find("aligned_alloc")?);
        // SAFETY: functions of these names have these types, by the C standard and POSIX.
        Ok(unsafe {
            ByC {
                malloc: transmute_copy(&malloc),
                calloc: transmute_copy(&calloc),
                realloc: transmute_copy(&realloc),
                free: transmute_copy(&free),
                posix_memalign: transmute_copy(&posix_memalign),
                aligned_alloc: transmute_copy(&aligned_alloc),
                ..ByC::of_the_process()
            }
        })
    }

    /// That it promises this of errno, and not what POSIX asks.
    pub fn promising(self, errno: Errno) -> ByC {
        ByC { errno, ..self }
    }

    /// That handlers of signals may use it, which POSIX does not ask.
    pub fn in_handlers(self) -> ByC {
        ByC { allows_handlers: true, ..self }
    }

    fn is_ordinary(layout: Layout) -> bool {
        // C asks for the alignment of what fits into the block, not more.
        layout.align() <= FUNDAMENTAL.min(layout.size())
    }

    fn aligned(&self, layout: Layout) -> *mut c_void {
        let align = layout.align().max(size_of::<usize>());
        if layout.size().is_multiple_of(align) {
            // SAFETY: a power of two, and a multiple of it.
            return unsafe { (self.aligned_alloc)(align, layout.size()) };
        }
        let (mut block, before) = (null_mut(), errno::get());
        // SAFETY: `block` is ours to be written; the alignment is a power of two and a multiple of a pointer's.
        let code = unsafe { (self.posix_memalign)(&mut block, align, layout.size()) };
        // It says what went wrong by its result. POSIX says nothing of errno.
        errno::set(if code == 0 { before } else { code });
        if code == 0 { block } else { null_mut() }
    }
}

fn loader_says() -> String {
    // SAFETY: asked after a failure; the text is valid until the loader is called again.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader does not say why".into();
    }
    // SAFETY: a string of the loader's.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

// SAFETY: passes calls on.
unsafe impl Subject for ByC {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        if !ByC::is_ordinary(layout) {
            return self.aligned(layout).cast();
        }
        // SAFETY: any size will do.
        unsafe { (self.malloc)(layout.size()) }.cast()
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        if ByC::is_ordinary(layout) {
            // Two factors, where that is the same.
            let of_two = if layout.size().is_multiple_of(2) { 2 } else { 1 };
            // SAFETY: any sizes will do.
            return unsafe { (self.calloc)(of_two, layout.size() / of_two) }.cast();
        }
        let block = self.aligned(layout).cast::<u8>();
        if !block.is_null() {
            // SAFETY: ours, and so long.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        if ByC::is_ordinary(layout) && ByC::is_ordinary(new) {
            // SAFETY: the block is held.
            return unsafe { (self.realloc)(block.cast(), size) }.cast();
        }
        let moved = self.aligned(new).cast::<u8>();
        if !moved.is_null() {
            // SAFETY: both are ours, and so long.
            unsafe {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                (self.free)(block.cast());
            }
        }
        moved
    }

    unsafe fn free(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block is held.
        unsafe { (self.free)(block.cast()) }
    }

    fn errno(&self) -> Errno {
        self.errno
    }

    fn allows_handlers(&self) -> bool {
        self.allows_handlers
    }
}
