//! What a sample may use here: CPUs, threads and memory. Cells beyond it are skipped with the reason.

use crate::definition::{Parameters, Rule};
use crate::host_file::read;
use crate::known::Known;
use crate::subject::Subject;
use nix::sys::resource::{Resource, getrlimit};
use perseq::Owner;
use serde::Serialize;

/// Limits, and the caps that follow from them.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// CPUs this process may use: L.
    pub cpus: u64,
    /// Version of the control group this process is in.
    pub cgroup_version: Known<u32>,
    /// CPUs' worth of time the control group may use.
    pub cgroup_cpus: Known<f64>,
    /// Bytes the control group may use.
    pub cgroup_memory_bytes: Known<u64>,
    /// Tasks the control group may have.
    pub cgroup_pids: Known<u64>,
    /// CPUs the control group may use.
    pub cgroup_cpuset: Known<String>,
    /// Tasks this user may have.
    pub rlimit_nproc: Known<u64>,
    /// Bytes of address space a process may have.
    pub rlimit_as: Known<u64>,
    /// Bytes of a new thread's stack unless it asks for others.
    pub rlimit_stack: Known<u64>,
    /// Bytes a file may have.
    pub rlimit_fsize: Known<u64>,
    /// Bytes of memory in the machine.
    pub ram_bytes: Known<u64>,
    /// Whether restartable sequences work here.
    pub sequences: Known<bool>,
    /// Whether the kernel gives concurrency ids.
    pub concurrency_ids: Known<bool>,
    /// Threads a sample may have.
    pub max_threads: u64,
    /// Bytes a sample may need: a quarter of what there is.
    pub max_bytes: u64,
}

const NO_LIMIT: &str = "no limit is set";

impl Limits {
    /// Looks.
    pub fn read() -> Limits {
        let group = Group::find();
        let ram_bytes = ram();
        let limit = |resource: Resource| match getrlimit(resource) {
            Ok((soft, _)) if soft == nix::libc::RLIM_INFINITY => Known::missing(NO_LIMIT),
            Ok((soft, _)) => Known::is(soft),
            Err(error) => Known::missing(format!("getrlimit: {error}")),
        };
        let rlimit_nproc = limit(Resource::RLIMIT_NPROC);
        let cgroup_memory_bytes = group.number("memory.max", "memory", "memory.limit_in_bytes");
        let cgroup_pids = group.number("pids.max", "pids", "pids.max");
        let tasks = [cgroup_pids.value, rlimit_nproc.value].into_iter().flatten().map(|tasks| tasks.saturating_sub(64));
        let memory = [cgroup_memory_bytes.value, ram_bytes.value].into_iter().flatten().min();
        let probe = rseq::probe();
        Limits {
            sequences: Known::from(probe.as_ref().map(|_| true)),
            concurrency_ids: match &probe {
                Ok(found) if found.has_mm_cid() => Known::is(true),
                Ok(_) => Known::missing("the kernel gives no concurrency ids (Linux 6.3)"),
                Err(why) => Known::missing(why.to_string()),
            },
            cpus: core_affinity::get_core_ids().map_or(1, |ids| ids.len().max(1) as u64),
            cgroup_version: group.version.clone(),
            cgroup_cpus: group.cpus(),
            max_threads: tasks.chain([8192]).min().unwrap_or(8192),
            max_bytes: memory.unwrap_or(1 << 30) / 4,
            cgroup_cpuset: group.cpuset(),
            rlimit_as: limit(Resource::RLIMIT_AS),
            rlimit_stack: limit(Resource::RLIMIT_STACK),
            rlimit_fsize: limit(Resource::RLIMIT_FSIZE),
            cgroup_memory_bytes,
            cgroup_pids,
            rlimit_nproc,
            ram_bytes,
        }
    }

    /// Limits nothing reaches, on two CPUs.
    #[cfg(test)]
    pub fn none() -> Limits {
        Limits { cpus: 2, max_threads: u64::MAX, max_bytes: u64::MAX, ..Limits::read() }
    }

    /// Why a subject cannot be measured here, if it cannot: a mode that falls back would be measured under a wrong name.
    pub fn refuse_subject(&self, subject: Subject) -> Option<String> {
        let Subject::Perseq(mode) = subject else { return None };
        if !mode.uses_sequences() {
            return None;
        }
        let by_cid = matches!(mode.owner(0), Some(Owner::Cid(_)));
        let needed = if by_cid { &self.concurrency_ids } else { &self.sequences };
        needed.value.is_none().then(|| format!("{mode}: {needed}"))
    }

    /// Why a cell cannot be run here, if it cannot.
    pub fn refuse(&self, parameters: &Parameters, rule: Option<Rule>) -> Option<String> {
        let parameter = |name: &str| parameters.get(name).copied().unwrap_or(0);
        if parameter("cpus_needed") > self.cpus {
            return Some(format!("{} CPUs: this host allows {}", parameter("cpus_needed"), self.cpus));
        }
        let threads = parameter("threads").max(parameter("threads_per_cpu").saturating_mul(self.cpus));
        if threads > self.max_threads {
            return Some(format!("{threads} threads: this host allows {}", self.max_threads));
        }
        // Saturating: a definition may say any number.
        let caches = if matches!(rule, Some(Rule::B | Rule::C)) {
            parameter("total_bytes")
        } else {
            threads.saturating_mul(parameter("cache_bytes"))
        };
        let each = parameter("fill_bytes").saturating_add(64 << 10);
        let bytes = threads.saturating_mul(each).saturating_add(parameter("live_bytes")).saturating_add(caches);
        (bytes > self.max_bytes).then(|| format!("{bytes} bytes: a sample may use {} here", self.max_bytes))
    }
}

