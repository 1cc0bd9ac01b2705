//! Processors: which there are, which we may use, and what they share.

use super::read;
use crate::known::Known;
use serde::Serialize;

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
    /// Who chooses the frequency, and how.
    pub governor: Known<String>,
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
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: field("flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
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
