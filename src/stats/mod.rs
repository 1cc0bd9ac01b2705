//! What every tier holds and has done: in total, by cache and by size class.
//!
//! Everything here is counted on slow paths, under locks that are taken anyway, or derived from what the tiers hold
//! at the moment. So it is exact if nothing is allocated or freed meanwhile. At such a moment
//!
//! ```text
//! committed = held + released + untouched         held = small spans + large + free pages
//! small spans = live + cached + transfer + central + quarantined + rest
//! allocations = hits + underflows + uncached      frees = hits + overflows + uncached
//! ```
//!
//! Hits are known only to a build with the feature `count-hits` ([`COUNTS_HITS`]): the fast path has no room for a
//! counter. Frees of an object that another CPU or thread allocated are not counted in any build: an object has no
//! home it could be remote from. What moves between caches shows in `refilled_objects` and `flushed_objects`.

pub mod collect;
pub mod file_writer;
pub mod live;
pub mod numbers;
pub mod report;
