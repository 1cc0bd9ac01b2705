//! A view as text: the totals, a table of caches, and one of the size classes that were ever used, as the process
//! itself would write them at its end.

use super::numbers::Number;
use super::view::View;
use std::fmt::Write;

/// All of it.
pub fn text(view: &View) -> String {
    let (about, snapshot) = (&view.about, &view.snapshot);
    let mut text = format!("perseq {}, process {} ({}), in {}\n", about.perseq, view.process, view.program, view.file);
    let exact = if view.exact { "yes" } else { "no: it ran meanwhile" };
    let slices = if about.slices == "off" { String::new() } else { format!(", slices {}", about.slices) };
    for (name, value) in [
        ("mode", format!("{} ({}){slices}", about.active, about.reason)),
        ("config", about.config.clone()),
        ("exact", exact.to_owned()),
    ] {
        text += &format!("{name:27} {value}\n");
    }
    for (name, value) in &snapshot.total {
        text += &format!("{name:27} {value:>16}\n");
    }
    if !about.counts_hits {
        text += "hits are counted by builds with the feature count-hits only\n";
    }
    table(&mut text, "cache", snapshot.caches.iter().map(|(owner, numbers)| (owner.clone(), &numbers[..])));
    // The size is what a class is called.
    let classes = snapshot.classes.iter().filter_map(|class| Some((class.first()?.1.to_string(), &class[..])));
    table(&mut text, "class", classes);
    text
}

fn table<'a>(text: &mut String, first: &str, rows: impl Iterator<Item = (String, &'a [Number])>) {
    let width = |name: &str| name.len().max(10);
    let mut is_head = true;
    for (label, numbers) in rows {
        if std::mem::take(&mut is_head) {
            _ = write!(text, "\n{first:16}");
            numbers.iter().for_each(|(name, _)| _ = write!(text, " {name:>width$}", width = width(name)));
        }
        _ = write!(text, "\n{label:16}");
        numbers.iter().for_each(|(name, value)| _ = write!(text, " {value:>width$}", width = width(name)));
    }
    if !is_head {
        text.push('\n');
    }
}
