//! What the models have in place of the processor and the kernel: atomics that loom watches, futexes, a membarrier. Each
//! can be broken for a control, for the thread that runs the model.

use std::cell::Cell;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// No operation orders another.
    Relaxed,
    /// Nobody is woken.
    NoWake,
    /// The membarrier does nothing.
    NoFence,
}

std::thread_local! {
    static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
}

/// Runs `model` on every interleaving, with `fault`.
pub fn explore(fault: Fault, model: impl Fn() + Sync + Send + 'static) {
    FAULT.set(fault);
    let mut builder = loom::model::Builder::new();
    // Enough for every fault that the controls have. Without a bound some models take hours.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn is(fault: Fault) -> bool {
    FAULT.get() == fault
}

/// In place of the core library's.
pub mod atomic {
    use std::sync::OnceLock;

    use loom::sync::atomic as watched;
    pub use loom::sync::atomic::Ordering;

    use super::{Fault, is};

    fn order(wanted: Ordering) -> Ordering {
        if is(Fault::Relaxed) { Ordering::Relaxed } else { wanted }
    }

    /// Fences of the compiler alone, where the other side has a membarrier: together they are what two full fences are.
    pub fn compiler_fence(order: Ordering) {
        watched::fence(order);
    }

    macro_rules! atomic {
        ($name:ident, $type:ty) => {
            /// Made when it is first used, so that it can be made in a constant: by the thread that starts the others.
            pub struct $name(OnceLock<watched::$name>, $type);

            impl $name {
                pub const fn new(value: $type) -> Self {
                    $name(OnceLock::new(), value)
                }
                fn get(&self) -> &watched::$name {
                    self.0.get_or_init(|| watched::$name::new(self.1))
                }
                pub fn load(&self, at: Ordering) -> $type {
                    self.get().load(order(at))
                }
                pub fn store(&self, value: $type, at: Ordering) {
                    self.get().store(value, order(at));
                }
                pub fn swap(&self, value: $type, at: Ordering) -> $type {
                    self.get().swap(value, order(at))
                }
                pub fn compare_exchange(
                    &self,
                    old: $type,
                    new: $type,
                    at: Ordering,
                    or: Ordering,
                ) -> Result<$type, $type> {
                    self.get().compare_exchange(old, new, order(at), order(or))
                }
            }
        };
    }

    impl AtomicU32 {
        pub fn fetch_or(&self, value: u32, at: Ordering) -> u32 {
            self.get().fetch_or(value, order(at))
        }
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicUsize, usize);
    atomic!(AtomicBool, bool);
}

/// System calls.
pub mod syscall {
    use loom::sync::{Condvar, Mutex};

    use super::atomic::{AtomicU32, Ordering};
    use super::{Fault, is};

    loom::lazy_static! {
        static ref BUCKET: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    }

    /// As the kernel does: it looks at the word under the lock of its bucket. No time ever passes here.
    pub fn futex_wait(word: &AtomicU32, expected: u32, _: Option<u32>) -> bool {
        let bucket = BUCKET.0.lock().unwrap();
        if word.load(Ordering::Relaxed) == expected {
            drop(BUCKET.1.wait(bucket).unwrap());
        }
        true
    }

    pub fn futex_wake(_: &AtomicU32, count: u32) {
        assert_eq!(count, 1);
        let _bucket = BUCKET.0.lock().unwrap();
        if !is(Fault::NoWake) {
            BUCKET.1.notify_one();
        }
    }
}

/// Fences on other threads.
pub mod fence {
    use super::{Fault, is};

    /// See [`super::atomic::compiler_fence`].
    pub fn memory() -> Result<(), i32> {
        if !is(Fault::NoFence) {
            loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        }
        Ok(())
    }

    pub fn register_memory() -> Result<(), i32> {
        Ok(())
    }
}
