//! Models of what threads do to one another, on every interleaving and with every reordering that the language allows.
//!
//! `cargo test --release --manifest-path tests/loom/Cargo.toml`
//!
//! The lock and the gate are the real ones, from the files of `src`. What stands around them is written here in their
//! terms: how a list's array is exchanged while another thread empties the cache, how a thread's cache is retired while
//! another seizes it, how the first allocation is announced. Each model has controls that must fail.
#![allow(dead_code)] // a model uses its part of a file

pub mod atomic {
    pub use rseq::atomic::*;
}

/// The order of locks is checked elsewhere.
pub mod lock_order {
    #[derive(Clone, Copy)]
    pub enum Rank {
        Decision,
        Reclaim,
        Registry,
        Shape,
    }

    pub struct Order;

    impl Order {
        pub const fn new(_: Rank) -> Self {
            Order
        }
        pub fn before_waiting(&self) {}
        pub fn before_waiting_for_another(&self) {}
        pub fn taken(&self) {}
        pub fn giving_up(&self) {}
    }
}

/// The end of a process.
pub mod message {
    pub fn broken(parts: &[&str]) -> ! {
        panic!("{parts:?}")
    }
}

/// Numbers of threads, and their locks: each thread's own.
pub mod this_thread {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    pub const NUMBER: u32 = (1 << 29) - 1;

    loom::lazy_static! {
        static ref NEXT: AtomicU32 = AtomicU32::new(1);
    }

    loom::thread_local! {
        static THIS: Cell<u32> = Cell::new(NEXT.fetch_add(1, Relaxed));
        static LOCKS: Cell<usize> = Cell::new(0);
    }

    pub fn number() -> u32 {
        THIS.with(Cell::get)
    }
    pub fn enter() -> u32 {
        LOCKS.with(|locks| locks.set(locks.get() + 1));
        number()
    }
    pub fn leave() {
        LOCKS.with(|locks| locks.set(locks.get() - 1));
    }
    pub fn locks() -> usize {
        LOCKS.with(Cell::get)
    }
    pub fn is_shared() -> bool {
        false
    }
    pub fn go_without() {}
    pub fn pause() {}
    pub fn resume() {}
    pub fn before_waking() {}
}

#[path = "../../../src/front_end/gate.rs"]
pub mod gate;
#[path = "../../../src/sync.rs"]
pub mod sync;

#[cfg(test)]
mod cache;
#[cfg(test)]
mod first_allocation;
#[cfg(test)]
mod gate_model;
#[cfg(test)]
mod mutex;

/// The control: `model` fails and says `expected`. In a process of its own, since loom ends it: `test` is the full name of
/// the test that calls this.
#[cfg(test)]
fn must_fail(test: &str, expected: &str, model: impl FnOnce()) {
    const ROLE: &str = "PERSEQ_MODEL_FAILS";
    if std::env::var_os(ROLE).is_some() {
        return model();
    }
    let this = std::env::current_exe().expect("the path of this binary");
    let mut command = std::process::Command::new(this);
    command.args([test, "--exact", "--nocapture"]).env(ROLE, "1").env("RUST_BACKTRACE", "0");
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(expected), "not found out: {}: {errors}", output.status);
}
