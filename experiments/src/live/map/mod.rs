//! `perseq map PID`: a heap by address, and its spans by class and occupancy.
//!
//! Pages are told in lines of huge pages, because a huge page that is in use in part costs all of it. `screen.rs` draws
//! them with letters, `svg.rs` as a figure; `heap.rs` is what they draw.

mod heap;
mod screen;
mod svg;

use super::find;
use super::process::Process;
use crate::failure::{Exit, Failure};
use crate::{output, written};
use heap::Heap;
use std::path::PathBuf;

/// Options of `perseq map`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq map 4711
  perseq map 4711 --rows 200
  perseq map 4711 --svg heap.svg      a figure, with what each span is under the pointer

As `perseq stats`, it reads the process's memory and the process does nothing for it. What is taken of a
span is what caches have of it as well: their objects can only go back to it from there.")]
pub struct Arguments {
    /// The process, which runs on libperseq or has perseq for its allocator.
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// Write a figure to this file instead. Of a process with several allocators, that of the largest.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Most lines of the map: of a larger heap, a letter stands for more pages.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
}

/// `perseq map`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let process = Process::new(arguments.pid)?;
    let mut heaps = Vec::new();
    for allocator in find::allocators(&process)? {
        heaps.extend(Heap::of(&process, &allocator)?);
    }
    let Some(largest) = heaps.iter().max_by_key(|heap| heap.pages(|_| true)) else {
        return Err(Failure::host(format!("{process}: nothing was allocated yet through the perseq it holds")));
    };
    match &arguments.svg {
        Some(path) => written::whole(path, svg::figure(largest).as_bytes())?,
        None => {
            let screens = heaps.iter().map(|heap| screen::text(heap, arguments.rows));
            output::print(&screens.collect::<Vec<_>>().join("\n"))?;
        }
    }
    Ok(Exit::Done)
}
