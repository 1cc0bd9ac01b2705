//! The gate: its owner and another thread are never both at what it guards.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use rseq::{Fault, explore};

use crate::gate::{self, Gate};
use crate::must_fail;

struct Room {
    gate: Gate,
    visits: UnsafeCell<u32>,
}

// SAFETY: that one thread at a time is in it is what the model shows.
unsafe impl Sync for Room {}

impl Room {
    fn visit(&self) {
        // SAFETY: as above.
        self.visits.with_mut(|visits| unsafe { *visits += 1 });
    }
}

fn model(fault: Fault, looks: bool) {
    explore(fault, move || {
        let room = Arc::new(Room { gate: Gate::new(), visits: UnsafeCell::new(0) });
        drop(room.gate.enter());
        drop(room.gate.close());
        let owner = thread::spawn({
            let room = room.clone();
            move || {
                for _ in 0..2 {
                    if let Some(_inside) = room.gate.enter() {
                        room.visit();
                    }
                }
            }
        });
        let closing = room.gate.close().expect("nobody else closes it");
        assert!(gate::fence());
        if !looks || closing.closed() {
            room.visit();
        }
        drop(closing);
        owner.join().unwrap();
        assert!(room.gate.enter().is_some(), "open again");
    });
}

#[test]
fn never_both() {
    model(Fault::None, true);
}

#[test]
fn without_the_fence_both() {
    must_fail("gate_model::without_the_fence_both", "Causality violation", || {
        model(Fault::NoFence, true);
    });
}

#[test]
fn without_a_look_both() {
    must_fail("gate_model::without_a_look_both", "Causality violation", || {
        model(Fault::None, false);
    });
}

#[test]
fn without_orderings_one_sees_less() {
    must_fail("gate_model::without_orderings_one_sees_less", "Causality violation", || {
        model(Fault::Relaxed, true);
    });
}
