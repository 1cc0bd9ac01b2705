//! Which allocator is active in a process: asked in that process, not believed from the command line.
//!
//! A library that is missing, of another machine or without `malloc` is only a warning to the dynamic linker: the
//! program then runs on the C library's malloc, under the rival's name. So the addresses that this process calls are
//! looked up, and each must lie in the library that was asked for.

use crate::failure::Failure;
use crate::harness::process::{Ended, Job, OWN, observe};
use crate::output;
use nix::libc::{self, c_char, c_void};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is active.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Active {
    /// The functions a workload calls, each with the file it comes from.
    pub functions: Vec<(String, Option<PathBuf>)>,
    /// The loader and the libraries that are loaded, under the names that they were asked for by.
    pub loaded: Vec<PathBuf>,
    /// What libperseq says of its mode. Null: it is not libperseq.
    pub perseq_mode: Option<String>,
    /// What TCMalloc says of its caches. Null: it is not Google's TCMalloc, or was not asked.
    pub tcmalloc: Option<TcMalloc>,
}

/// TCMalloc's own counts, after some allocating.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TcMalloc {
    /// `MallocExtension::PerCpuCachesActive`.
    pub per_cpu_active: bool,
    /// Free bytes in per-CPU caches.
    pub cpu_free_bytes: Option<u64>,
    /// Free bytes in per-thread caches.
    pub thread_free_bytes: Option<u64>,
}

impl TcMalloc {
    /// In which mode it works. The flag alone has been wrong on kernels without rseq, so the bytes must agree.
    pub fn mode(&self) -> String {
        let (cpu, thread) = (self.cpu_free_bytes.unwrap_or(0), self.thread_free_bytes.unwrap_or(0));
        match (self.per_cpu_active, cpu > 0, thread > 0) {
            (true, true, false) => format!("per-CPU ({cpu} bytes in per-CPU caches, none in per-thread ones)"),
            (false, false, true) => format!("per-thread ({thread} bytes in per-thread caches, none in per-CPU ones)"),
            (flag, ..) => format!("contradictory: active {flag}, {cpu} bytes per CPU, {thread} bytes per thread"),
        }
    }
}

