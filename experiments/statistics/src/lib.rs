//! Ratios of paired samples, and how sure they are.
//!
//! The process is the unit of replication: one value per block and subject. `paired.rs` makes ratios of them, with an
//! interval of the model of two levels; `verdict.rs` is the whole rule that makes words of intervals, and the smallest
//! difference the rule finds; `shape.rs` asks whether values lie in one heap, or go one way.

mod estimate;
mod paired;
mod shape;
mod verdict;

pub use estimate::{Estimate, mean, median, poisson, proportion};
pub use paired::{Paired, difference, unpaired};
pub use shape::{Heaps, steady, two_heaps};
pub use verdict::{Doubt, Side, found, holm, holm_critical, resolution, side};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
