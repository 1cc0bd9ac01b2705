//! Processors: which there are, which we may use, and what they share.

use crate::host_file::read;
use crate::known::Known;
use serde::Serialize;
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};
use std::time::Instant;

/// The processors.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// As the vendor calls it.
    pub model_name: Known<String>,
    /// Vendor, family, model, stepping and microcode.
    pub identity: Known<String>,
    /// CPUs the kernel may ever bring online; ids of per-CPU caches come from this set.
    pub possible: Known<String>,
    /// CPUs online.
    pub online: Known<String>,
    /// CPUs this process may use.
    pub allowed: Known<Vec<usize>>,
    /// Whether two CPUs can share a core.
    pub smt: Known<String>,
    /// Nodes of memory.
    pub nodes: Known<String>,
    /// Caches seen by the first CPU: level, type, size, line, and who shares it.
    pub caches: Known<Vec<String>>,
    /// Packages.
    pub sockets: Known<usize>,
    /// CPUs that share a core with the first, itself included.
    pub threads_per_core: Known<usize>,
    /// CPUs of each last-level cache.
    pub llc_domains: Known<Vec<String>>,
    /// Who chooses the frequency, and how.
    pub governor: Known<String>,
    /// Who sets it.
    pub frequency_driver: Known<String>,
    /// Lowest and highest frequency in kHz.
    pub frequency_khz: Known<String>,
    /// Whether the processor may exceed its nominal frequency.
    pub boost: Known<String>,
    /// Whether a hypervisor is underneath.
    pub hypervisor: Known<bool>,
}

