//! The command line of QEMU: a guest that does the same each time, whatever the host does meanwhile.

use super::machine::Machine;
use super::packages::Packages;
use crate::harness::process::Job;
use std::path::Path;
use std::time::Duration;

/// Memory of a guest: 1 GiB, and where there are more than 16 CPUs, 64 MiB for each.
pub fn memory_bytes(cpus: usize) -> u64 {
    (cpus.max(16) as u64) << 26
}

/// Nanoseconds of the guest's clock for each instruction: 2 to this power.
const SHIFT: u32 = 3;
/// Nanoseconds of the guest's clock in which a thread, with all CPUs in turns, executes what a processor does in the 3 ms
/// of a usual slice, at two instructions a nanosecond. At most what the kernel's word holds.
pub fn slice_ns(cpus: usize) -> u64 {
    ((6_000_000 * cpus as u64) << SHIFT).min(u64::from(u32::MAX))
}

/// Links of the think loop in a millisecond of a guest, where a link counts as one instruction.
pub const LINKS_PER_MS: u64 = 1_000_000 >> SHIFT;

/// Long enough for a guest of 64 CPUs on a host that is shared by many.
const DEADLINE: Duration = Duration::from_secs(1800);

/// What the kernel is told: nothing random, no huge pages that are cleared in the middle of a measurement, no clocks to
/// calibrate, no self-tests.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 nokaslr norandmaps transparent_hugepage=never tsc=reliable \
                      lpj=10000000 no_timer_check cryptomgr.notests rcupdate.rcu_expedited=1 mitigations=off";

/// The guest's files, where the plugin writes, and what it looks for.
pub struct Files<'a> {
    /// The archive of its files.
    pub image: &'a Path,
    /// The plugin.
    pub plugin: &'a Path,
    /// The file that the plugin writes.
    pub out: &'a Path,
    /// Whether the guest marks objects.
    pub objects: bool,
}

/// CPUs, with a socket for each last-level group: its kernel tells programs so, and keeps threads in their group if it can.
fn smp(machine: &Machine) -> String {
    let Machine { cpus, llc_groups, .. } = machine;
    format!("{cpus},sockets={llc_groups},cores={},threads=1", cpus / llc_groups)
}

/// The process of a guest, whose init gets `environment`.
pub fn job(packages: &Packages, machine: &Machine, files: &Files, environment: &[(String, String)]) -> Job {
    let variables: String = environment.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let plugin = format!(
        "{},cpus={},groups={},geometry={},memory=0,objects={},out={}",
        files.plugin.display(),
        machine.cpus,
        machine.llc_groups,
        machine.geometry,
        u8::from(files.objects),
        files.out.display()
    );
    let mut job = Job::new(packages.emulator(), DEADLINE).environment(packages.environment());
    for folder in packages.firmware() {
        job = job.argument("-L").argument(folder);
    }
    let arguments = [
        ("-machine", "q35".into()),
        ("-m", format!("{}M", memory_bytes(machine.cpus) >> 20)),
        ("-smp", smp(machine)),
        ("-accel", "tcg,thread=single".into()),
        ("-icount", format!("shift={SHIFT},sleep=off")),
        ("-rtc", "base=2020-01-01,clock=vm".into()),
        ("-seed", "7".into()),
        // String instructions that call back for each byte, and random numbers of the host, are not offered.
        ("-cpu", "max,rdrand=off,rdseed=off,erms=off,fsrm=off".into()),
        ("-append", format!("{KERNEL}{variables}")),
        ("-plugin", plugin),
        ("-display", "none".into()),
        ("-monitor", "none".into()),
        ("-serial", "stdio".into()),
        ("-net", "none".into()),
    ];
    for (name, value) in arguments {
        job = job.argument(name).argument(value);
    }
    job = job.argument("-kernel").argument(packages.kernel()).argument("-initrd").argument(files.image);
    job.argument("-no-reboot")
}
