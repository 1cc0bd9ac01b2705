//! Staying loaded: a library that holds this allocator must not be unmapped by `dlclose`.
//!
//! Much points into such a library for as long as the process lives: the kernel at the descriptor of each thread's last
//! sequence, libc at the function for the exit of threads, every block at tables of ours. So the library takes a reference
//! to itself that nobody gives back. It does so among its constructors: those run before `dlopen` returns, so no `dlclose`
//! can come first, and inside the loader's lock, which `dlopen` may take again and so never waits for.
//!
//! Nothing is done where nothing can be unmapped: in the program itself, in a library that was linked with
//! `-z nodelete`, as `libperseq.so` is, and under musl, whose `dlclose` unmaps nothing.

use core::ffi::{c_char, c_int, c_void};
use core::ops::Range;
use core::ptr;

use crate::errno::keep_errno;

/// `DT_FLAGS_1`, and the flag in it for "never unmap", as the ELF specification's GNU part has them.
const FLAGS_1: i64 = 0x6fff_fffb;
const NO_DELETE: u64 = 8;

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = stay;

/// The library that this code is in, by the loader's name for it.
struct Library {
    name: *const c_char,
    stays: bool,
    /// Where it lies; empty for the program.
    extent: Range<usize>,
}

/// Finds the module that this code is in.
fn library() -> Library {
    let mut library = Library { name: ptr::null(), stays: true, extent: 0..0 };
    // SAFETY: the function below fits, and gets the library for its third argument.
    unsafe { libc::dl_iterate_phdr(Some(find), (&raw mut library).cast()) };
    library
}

/// Where the library lies that this code is in. `None` if it is in the program.
pub fn own_library() -> Option<Range<usize>> {
    Some(library().extent).filter(|extent| !extent.is_empty())
}

extern "C" fn stay() {
    if cfg!(target_env = "musl") {
        return;
    }
    keep_errno(|| {
        let library = library();
        if !library.stays {
            // The loader knows the library by this name and opens no file. The reference is never given back. If it is
            // refused, the library stays only as long as its users keep it.
            // SAFETY: a C string, which the loader keeps as long as the library is loaded.
            unsafe { libc::dlopen(library.name, libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
        }
    });
}

/// Looks whether this code is in one of the process's modules; other than 0 ends the walk.
unsafe extern "C" fn find(module: *mut libc::dl_phdr_info, _: usize, library: *mut c_void) -> c_int {
    let here = stay as *const () as u64;
    // SAFETY: the loader's description of a module, and its program headers, live during the call.
    let (module, headers) = unsafe {
        let module = &*module;
        (module, core::slice::from_raw_parts(module.dlpi_phdr, module.dlpi_phnum.into()))
    };
    let holds_us = |header: &libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && here.wrapping_sub(module.dlpi_addr + header.p_vaddr) < header.p_memsz
    };
    if !headers.iter().any(holds_us) {
        return 0;
    }
    // SAFETY: `stay` gave this; the name is a C string.
    let (library, is_program) = unsafe { (&mut *library.cast::<Library>(), *module.dlpi_name == 0) };
    let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
    library.name = module.dlpi_name;
    if !is_program {
        let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let end = loaded.map(|header| header.p_vaddr + header.p_memsz).max().unwrap_or(0);
        library.extent = module.dlpi_addr as usize..(module.dlpi_addr + end) as usize;
    }
    // SAFETY: the module's dynamic section, mapped where its header says.
    library.stays = is_program || dynamic.is_some_and(|header| unsafe { is_marked(module.dlpi_addr + header.p_vaddr) });
    1
}

/// Whether the dynamic section at `address` says that its library is never unmapped.
///
/// # Safety
///
/// * There is one, ended by a tag of 0.
unsafe fn is_marked(address: u64) -> bool {
    let mut entry = address as *const (i64, u64);
    // SAFETY: by our own contract.
    unsafe {
        while (*entry).0 != 0 {
            if (*entry).0 == FLAGS_1 {
                return (*entry).1 & NO_DELETE != 0;
            }
            entry = entry.add(1);
        }
    }
    false
}
