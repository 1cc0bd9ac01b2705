//! What this host is and what it can measure. Everything not known carries its reason.
//!
//! Nothing here identifies the host or its user: no name, no address, no path.

pub mod clock;
pub mod cpu;
pub mod kernel;
pub mod limits;
pub mod sequences;

use crate::counters::probe::Pmu;
use crate::known::Known;
use serde::Serialize;

/// Every fact `perseq doctor` shows and every manifest keeps.
#[derive(Debug, Serialize)]
pub struct Host {
    /// Processors.
    pub cpu: cpu::Cpu,
    /// Kernel and its settings.
    pub kernel: kernel::Kernel,
    /// The C library.
    pub libc: Known<String>,
    /// Its tunables.
    pub libc_tunables: Known<String>,
    /// Restartable sequences.
    pub rseq: sequences::Sequences,
    /// The clock every time is read from.
    pub clock: clock::Clock,
    /// Performance counters.
    pub pmu: Pmu,
    /// Limits of this process and its control group.
    pub limits: limits::Limits,
    /// What else runs, at the moment of asking.
    pub load: kernel::Load,
    /// The allocator as this process would use it.
    pub allocator: Allocator,
}

/// The allocator's settings at run time.
#[derive(Debug, Serialize)]
pub struct Allocator {
    /// The mode asked for.
    pub mode_requested: String,
    /// The mode active.
    pub mode_active: String,
    /// Why.
    pub mode_reason: String,
    /// Whether holders of its locks ask for longer time slices.
    pub slices: String,
    /// Names and values of the `PERSEQ_` variables that are set. Samples never inherit them.
    pub variables: Vec<(String, String)>,
}

impl Host {
    /// Looks at everything once.
    pub fn read() -> Host {
        let active = perseq::active_mode();
        Host {
            cpu: cpu::Cpu::read(),
            kernel: kernel::Kernel::read(),
            libc: kernel::libc(),
            libc_tunables: kernel::tunables(),
            rseq: sequences::Sequences::read(),
            clock: clock::Clock::read(),
            pmu: Pmu::probe(),
            limits: limits::Limits::read(),
            load: kernel::Load::read(),
            allocator: Allocator {
                mode_requested: active.requested.to_string(),
                mode_active: active.active.to_string(),
                mode_reason: active.reason.to_string(),
                slices: active.slices.to_string(),
                variables: std::env::vars().filter(|(name, _)| name.starts_with("PERSEQ_")).collect(),
            },
        }
    }

    /// One line for captions.
    pub fn caption(&self) -> String {
        format!("{}, {} CPUs allowed, Linux {}", self.cpu.model_name, self.limits.cpus, self.kernel.release)
    }
}
