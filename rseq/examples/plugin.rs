//! A library that uses the crate, to be loaded with `dlopen` and unloaded with `dlclose`.
//!
//! The kernel may read the descriptor of a thread's last sequence long after it ended. So a library that
//! holds sequences has every thread that ran some forget them before it is unloaded. `tests/registration/` does so.

use std::sync::OnceLock;

use rseq::PerCpuCounter;

static COUNTER: OnceLock<PerCpuCounter> = OnceLock::new();

fn counter() -> &'static PerCpuCounter {
    COUNTER.get_or_init(|| PerCpuCounter::new().expect("address space"))
}

/// Adds 1 `times` times on the calling thread's CPUs.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_count(times: u64) {
    for _ in 0..times {
        counter().add(1);
    }
}

/// What was counted, or `u64::MAX` if it was not in sequences.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_sum() -> u64 {
    if counter().is_per_cpu() { counter().sum() } else { u64::MAX }
}

/// The last call of a thread before the library goes. 0 if it may go.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_forget() -> i32 {
    match rseq::probe().map(|found| found.forget_thread()) {
        Ok(Ok(())) => 0,
        _ => 1,
    }
}
