//! Inside the guest: this binary is the only process, started by the kernel as `/init`.

use crate::worker;
use crate::workload::{self, Order};
use nix::mount::{MsFlags, mount};
use nix::sched::{CpuSet, sched_setaffinity, sched_yield};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::Pid;
use std::io::Write;

/// Where the image has the order.
pub const ORDER: &str = "order.json";
/// What the line with the report begins with.
pub const REPORT: &str = "PERSEQ-REPORT ";
/// What the line with a failure begins with.
pub const FAILURE: &str = "PERSEQ-FAILURE ";
/// Stores of the self-test on each CPU.
pub const TESTS: u64 = 64;

/// If this process is the guest's first one: does its work and switches the guest off.
pub fn if_first() {
    if std::process::id() != 1 || std::env::args().next().as_deref() != Some("/init") {
        return;
    }
    let line = match work() {
        Ok(report) => format!("{REPORT}{report}"),
        Err(reason) => format!("{FAILURE}{}", reason.replace('\n', " ")),
    };
    // The host finds no report if the console cannot be written.
    drop(writeln!(std::io::stdout(), "\n{line}"));
    drop(std::io::stdout().flush());
    // SAFETY: waits until the console has sent everything, and touches no memory.
    unsafe { nix::libc::tcdrain(1) };
    // A guest that stays on is ended by its deadline.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn work() -> Result<String, String> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>).map_err(|error| format!("{at}: {error}"))?;
    }
    let text = std::fs::read_to_string(format!("/{ORDER}")).map_err(|error| format!("/{ORDER}: {error}"))?;
    let order: Order = serde_json::from_str(&text).map_err(|error| format!("/{ORDER}: {error}"))?;
    let cpus = std::thread::available_parallelism().map_err(|error| format!("CPUs: {error}"))?.get();
    let kept = disturb(order.seed);
    marks::look();
    test_attribution(cpus)?;
    let report = worker::report(&order, |order| {
        marks::start();
        let measured = workload::run(order);
        marks::stop();
        measured
    })?;
    drop(kept);
    serde_json::to_string(&report).map_err(|error| error.to_string())
}

/// Another seed has other pages and other moments at which the kernel looks at its threads.
fn disturb(seed: u64) -> Vec<u8> {
    let pages = seed % 61;
    let instructions = seed / 61 % 100_003;
    (0..instructions).for_each(|turn| drop(std::hint::black_box(turn.to_string())));
    vec![1; 4096 * pages as usize]
}

/// A page whose lines stand for CPUs.
#[repr(align(4096))]
struct Page([u64; 512]);

/// Stores from each CPU in turn, for the plugin to compare.
fn test_attribution(cpus: usize) -> Result<(), String> {
    let mut page = Box::new(Page([0; 512]));
    let fail = |error: nix::Error| format!("pinning a thread: {error}");
    let everywhere = nix::sched::sched_getaffinity(Pid::from_raw(0)).map_err(fail)?;
    for round in 0..TESTS {
        for cpu in 0..cpus {
            let mut only = CpuSet::new();
            only.set(cpu).map_err(fail)?;
            sched_setaffinity(Pid::from_raw(0), &only).map_err(fail)?;
            marks::test(&mut page.0[8 * cpu], round);
        }
        sched_yield().map_err(fail)?;
    }
    sched_setaffinity(Pid::from_raw(0), &everywhere).map_err(fail)
}

/// Instructions that the plugin knows, and that do nothing else. Its `marks.rs` has the same numbers.
#[cfg(target_arch = "x86_64")]
mod marks {
    use std::arch::asm;

    const BASE: i32 = 0x5053_5100;

    /// Look at accesses from now on.
    pub fn look() {
        // SAFETY: `nop` with an operand reads nothing.
        unsafe { asm!(".byte 0x0f,0x1f,0x84,0x00", ".long {}", const BASE + 1) };
    }

    /// Count from now on.
    pub fn start() {
        // SAFETY: as above.
        unsafe { asm!(".byte 0x0f,0x1f,0x84,0x00", ".long {}", const BASE + 2) };
    }

    /// Count no more.
    pub fn stop() {
        // SAFETY: as above.
        unsafe { asm!(".byte 0x0f,0x1f,0x84,0x00", ".long {}", const BASE + 3) };
    }

    /// Stores `value` by the encoding that the plugin compares.
    pub fn test(place: &mut u64, value: u64) {
        let place = std::ptr::from_mut(place).wrapping_byte_sub(BASE as usize + 4);
        // SAFETY: the address is `place`, which is ours to write.
        unsafe {
            asm!(
                ".byte 0x48,0x89,0x88", ".long {}", const BASE + 4, in("rax") place, in("rcx") value,
                options(nostack)
            );
        }
    }
}

/// Guests are x86-64: on others nothing is marked, and no figure comes out.
#[cfg(not(target_arch = "x86_64"))]
mod marks {
    pub fn look() {}
    pub fn start() {}
    pub fn stop() {}
    pub fn test(place: &mut u64, value: u64) {
        *place = value;
    }
}
