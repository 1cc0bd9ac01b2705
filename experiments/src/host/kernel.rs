//! The kernel, the C library, and what else keeps them busy.

use crate::checksum;
use crate::host_file::{chosen, read};
use crate::known::Known;
use serde::Serialize;
use std::ffi::CStr;

/// The kernel and those of its settings that move a result.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// Release.
    pub release: Known<String>,
    /// Build, with the kind of preemption in it.
    pub version: Known<String>,
    /// SHA-256 of the boot command line, which may name disks and hosts itself.
    pub cmdline_sha256: Known<String>,
    /// Transparent huge pages.
    pub thp: Known<String>,
    /// Address space randomisation: 2 is full.
    pub aslr: Known<String>,
    /// Overcommit policy.
    pub overcommit: Known<String>,
    /// Automatic balancing between nodes of memory.
    pub numa_balancing: Known<String>,
    /// Bytes of an OS page.
    pub page_bytes: Known<i64>,
    /// Mitigations of processor faults, by name.
    pub mitigations: Known<Vec<String>>,
}

impl Kernel {
    /// Looks.
    pub fn read() -> Kernel {
        Kernel {
            release: match nix::sys::utsname::uname() {
                Ok(name) => Known::is(name.release().to_string_lossy().into_owned()),
                Err(error) => Known::missing(format!("uname: {error}")),
            },
            version: match nix::sys::utsname::uname() {
                Ok(name) => Known::is(name.version().to_string_lossy().into_owned()),
                Err(error) => Known::missing(format!("uname: {error}")),
            },
            cmdline_sha256: read("/proc/cmdline").map(|line| checksum::of(line.as_bytes())),
            thp: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
            aslr: read("/proc/sys/kernel/randomize_va_space"),
            overcommit: read("/proc/sys/vm/overcommit_memory"),
            numa_balancing: read("/proc/sys/kernel/numa_balancing"),
            page_bytes: match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
                Ok(Some(bytes)) => Known::is(bytes),
                Ok(None) => Known::missing("sysconf does not say"),
                Err(error) => Known::missing(format!("sysconf: {error}")),
            },
            mitigations: mitigations(),
        }
    }
}

fn mitigations() -> Known<Vec<String>> {
    let directory = "/sys/devices/system/cpu/vulnerabilities";
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return Known::missing(format!("{directory}: {error}")),
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let state = |name: &String| format!("{name}: {}", read(&format!("{directory}/{name}")));
    Known::is(names.iter().map(state).collect())
}

/// Name and version of the C library.
pub fn libc() -> Known<String> {
    if !cfg!(target_env = "gnu") {
        return Known::missing("only glibc tells its version");
    }
    // SAFETY: returns a constant string of the library.
    let version = unsafe { CStr::from_ptr(nix::libc::gnu_get_libc_version()) };
    Known::is(format!("glibc {}", version.to_string_lossy()))
}

/// What tunes the C library of the caller. Samples never inherit it.
pub fn tunables() -> Known<String> {
    Known::from(std::env::var("GLIBC_TUNABLES").map_err(|_| "GLIBC_TUNABLES is not set"))
}

/// What else runs.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Load average over one minute.
    pub one_minute: Known<f64>,
    /// Clock ticks stolen by the hypervisor since boot. Null: none is reported.
    pub steal_ticks_since_boot: Known<u64>,
}

impl Load {
    /// Looks.
    pub fn read() -> Load {
        let first = |text: String| text.split_whitespace().next().and_then(|word| word.parse().ok());
        let ticks = |text: String| text.lines().next()?.split_whitespace().nth(8)?.parse().ok();
        let known = |file: Known<String>, path: &str| match file {
            Known { value: Some(text), .. } => Ok(text),
            Known { reason, .. } => Err(reason.unwrap_or_else(|| path.to_owned())),
        };
        Load {
            one_minute: Known::from(
                known(read("/proc/loadavg"), "/proc/loadavg")
                    .and_then(|text| first(text).ok_or("/proc/loadavg: not a number".to_owned())),
            ),
            steal_ticks_since_boot: Known::from(
                known(read("/proc/stat"), "/proc/stat")
                    .and_then(|text| ticks(text).ok_or("/proc/stat has no steal column".to_owned())),
            ),
        }
    }
}
