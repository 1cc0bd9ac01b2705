//! The worker's side of a sample: an order on standard input, a report on standard output, each one line of JSON.

use crate::failure::Failure;
use crate::output;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the order, does the work and prints its report. An error of the work is the reason in the sample's row.
pub fn answer<O: DeserializeOwned, R: Serialize>(work: impl FnOnce(&O) -> Result<R, String>) -> Result<(), Failure> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).map_err(|error| Failure::usage(format!("worker: {error}")))?;
    let order: O = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("worker: expected an order in JSON on standard input: {error}")))?;
    let report = work(&order).map_err(Failure::host)?;
    let json = serde_json::to_string(&report).map_err(|error| Failure::host(error.to_string()))?;
    output::print(&(json + "\n"))
}