/// What a workload calls, and where the program's own reference to it leads.
fn functions() -> [(&'static CStr, *const c_void); 4] {
    [
        (c"malloc", libc::malloc as *const c_void),
        (c"free", libc::free as *const c_void),
        (c"calloc", libc::calloc as *const c_void),
        (c"realloc", libc::realloc as *const c_void),
    ]
}

/// Looks into this process, and leaves its allocator as it was.
pub fn look() -> Active {
    Active {
        functions: functions()
            .iter()
            .map(|(name, address)| (name.to_string_lossy().into_owned(), file_of(*address)))
            .collect(),
        loaded: loaded(),
        perseq_mode: perseq_mode(),
        tcmalloc: None,
    }
}

impl Active {
    /// What contradicts the claim that `library` (none: the C library) is the allocator in `mode`.
    pub fn fault(&self, library: Option<&Path>, mode: Option<&str>) -> Option<String> {
        for (name, file) in &self.functions {
            let file = file.as_deref();
            let right = match library {
                Some(library) => file == Some(library),
                None => file.and_then(Path::file_name).is_some_and(|file| {
                    let file = file.to_string_lossy();
                    file.starts_with("libc.so") || file.starts_with("libc-") || file.starts_with("ld-musl")
                }),
            };
            if !right {
                let expected = library.map_or("the C library".into(), |library| library.display().to_string());
                let found = file.map_or("an unknown file".into(), |file| file.display().to_string());
                return Some(format!("allocator: {name} comes from {found}; expected {expected}"));
            }
        }
        let mode = mode?;
        match &self.perseq_mode {
            None => Some("allocator: the library does not say in which mode it is; expected libperseq.so".into()),
            Some(active) if active != mode => Some(format!("mode: {mode} was asked for, {active} is active")),
            Some(_) => None,
        }
    }
}

/// The file that holds `address`.
fn file_of(address: *const c_void) -> Option<PathBuf> {
    // SAFETY: an all-zero Dl_info is a valid one.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is ours to write; any address may be asked about.
    let found = unsafe { libc::dladdr(address, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr found the object, so this is its name, which lives as long as the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    Some(path.canonicalize().unwrap_or(path))
}

/// The loader and the libraries of this process, as the dynamic linker found them. The program has no name there, and
/// what the kernel lends has no path.
pub fn loaded() -> Vec<PathBuf> {
    unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: libc::size_t, found: *mut c_void) -> libc::c_int {
        // SAFETY: it is the list that was handed over, and the linker's description of an object, live for this call.
        let (found, name) = unsafe { (&mut *found.cast::<Vec<PathBuf>>(), (*info).dlpi_name) };
        if !name.is_null() {
            // SAFETY: a name is a C string.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            if name.contains('/') {
                found.push(name.into());
            }
        }
        0
    }
    let mut found = Vec::new();
    // SAFETY: the function does with the list what it is for, and lives for ever.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut found).cast()) };
    found
}

/// A function that some loaded library exports.
fn symbol(name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero byte.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

fn perseq_mode() -> Option<String> {
    type Mode = extern "C" fn() -> *const c_char;
    let address = symbol("perseq_mode")?;
    // SAFETY: libperseq exports it with this signature, and nobody else uses the name.
    let mode: Mode = unsafe { std::mem::transmute(address) };
    // SAFETY: the function returns a constant C string.
    Some(unsafe { CStr::from_ptr(mode()) }.to_string_lossy().into_owned())
}

/// Asks TCMalloc after allocating something, so not where memory is measured.
fn tcmalloc() -> Option<TcMalloc> {
    type PerCpu = extern "C" fn() -> bool;
    type Property = extern "C" fn(*const u8, usize, *mut usize) -> bool;
    let per_cpu = symbol("MallocExtension_Internal_GetPerCpuCachesActive")?;
    let property = symbol("MallocExtension_Internal_GetNumericProperty")?;
    // SAFETY: TCMalloc exports it with this signature, by its internal_malloc_extension.h.
    let per_cpu: PerCpu = unsafe { std::mem::transmute::<*mut c_void, PerCpu>(per_cpu) };
    // SAFETY: as above.
    let property: Property = unsafe { std::mem::transmute::<*mut c_void, Property>(property) };
    // Something to find in a cache.
    let objects: Vec<_> = (0..2000).map(|index| vec![index as u8; 100]).collect();
    drop(std::hint::black_box(objects));
    let value = |name: &str| {
        let mut value = 0usize;
        property(name.as_ptr(), name.len(), &mut value).then_some(value as u64)
    };
    Some(TcMalloc {
        per_cpu_active: per_cpu(),
        cpu_free_bytes: value("tcmalloc.cpu_free"),
        thread_free_bytes: value("tcmalloc.thread_cache_free"),
    })
}

/// `perseq probe`: prints what is active in it.
pub fn main() -> Result<(), Failure> {
    output::print_json(&Active { tcmalloc: tcmalloc(), ..look() })
}

/// Asks a fresh process that runs on `library` with these variables.
pub fn ask(library: Option<&Path>, environment: &[(String, String)]) -> Result<Active, String> {
    let preload = library.map(|library| ("LD_PRELOAD".to_owned(), library.display().to_string()));
    let job = Job::new(OWN, Duration::from_secs(60)).argument("probe");
    let job = job.environment(environment.iter().cloned()).environment(preload);
    let ended = match observe(&job)? {
        Ended::Exited(ended) => ended,
        Ended::TimedOut(_) => return Err("a process that runs on it did not end".into()),
    };
    let said = ended.stderr.trim();
    if !ended.status.success() {
        return Err(format!("a process that runs on it ended with {}: {said}", ended.status));
    }
    serde_json::from_slice(&ended.stdout)
        .map_err(|error| format!("a process that runs on it printed nonsense: {error} {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_on_the_c_library_and_on_nothing_else() {
        let active = look();
        assert_eq!(active.fault(None, None), None);
        assert!(active.fault(Some(Path::new("/lib/rival.so")), None).unwrap().contains("expected /lib/rival.so"));
        assert!(active.fault(None, Some("percpu")).unwrap().contains("libperseq.so"));
        assert!(tcmalloc().is_none());
        let has = |start: &str| {
            let name = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
            active.loaded.iter().any(name)
        };
        assert!(has("libc.so") && has("ld-") && !has("perseq"), "{:?}", active.loaded);
    }

    #[test]
    fn a_flag_without_bytes_is_no_proof() {
        let claim = |active, cpu, thread| TcMalloc {
            per_cpu_active: active,
            cpu_free_bytes: Some(cpu),
            thread_free_bytes: Some(thread),
        };
        assert!(claim(true, 100, 0).mode().starts_with("per-CPU"));
        assert!(claim(false, 0, 100).mode().starts_with("per-thread"));
        assert!(claim(true, 0, 100).mode().starts_with("contradictory"));
    }
}
