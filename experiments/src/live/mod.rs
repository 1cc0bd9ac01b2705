//! `perseq stats PID`, `perseq top PID` and `perseq map PID`: the numbers and the spans of an allocator in another process,
//! which does nothing for it.
//!
//! `process.rs` reads another process's memory, `find.rs` finds the allocators there, `look.rs` reads what their tiers
//! hold, and `numbers.rs` makes of it what the process itself would say. `view.rs` is that with its circumstances;
//! `text.rs`, `json.rs`, `prometheus.rs` and `top.rs` are the ways to tell it. `ranges.rs` is where its metadata lies.

pub mod find;
mod json;
mod look;
pub mod map;
mod numbers;
pub mod process;
mod prometheus;
pub mod ranges;
pub mod record;
mod spans;
mod text;
mod top;
mod view;

use crate::failure::{Exit, Failure};
use crate::output;
use process::Process;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use view::View;

/// Options of `perseq stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq stats 4711
  perseq stats $(pidof redis-server) --json | jq .total.held_bytes
  perseq stats 4711 --prometheus > perseq.prom.new && mv perseq.prom.new /var/lib/node_exporter/perseq.prom

The process does nothing for it. Its memory is read, which its own user may do, and root; where
/proc/sys/kernel/yama/ptrace_scope is 1 or more, root alone. What was read while it ran is of
moments close to one another, and `exact` is `no`. A process may hold several allocators, in
libraries of its own: each is told.")]
pub struct Stats {
    /// The process, which runs on libperseq or has perseq for its allocator.
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// Print JSON: an object on a line, as `PERSEQ_STATS=json` does at the end of a process.
    #[arg(long)]
    json: bool,
    /// Print metrics in the text format of Prometheus.
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
}

/// Options of `perseq top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq top 4711
  perseq top 4711 --interval 0.2 --rows 40
  perseq top 4711 --json --interval 60 >> history.jsonl       until the process ends

As `perseq stats`, again and again, with what happened in between for each second. It ends with
the process, with exit code 3. Columns: objects in the program's hands, their bytes, objects in
caches, in transfer caches and free in spans; spans; the share of their bytes that is live;
operations that came to a slow path, and objects that went between tiers.")]
pub struct Top {
    /// The process, which runs on libperseq or has perseq for its allocator.
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Stop after so many looks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Rows of each table.
    #[arg(long, value_name = "N", default_value_t = 12)]
    rows: usize,
    /// Print JSON: an object on a line for each look, with numbers since the process began.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected 0.01 to 86400 seconds".into())
}

/// `perseq stats`.
pub fn stats(arguments: &Stats) -> Result<Exit, Failure> {
    let process = Process::new(arguments.pid)?;
    let views = View::all(&process, &find::allocators(&process)?)?;
    let text = if arguments.prometheus {
        prometheus::text(&views)
    } else if arguments.json {
        views.iter().map(json::line).collect()
    } else {
        views.iter().map(text::text).collect::<Vec<_>>().join("\n")
    };
    output::print(&text).map(|()| Exit::Done)
}

/// `perseq top`.
pub fn top(arguments: &Top) -> Result<Exit, Failure> {
    let process = Process::new(arguments.pid)?;
    let allocators = find::allocators(&process)?;
    let is_screen = std::io::stdout().is_terminal() && !arguments.json;
    let mut before: Vec<View> = Vec::new();
    let mut next = Instant::now();
    for look in 0_u64.. {
        let views = View::all(&process, &allocators)?;
        let text: String = if arguments.json {
            views.iter().map(json::line).collect()
        } else {
            let same = |view: &View| before.iter().find(|before| before.file == view.file);
            let screens = views.iter().map(|view| top::screen(view, same(view), arguments.rows) + "\n");
            screens.collect()
        };
        let text = if is_screen { redrawn(&text, look == 0, console::Term::stdout().size_checked()) } else { text };
        if !output::print_if_read(&text)? {
            break;
        }
        if arguments.count.is_some_and(|count| look + 1 >= count) {
            break;
        }
        before = views;
        next = (next + arguments.interval).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(Exit::Done)
}

/// A text in the place of what stands on the terminal, without a moment in which nothing does. What has no room in so many
/// lines and columns is cut off: it would push the rest from its place.
fn redrawn(text: &str, first: bool, size: Option<(u16, u16)>) -> String {
    // The last line is the cursor's.
    let (lines, columns) = size.unwrap_or((u16::MAX, u16::MAX));
    let (lines, columns) = (usize::from(lines.max(2) - 1), usize::from(columns));
    let mut screen = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    for line in text.lines().take(lines) {
        screen.extend(line.chars().take(columns));
        // At the end of a full line this would take the last letter away.
        screen += if line.chars().count() < columns { "\x1b[K\n" } else { "\n" };
    }
    screen + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "1e9", "nan", "soon", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_screen_is_redrawn_in_place() {
        assert_eq!(redrawn("a\nb\n", false, None), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(redrawn("a\n", true, None), "\x1b[2J\x1b[Ha\x1b[K\n\x1b[J");
        assert_eq!(redrawn("abcd\nabc\nab\na\n", false, Some((4, 3))), "\x1b[Habc\nabc\nab\x1b[K\n\x1b[J");
    }
}
