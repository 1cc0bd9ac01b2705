//! `perseq doctor`: what this host can measure, and what not and why.

use crate::counters::{self, Status, probe};
use crate::failure::{Exit, Failure};
use crate::host::Host;
use crate::known::Known;
use crate::output;
use serde::Serialize;
use std::fmt::Display;

/// Prints it.
pub fn main(as_json: bool, deep: bool) -> Result<Exit, Failure> {
    let host = Host::read();
    let deep = deep.then(Deep::look);
    if as_json {
        let mut json = serde_json::to_value(&host).map_err(|error| Failure::host(error.to_string()))?;
        if let (Some(object), Some(deep)) = (json.as_object_mut(), &deep) {
            let deep = serde_json::to_value(deep).map_err(|error| Failure::host(error.to_string()))?;
            object.insert("deep".into(), deep);
        }
        output::print_json(&json)?;
    } else {
        output::print(&(page(&host) + &deep.map_or_else(String::new, |deep| deep.page())))?;
    }
    Ok(if host.rseq.registrant.value.is_some() { Exit::Done } else { Exit::Host })
}

/// What takes longer to ask, or needs root.
#[derive(Serialize)]
struct Deep {
    /// The processor's name in the table of raw events.
    processor: Known<String>,
    /// Each raw event: name, group, whether it can be counted, and what it would show.
    raw_events: Vec<(String, String, Status, String)>,
    /// Aborted sequences as the kernel counted them, and as the allocator did, in one run under signals.
    aborts: Known<(u64, u64)>,
    /// Nanoseconds for a line to go from the first allowed CPU to each other one and back.
    round_trip_ns: Known<Vec<(usize, f64)>>,
}

impl Deep {
    fn look() -> Deep {
        let known = counters::this_processor();
        let try_one = |raw: &counters::vendor::Raw| {
            (raw.name.to_owned(), raw.group.to_owned(), probe::try_raw(raw.config), raw.supports.to_owned())
        };
        let aborts = probe::count_tracepoint("rseq/rseq_ip_fixup", crate::selftest::restarts_under_signals);
        Deep {
            processor: match &known {
                Some(known) => Known::is(known.name.to_owned()),
                None => Known::missing("not in the table of raw events"),
            },
            raw_events: known.map_or(&[][..], |known| known.events).iter().map(try_one).collect(),
            aborts: match aborts {
                Known { value: Some((kernel, Ok(own))), .. } => Known::is((kernel, own)),
                Known { value: Some((_, Err(reason))), .. } => Known::missing(reason),
                Known { reason, .. } => Known { value: None, reason },
            },
            round_trip_ns: Known::from(crate::host::cpu::round_trips()),
        }
    }

    fn page(&self) -> String {
        let mut page = Page(String::new());
        page.heading("deep");
        page.line("processor", &self.processor);
        for (name, group, status, supports) in &self.raw_events {
            page.line(name, format!("{status}; group {group}: {supports}"));
        }
        page.line(
            "aborts",
            self.aborts
                .clone()
                .map(|(kernel, own)| format!("{kernel} by the kernel's count, {own} by the allocator's")),
        );
        match &self.round_trip_ns.value {
            Some(trips) => {
                for (cpu, ns) in trips {
                    page.line(&format!("line to CPU {cpu} and back"), format!("{ns:.0} ns"));
                }
            }
            None => page.line("line to another CPU", self.round_trip_ns.clone().map(|_| "")),
        }
        page.0
    }
}

/// The page under construction.
struct Page(String);

impl Page {
    fn heading(&mut self, heading: &str) {
        self.0 += &format!("{heading}\n");
    }

    fn line(&mut self, name: &str, value: impl Display) {
        self.0 += &format!("  {name:<24} {value}\n");
    }

    fn list<T: Display>(&mut self, name: &str, known: &Known<Vec<T>>) {
        match &known.value {
            Some(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.line(if index == 0 { name } else { "" }, value);
                }
            }
            None => self.line(name, format!("not known: {}", known.reason.as_deref().unwrap_or("no reason"))),
        }
    }
}

