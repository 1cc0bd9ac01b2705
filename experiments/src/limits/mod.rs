//! `perseq limits`: what an allocator leaves of the limits on a process, perseq beside others.
//!
//! Each number comes from a fresh process that runs on one allocator, preloaded, and does what real programs do: locks
//! its memory, limits its own address space, is dumped, grows blocks, asks for large alignments. No number is a time, so
//! a busy host does as well as a quiet one.
//!
//! `case.rs` holds the rows of the table, `probe.rs` the process that measures one, `core.rs` the row that needs a
//! debugger, `heap.rs` the columns, `number.rs` a number, `rlimit.rs` the limits, `table.rs` the table, `kept.rs` what a
//! run that was cut had measured.

mod case;
mod core;
mod heap;
mod kept;
mod number;
pub mod probe;
mod rlimit;
mod table;

use crate::failure::{Exit, Failure};
use crate::{output, written};
use case::{CASES, Case};
use heap::Heap;
use kept::Kept;
use number::Number;
use std::path::PathBuf;
use table::Table;

/// Options of `perseq limits`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq peers --only mimalloc2,mimalloc3,jemalloc,tcmalloc    the others, once
  perseq limits                                                the table, in Markdown
  perseq limits --rows target/limits.jsonl --out docs/limits.md --check
  perseq limits --cases idle,core --heaps system,percpu")]
pub struct Arguments {
    /// Only these rows.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    cases: Option<Vec<String>>,
    /// Only these columns: `system`, a mode of perseq, or a peer that was built. Default: the C library, the modes percpu
    /// and perthread, and every peer.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    heaps: Option<Vec<String>>,
    /// libperseq. Default: `libperseq.so` beside this program.
    #[arg(long, value_name = "PATH")]
    libperseq: Option<PathBuf>,
    /// Folder of `perseq peers`.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Also write the table to this file, as far as it is made after each row.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Keep each number in this file as soon as it is measured, and measure only what it lacks: repeat the command, and a
    /// run that was cut goes on. A number counts for the same library on the same kernel.
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Fail if a number of perseq's is worse than the worst of the others'.
    #[arg(long)]
    check: bool,
    /// Print the rows and stop.
    #[arg(long)]
    list: bool,
}

/// `perseq limits`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let cases = cases(arguments.cases.as_deref())?;
    if arguments.list {
        let text: String =
            cases.iter().map(|case| format!("{:14} {} ({})\n", case.name, case.what, case.unit)).collect();
        return output::print(&text).map(|()| Exit::Done);
    }
    let choice = heap::Choice {
        heaps: arguments.heaps.as_deref(),
        libperseq: arguments.libperseq.as_deref(),
        peers: arguments.peers.as_deref(),
    };
    let heaps = heap::all(&choice)?;
    let mut kept = Kept::open(arguments.rows.as_deref())?;
    let mut table = Table::new(&heaps);
    output::print(table.head())?;
    for (index, case) in cases.iter().enumerate() {
        let numbers = heaps.iter().map(|heap| number(case, heap, &mut kept)).collect::<Result<Vec<_>, Failure>>()?;
        output::print(&table.row(case, &numbers))?;
        if let Some(path) = &arguments.out {
            written::whole(path, table.whole(&cases[index + 1..]).as_bytes())?;
        }
    }
    output::print(&table.foot(&[]))?;
    Ok(if table.worse && arguments.check { Exit::Invalid } else { Exit::Done })
}

/// One number, measured now unless it was kept. Where there was none, it is tried again.
fn number(case: &Case, heap: &Heap, kept: &mut Kept) -> Result<Number, Failure> {
    let (number, from) = match kept.find(case, heap) {
        Some(number) => (Ok(number), " (kept)"),
        None => (if case.name == core::CASE { core::measure(heap) } else { probe::ask(case, heap) }, ""),
    };
    match &number {
        Ok(value) => eprintln!("{}, {}: {} {}{from}", case.name, heap.name, value.text(), case.unit),
        Err(reason) => eprintln!("{}, {}: none: {reason}", case.name, heap.name),
    }
    match &number {
        Ok(value) if from.is_empty() => kept.add(case, heap, *value)?,
        _ => {}
    }
    Ok(number)
}

fn cases(wanted: Option<&[String]>) -> Result<Vec<&'static Case>, Failure> {
    let Some(wanted) = wanted else { return Ok(CASES.iter().collect()) };
    let find = |name: &String| {
        case::find(name).ok_or_else(|| {
            let known: Vec<_> = CASES.iter().map(|case| case.name).collect();
            Failure::usage(format!("--cases {name}: expected some of {}", known.join(", ")))
        })
    };
    wanted.iter().map(find).collect()
}
