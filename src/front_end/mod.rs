//! Which cache a thread uses, and how its lists are changed: the only difference between the modes.
//!
//! ```text
//! mode              cache found by              lists changed by             others may seize a cache
//! percpu            cpu_id                      restartable sequences        by a stop and a fence
//! percpu-mmcid      mm_cid                      restartable sequences        by a stop and a fence
//! perthread         a word in TLS               plain loads and stores       never
//! perthread-drain   a word in TLS               the same, inside a gate      by closing the gate and a fence
//! sharded           a hash of the thread id     the same, under a lock       by the lock
//! percpu-lock       cpu_id, or getcpu           the same, under a lock       by the lock
//! central           none                        -                            -
//! ```
//!
//! One word says which (`way`): the fast path loads it, and in the per-CPU modes it is also where the thread's rseq
//! area is. What a mode has to say is in `contract`, and what each says is in `modes`.
//!
//! # What choosing at run time costs
//!
//! Per operation, beside what the mode itself does:
//!
//! * `percpu`: a load and a branch that is predicted; `percpu-mmcid` and `perthread`: a branch more.
//! * `perthread-drain`: the cell of its threads always names the empty lists of nobody, so inlined code finds nothing
//!   there, as in an empty list, and calls the slow path. The slow path looks for this mode first. That is a call and
//!   some ten instructions, beside the six of the gate.
//! * `sharded`, `percpu-lock` and `central`: the same, and then the whole slow path: three calls and some forty
//!   instructions, beside the two atomic operations of a lock.
//!
//! So the first three modes, which are compared, execute no code of another mode.

pub mod behind;
pub mod budget;
pub mod cache;
pub mod contract;
pub mod fast;
pub mod gate;
pub mod hits;
pub mod lists;
pub mod modes;
pub mod reclaim;
pub mod registry;
pub mod slow;
pub mod thread;