impl Cpu {
    /// Looks.
    pub fn read() -> Cpu {
        let info = read("/proc/cpuinfo");
        let field = |name: &str| -> Known<String> {
            match &info.value {
                Some(text) => field(text, name)
                    .map_or_else(|| Known::missing(format!("/proc/cpuinfo has no `{name}`")), Known::is),
                None => Known { value: None, reason: info.reason.clone() },
            }
        };
        let identity = ["vendor_id", "cpu family", "model", "stepping", "microcode"].map(field).map(|part| part.value);
        Cpu {
            model_name: field("model name"),
            identity: match identity {
                [None, ..] => Known::missing("/proc/cpuinfo has no `vendor_id`"),
                parts => Known::is(parts.into_iter().flatten().collect::<Vec<_>>().join(" / ")),
            },
            possible: read("/sys/devices/system/cpu/possible"),
            online: read("/sys/devices/system/cpu/online"),
            allowed: match core_affinity::get_core_ids() {
                Some(ids) => Known::is(ids.into_iter().map(|id| id.id).collect()),
                None => Known::missing("sched_getaffinity failed"),
            },
            smt: read("/sys/devices/system/cpu/smt/control"),
            nodes: read("/sys/devices/system/node/possible"),
            caches: caches(),
            sockets: Known::from(distinct("topology/physical_package_id").map(|packages| packages.len())),
            threads_per_core: match read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list") {
                Known { value: Some(list), .. } => Known::is(members(&list)),
                Known { reason, .. } => Known { value: None, reason },
            },
            llc_domains: Known::from(last_level_caches()),
            frequency_driver: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
            frequency_khz: range(
                read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq"),
                read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"),
            ),
            boost: boost(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: field("flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }
}

/// CPUs of each last-level cache.
pub fn last_level_caches() -> Result<Vec<String>, String> {
    last_level().and_then(|index| distinct(&format!("cache/index{index}/shared_cpu_list")))
}

/// Bytes of all last-level caches together.
pub fn last_level_bytes() -> Result<u64, String> {
    let size = read(&format!("/sys/devices/system/cpu/cpu0/cache/index{}/size", last_level()?));
    let text = size.value.ok_or_else(|| size.reason.unwrap_or_default())?;
    let kib = text.strip_suffix('K').and_then(|kib| kib.parse::<u64>().ok());
    let kib = kib.ok_or_else(|| format!("a cache of `{text}`; expected a number and K"))?;
    Ok((kib << 10) * last_level_caches()?.len() as u64)
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The different values of a file of every CPU, in order.
fn distinct(file: &str) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    for cpu in 0.. {
        let directory = format!("/sys/devices/system/cpu/cpu{cpu}");
        if !std::path::Path::new(&directory).exists() {
            break;
        }
        // A CPU that is offline has none.
        if let Some(value) = read(&format!("{directory}/{file}")).value.filter(|value| !values.contains(value)) {
            values.push(value);
        }
    }
    if values.is_empty() { Err(format!("no CPU has {file}")) } else { Ok(values) }
}

/// Number of the last cache of CPU 0.
fn last_level() -> Result<usize, String> {
    let exists =
        |index: &usize| std::path::Path::new(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}")).exists();
    (0..).take_while(exists).last().ok_or_else(|| "sysfs does not describe the caches of CPU 0".into())
}

/// How many CPUs a list such as `0-3,8` names.
fn members(list: &str) -> usize {
    let count = |part: &str| match part.split_once('-') {
        Some((from, to)) => {
            from.parse::<usize>().ok().zip(to.parse::<usize>().ok()).map_or(1, |(from, to)| to + 1 - from)
        }
        None => 1,
    };
    list.split(',').map(count).sum()
}

fn range(low: Known<String>, high: Known<String>) -> Known<String> {
    match (low.value, high.value) {
        (Some(low), Some(high)) => Known::is(format!("{low} to {high}")),
        _ => Known { value: None, reason: low.reason.or(high.reason) },
    }
}

/// AMD and the generic driver say whether it is on; Intel's says whether it is off.
fn boost() -> Known<String> {
    let on = |yes: bool| if yes { "on".to_owned() } else { "off".to_owned() };
    let generic = read("/sys/devices/system/cpu/cpufreq/boost");
    if generic.value.is_some() {
        return generic.map(|value| on(value == "1"));
    }
    read("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|value| on(value == "0"))
}

fn caches() -> Known<Vec<String>> {
    let mut caches = Vec::new();
    for index in 0.. {
        let part = |name: &str| read(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).value;
        let (Some(level), Some(kind), Some(size)) = (part("level"), part("type"), part("size")) else {
            break;
        };
        let line = part("coherency_line_size").map_or(String::new(), |line| format!(", line {line}"));
        let shared = part("shared_cpu_list").map_or(String::new(), |cpus| format!(", CPUs {cpus}"));
        caches.push(format!("L{level} {kind} {size}{line}{shared}"));
    }
    if caches.is_empty() { Known::missing("sysfs does not describe the caches of CPU 0") } else { Known::is(caches) }
}

/// Nanoseconds for a cache line to go from the first allowed CPU to each other one and back: the least of many.
pub fn round_trips() -> Result<Vec<(usize, f64)>, String> {
    let ids = core_affinity::get_core_ids().ok_or("sched_getaffinity failed")?;
    let (first, others) = ids.split_first().ok_or("no CPU is allowed")?;
    if others.is_empty() {
        return Err("one CPU is allowed".into());
    }
    Ok(others.iter().take(63).map(|other| (other.id, round_trip(*first, *other))).collect())
}

fn round_trip(here: core_affinity::CoreId, there: core_affinity::CoreId) -> f64 {
    const TRIPS: u32 = 200;
    const ROUNDS: u32 = 50;
    let ball = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(there);
            for turn in 0..TRIPS * ROUNDS {
                while ball.load(Acquire) != 2 * turn + 1 {
                    std::hint::spin_loop();
                }
                ball.store(2 * turn + 2, Release);
            }
        });
        // On a thread of its own, so that the caller keeps its CPUs.
        let near = scope.spawn(|| {
            core_affinity::set_for_current(here);
            let mut least = f64::INFINITY;
            for round in 0..ROUNDS {
                let start = Instant::now();
                for turn in round * TRIPS..(round + 1) * TRIPS {
                    ball.store(2 * turn + 1, Release);
                    while ball.load(Acquire) != 2 * turn + 2 {
                        std::hint::spin_loop();
                    }
                }
                least = least.min(start.elapsed().as_nanos() as f64 / f64::from(TRIPS));
            }
            least
        });
        near.join().unwrap_or(f64::NAN)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_list_of_cpus_is_counted() {
        assert_eq!(["0", "0-3", "0-1,4-5", "0,64"].map(super::members), [1, 4, 4, 2]);
    }
}