fn page(host: &Host) -> String {
    let mut page = Page(String::new());
    page.heading("processors");
    page.line("model", &host.cpu.model_name);
    page.line("identity", &host.cpu.identity);
    page.line("possible", &host.cpu.possible);
    page.line("online", &host.cpu.online);
    page.line("allowed", host.cpu.allowed.clone().map(|cpus| format!("{cpus:?}")));
    page.line("SMT", &host.cpu.smt);
    page.line("memory nodes", &host.cpu.nodes);
    page.list("caches of CPU 0", &host.cpu.caches);
    page.line("governor", &host.cpu.governor);
    page.line("hypervisor", &host.cpu.hypervisor);

    page.heading("kernel and libc");
    page.line("release", &host.kernel.release);
    page.line("libc", &host.libc);
    page.line("huge pages", &host.kernel.thp);
    page.line("ASLR", &host.kernel.aslr);
    page.line("overcommit", &host.kernel.overcommit);
    page.line("NUMA balancing", &host.kernel.numa_balancing);
    page.line("page bytes", &host.kernel.page_bytes);

    page.heading("restartable sequences");
    page.line("registered by", &host.rseq.registrant);
    page.line("registered bytes", &host.rseq.registered_bytes);
    page.line("feature bytes", &host.rseq.feature_bytes);
    page.line("alignment", &host.rseq.align_bytes);
    page.line("mm_cid", &host.rseq.mm_cid);
    page.line("node_id", &host.rseq.node_id);
    page.line("slice extensions", &host.rseq.slices);

    page.heading("clock");
    page.line("source", &host.clock.source);
    page.line("resolution", host.clock.resolution_ns.clone().map(|ns| format!("{ns} ns")));
    page.line("one reading", host.clock.overhead_ns.clone().map(|ns| format!("{ns:.0} ns")));

    page.heading("counters");
    page.line("perf_event_paranoid", &host.pmu.perf_event_paranoid);
    for event in &host.pmu.events {
        page.line(event.name, event.status);
    }
    page.line("known loop", host.pmu.known_loop.clone().map(|ratio| format!("{ratio:.4} of its length")));

    page.heading("limits");
    page.line("CPUs allowed (L)", host.limits.cpus);
    page.line("control groups", host.limits.cgroup_version.clone().map(|version| format!("version {version}")));
    page.line("CPU quota", &host.limits.cgroup_cpus);
    page.line("memory limit", &host.limits.cgroup_memory_bytes);
    page.line("task limit", &host.limits.cgroup_pids);
    page.line("RLIMIT_NPROC", &host.limits.rlimit_nproc);
    page.line("memory", host.limits.ram_bytes.clone().map(|bytes| format!("{} MiB", bytes >> 20)));
    page.line("sample's threads", format!("{} at most", host.limits.max_threads));
    page.line("sample's memory", format!("{} MiB at most", host.limits.max_bytes >> 20));

    page.heading("load");
    page.line("one minute", &host.load.one_minute);
    page.line("steal since boot", host.load.steal_ticks_since_boot.clone().map(|ticks| format!("{ticks} ticks")));

    page.heading("allocator");
    page.line("mode", format!("{} ({})", host.allocator.mode_active, host.allocator.mode_reason));
    page.line("slices", &host.allocator.slices);
    for option in perseq::options() {
        let set = host.allocator.variables.iter().find(|(name, _)| name == option.name);
        page.line(
            option.name,
            format!(
                "{}: {} (unless set: {})",
                set.map_or("not set", |(_, value)| value.as_str()),
                option.meaning,
                option.default
            ),
        );
    }

    page.heading("so this host can show");
    page.line("time and throughput", "yes");
    page.line("memory", "yes");
    page.line(
        "oversubscription",
        format!("yes, {} threads per CPU at most", host.limits.max_threads / host.limits.cpus),
    );
    let locality = match host.pmu.hardware() {
        true => "yes, by counters of this vendor",
        false => "no: no hardware counter can be opened",
    };
    page.line("cache locality", locality);
    let software = host.pmu.events.iter().filter(|event| !event.hardware && event.status == Status::Ok).count();
    page.line("software events", format!("{software} of 5"));
    page.line("scaling", format!("up to {} CPUs", host.limits.cpus));
    page.0
}
