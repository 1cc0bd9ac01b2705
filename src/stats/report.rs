//! Statistics as text and as JSON. Nothing here allocates.

use core::fmt::{self, Write};

use rseq::syscall;

use crate::config::BUILD_CONFIG;
use crate::stats::collect::{for_each_cache, for_each_class};
use crate::stats::numbers::{COUNTS_HITS, CacheStats, ClassStats, Stats};

/// The names and values that this build counts.
fn counted<const N: usize>(
    names: &'static [&'static str],
    values: [u64; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    names.iter().copied().zip(values).filter(|(name, _)| COUNTS_HITS || !name.ends_with("_hits"))
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:20} {}", "mode", self.mode)?;
        writeln!(f, "{:20} {BUILD_CONFIG}", "config")?;
        for (name, value) in counted(Self::NAMES, self.values()) {
            writeln!(f, "{name:20} {value:>16}")?;
        }
        if !COUNTS_HITS {
            writeln!(f, "hits are counted by builds with the feature count-hits only")?;
        }
        Ok(())
    }
}

impl Stats {
    /// Writes the totals as one JSON object, without a line's end.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl Write) -> fmt::Result {
        let mode = &self.mode;
        write!(out, "{{\"config\":\"{BUILD_CONFIG}\",\"requested_mode\":\"{}\"", mode.requested)?;
        write!(out, ",\"mode\":\"{}\"", mode.active)?;
        write!(out, ",\"mode_reason\":\"{}\"", mode.reason)?; // constant texts and numbers: nothing to escape
        write!(out, ",\"slices\":\"{}\"", mode.slices)?;
        write_fields(out, ",", counted(Self::NAMES, self.values()))?;
        out.write_char('}')
    }
}

fn write_fields(
    out: &mut impl Write,
    mut before: &str,
    fields: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    for (name, value) in fields {
        write!(out, "{before}\"{name}\":{value}")?;
        before = ",";
    }
    Ok(())
}

/// Writes everything as one JSON object on a line: the process, the totals, each cache, and each size class that
/// was ever used.
pub fn json(total: &Stats, out: &mut impl Write) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION");
    write!(out, "{{\"perseq\":\"{version}\",\"process\":{},\"total\":", process())?;
    total.write_json(out)?;
    let (mut result, mut before) = (out.write_str(",\"caches\":["), "");
    for_each_cache(&mut |cache| {
        result = result.and_then(|()| {
            write!(out, "{before}{{\"owner\":\"{}\"", cache.owner)?;
            write_fields(out, ",", counted(CacheStats::NAMES, cache.values()))?;
            out.write_char('}')
        });
        before = ",";
    });
    result?;
    (result, before) = (out.write_str("],\"classes\":["), "");
    for_each_class(&mut |class| {
        if was_used(class) {
            result = result.and_then(|()| {
                out.write_str(before)?;
                write_fields(out, "{", counted(ClassStats::NAMES, class.values()))?;
                out.write_char('}')
            });
            before = ",";
        }
    });
    result?;
    out.write_str("]}\n")
}

/// The process's number.
fn process() -> usize {
    // SAFETY: getpid takes nothing; it does not fail.
    unsafe { syscall::call(libc::SYS_getpid, []) }.unwrap_or(0)
}

/// Writes everything as text: the totals, a table of caches, and one of the size classes that were ever used.
pub fn text(total: &Stats, out: &mut impl Write) -> fmt::Result {
    writeln!(out, "perseq {}, process {}", env!("CARGO_PKG_VERSION"), process())?;
    write!(out, "{total}")?;
    let mut result = table_head(out, "cache", CacheStats::NAMES);
    for_each_cache(&mut |cache| {
        result = result
            .and_then(|()| write!(out, "{:16}", cache.owner))
            .and_then(|()| table_row(out, CacheStats::NAMES, cache.values()));
    });
    result?;
    result = table_head(out, "class", ClassStats::NAMES);
    for_each_class(&mut |class| {
        if was_used(class) {
            result = result
                .and_then(|()| write!(out, "{:16}", class.size))
                .and_then(|()| table_row(out, ClassStats::NAMES, class.values()));
        }
    });
    result
}

fn table_head<W: Write>(out: &mut W, first: &str, names: &'static [&'static str]) -> fmt::Result {
    write!(out, "\n{first:16}")?;
    for (name, _) in counted(names, [0; 32]) {
        write!(out, " {name:>width$}", width = name.len().max(10))?;
    }
    out.write_char('\n')
}

fn table_row<W: Write, const N: usize>(out: &mut W, names: &'static [&'static str], values: [u64; N]) -> fmt::Result {
    for (name, value) in counted(names, values) {
        write!(out, " {value:>width$}", width = name.len().max(10))?;
    }
    out.write_char('\n')
}

fn was_used(class: &ClassStats) -> bool {
    class.spans + class.uncached_allocs + class.refilled_objects > 0
}