fn ram() -> Known<u64> {
    let info = read("/proc/meminfo");
    let kib = |text: &str| {
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
    };
    match (&info.value, info.reason.clone()) {
        (Some(text), _) => {
            kib(text).map_or_else(|| Known::missing("/proc/meminfo has no MemTotal"), |kib| Known::is(kib << 10))
        }
        (None, reason) => Known { value: None, reason },
    }
}

/// The control group of this process, in either version.
struct Group {
    version: Known<u32>,
    own: String,
}

impl Group {
    fn find() -> Group {
        let own = read("/proc/self/cgroup").value.unwrap_or_default();
        let version = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            Known::is(2)
        } else if std::path::Path::new("/sys/fs/cgroup/cpu").exists() {
            Known::is(1)
        } else {
            Known::missing("no control group file system is mounted at /sys/fs/cgroup")
        };
        Group { version, own }
    }

    /// The tightest value of a file on the way from this group to the root.
    fn tightest<T: PartialOrd>(
        &self,
        v2: &str,
        controller: &str,
        v1: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Known<T> {
        let (root, path, file) = match self.version.value {
            Some(2) => ("/sys/fs/cgroup".to_owned(), self.path(""), v2),
            Some(_) => (format!("/sys/fs/cgroup/{controller}"), self.path(controller), v1),
            None => return Known { value: None, reason: self.version.reason.clone() },
        };
        let mut least: Option<T> = None;
        let mut directory = path.as_str();
        loop {
            let value = read(&format!("{root}{directory}/{file}")).value.and_then(|text| parse(&text));
            if let Some(value) = value
                && least.as_ref().is_none_or(|least| value < *least)
            {
                least = Some(value);
            }
            match directory.rsplit_once('/') {
                Some((parent, _)) => directory = parent,
                None => break,
            }
        }
        least.map_or_else(|| Known::missing(NO_LIMIT), Known::is)
    }

    fn number(&self, v2: &str, controller: &str, v1: &str) -> Known<u64> {
        // Version 1 writes "no limit" as a number near 2^63.
        self.tightest(v2, controller, v1, |text| text.parse().ok().filter(|value| *value < 1 << 60))
    }

    fn cpus(&self) -> Known<f64> {
        if self.version.value == Some(1) {
            let quota = self
                .tightest("", "cpu", "cpu.cfs_quota_us", |text| text.parse::<f64>().ok().filter(|quota| *quota > 0.0));
            let period = self.tightest("", "cpu", "cpu.cfs_period_us", |text| text.parse::<f64>().ok());
            return match period.value {
                Some(period) => quota.map(|quota| quota / period),
                None => quota,
            };
        }
        self.tightest("cpu.max", "cpu", "", |text| {
            let (quota, period) = text.split_once(' ')?;
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
        })
    }

    fn cpuset(&self) -> Known<String> {
        match self.version.value {
            Some(2) => read(&format!("/sys/fs/cgroup{}/cpuset.cpus.effective", self.path(""))),
            Some(_) => read(&format!("/sys/fs/cgroup/cpuset{}/cpuset.effective_cpus", self.path("cpuset"))),
            None => Known { value: None, reason: self.version.reason.clone() },
        }
    }

    fn path(&self, controller: &str) -> String {
        let line = self.own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        line.unwrap_or("/").trim_end_matches('/').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_this_kernel_does_not_have_is_refused() {
        let limits = Limits { concurrency_ids: Known::missing("too old"), ..Limits::none() };
        let refuse = |name: &str| Subject::from_name(name).and_then(|subject| limits.refuse_subject(subject));
        assert!(refuse("percpu-mmcid").unwrap().contains("too old"));
        assert_eq!(refuse("perthread"), None);
        assert_eq!(refuse("system"), None);
    }

    #[test]
    fn a_cell_beyond_the_limits_is_refused_with_the_reason() {
        let limits = Limits { max_threads: 64, max_bytes: 1 << 20, ..Limits::none() };
        let cell = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        assert!(limits.refuse(&cell(&[("threads_per_cpu", 33)]), None).unwrap().contains("66 threads"));
        assert!(
            limits.refuse(&cell(&[("threads_per_cpu", 4), ("fill_bytes", 1 << 20)]), None).unwrap().contains("bytes")
        );
        assert_eq!(limits.refuse(&cell(&[("threads_per_cpu", 1)]), None), None);
        for name in ["cache_bytes", "fill_bytes", "live_bytes"] {
            let refused = limits.refuse(&cell(&[("threads_per_cpu", 2), (name, u64::MAX)]), None);
            assert!(refused.is_some_and(|why| why.contains("bytes")), "{name}");
        }
    }
}
