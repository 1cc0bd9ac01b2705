//! The child process: one storm over one heap, one line of JSON.

use super::fault::fault;
use super::heap::{Door, Heap};
use super::live;
use super::order::{Order, Report};
use super::storm::Storm;
use super::team;
use crate::failure::Failure;
use crate::output;
use crate::peers::probe;
use std::io::Read;

/// `perseq torture-worker`.
pub fn main() -> Result<(), Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| Failure::usage(format!("torture-worker: {error}")))?;
    let order: Order = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("torture-worker: expected an order in JSON: {error}")))?;
    let report = work(&order).map_err(Failure::host)?;
    let json = serde_json::to_string(&report).map_err(|error| Failure::host(error.to_string()))?;
    output::print(&(json + "\n"))
}

fn work(order: &Order) -> Result<Report, String> {
    let storm = Storm::find(&order.storm).ok_or_else(|| format!("no storm `{}`", order.storm))?;
    if let Some(reason) = wrong_heap(order)? {
        return Ok(Report::Absent(reason));
    }
    let forces = storm.forces();
    if let Some(reason) = forces.iter().find_map(|force| (force.absent)(order)) {
        return Ok(Report::Absent(reason));
    }
    let tally = team::run(order, Heap { door: order.door, plant: order.plant }, &forces)?;
    check_that_all_is_over(order);
    let happened = forces.iter().zip(tally.happened).map(|(force, count)| (force.name.to_owned(), count)).collect();
    Ok(Report::Over { operations: tally.operations, happened })
}

/// Why the heap in the mode asked for cannot be had. Another heap than the one asked for is an error.
fn wrong_heap(order: &Order) -> Result<Option<String>, String> {
    match order.door {
        Door::Malloc => match probe::look().fault(order.preloaded.as_deref(), order.mode.as_deref()) {
            // A mode that this kernel does not have is perseq's to report; the crate says why.
            Some(reason) if reason.starts_with("mode: ") => Ok(Some(reason)),
            Some(reason) => Err(reason),
            None => Ok(None),
        },
        Door::Crate => {
            let active = perseq::active_mode();
            let asked = order.mode.as_deref().unwrap_or("none");
            let found = active.active.name();
            Ok((found != asked).then(|| format!("mode {asked}: {}; {found} is active", active.reason)))
        }
    }
}

/// Every block was freed: by the map of live blocks, and by the heap's own books where it has some.
fn check_that_all_is_over(order: &Order) {
    let left = live::count();
    if left != 0 {
        fault(format_args!("{left} granules of 8 bytes are in use after the storm: the torture's own fault"));
    }
    if order.door != Door::Crate {
        return;
    }
    perseq::drain();
    perseq::release();
    perseq::check(); // the named laws, in builds with debug assertions
    let stats = perseq::stats();
    if stats.live_small_bytes != 0 || stats.live_large_bytes != 0 {
        let (small, large) = (stats.live_small_bytes, stats.live_large_bytes);
        fault(format_args!(
            "lost: all was freed, and the heap counts {small} bytes of small and {large} of large blocks"
        ));
    }
}
