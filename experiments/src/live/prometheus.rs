//! Views in the text format of Prometheus, version 0.0.4: for the textfile collector of its node exporter, or whatever
//! else reads that.
//!
//! What never falls ([`COUNTERS`]) is a counter and its name ends with `_total`; all else is a gauge. A family's samples stand
//! together.

use super::view::View;
use perseq::{COUNTERS, CacheStats, ClassStats, Stats};
use std::fmt::Write;

/// A metric: its samples, each with its labels.
struct Family {
    name: String,
    help: String,
    kind: &'static str,
    samples: Vec<(String, u64)>,
}

/// All of it.
pub fn text(views: &[View]) -> String {
    let mut families = Vec::new();
    for view in views {
        let own = labels(&[("process", &view.process.to_string()), ("program", &view.program), ("file", &view.file)]);
        let about = &view.about;
        let info = labels(&[
            ("version", &about.perseq),
            ("config", &about.config),
            ("mode", &about.active),
            ("requested_mode", &about.requested),
            ("mode_reason", &about.reason),
            ("slices", &about.slices),
        ]);
        let help = "What the allocator is, and in which mode it runs.";
        add(&mut families, "perseq_info", help, "gauge", format!("{own},{info}"), 1);
        let help = "1 if nothing was seen to change while it was read, as in a process at rest.";
        add(&mut families, "perseq_exact", help, "gauge", own.clone(), view.exact.into());
        for (name, value) in &view.snapshot.total {
            number(&mut families, "perseq", name, meaning(Stats::NAMES, Stats::MEANINGS, name), own.clone(), *value);
        }
        for (owner, numbers) in &view.snapshot.caches {
            let labels = format!("{own},{}", labels(&[("owner", owner)]));
            for (name, value) in numbers {
                let help = meaning(CacheStats::NAMES, CacheStats::MEANINGS, name);
                number(&mut families, "perseq_cache", name, help, labels.clone(), *value);
            }
        }
        for class in &view.snapshot.classes {
            // The size is what a class is called.
            let Some((("size", size), numbers)) = class.split_first() else { continue };
            let labels = format!("{own},{}", labels(&[("size", &size.to_string())]));
            for (name, value) in numbers {
                let help = meaning(ClassStats::NAMES, ClassStats::MEANINGS, name);
                number(&mut families, "perseq_class", name, help, labels.clone(), *value);
            }
        }
    }
    let mut text = String::new();
    for Family { name, help, kind, samples } in families {
        _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        samples.iter().for_each(|(labels, value)| _ = writeln!(text, "{name}{{{labels}}} {value}"));
    }
    text
}

fn number(families: &mut Vec<Family>, prefix: &str, name: &str, help: &str, labels: String, value: u64) {
    if COUNTERS.contains(&name) {
        add(families, &format!("{prefix}_{name}_total"), help, "counter", labels, value);
    } else {
        add(families, &format!("{prefix}_{name}"), help, "gauge", labels, value);
    }
}

fn add(families: &mut Vec<Family>, name: &str, help: &str, kind: &'static str, labels: String, value: u64) {
    match families.iter_mut().find(|family| family.name == name) {
        Some(family) => family.samples.push((labels, value)),
        None => {
            families.push(Family { name: name.to_owned(), help: plain(help), kind, samples: vec![(labels, value)] })
        }
    }
}

/// What a number is, in the allocator's own words.
fn meaning(names: &[&str], meanings: &[&'static str], name: &str) -> &'static str {
    names.iter().position(|own| *own == name).map_or("", |index| meanings[index])
}

/// Without the marks of documentation, and escaped.
fn plain(text: &str) -> String {
    let text = text.split(" See [").next().unwrap_or(text);
    text.replace(['`', '[', ']'], "").replace('\\', "\\\\").replace('\n', " ")
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_help_are_escaped() {
        assert_eq!(labels(&[("a", "x\"y\\z\n"), ("b", "")]), r#"a="x\"y\\z\n",b="""#);
        assert_eq!(plain("Objects (`A`). See [`B`]."), "Objects (A).");
    }

    #[test]
    fn counters_are_numbers_that_there_are() {
        for name in COUNTERS {
            let known = [Stats::NAMES, CacheStats::NAMES, ClassStats::NAMES];
            assert!(known.iter().any(|names| names.contains(name)), "{name}");
        }
        let mut families = Vec::new();
        number(&mut families, "perseq", "restarts", "R", String::new(), 1);
        number(&mut families, "perseq", "caches", "C", String::new(), 2);
        number(&mut families, "perseq", "restarts", "R", String::new(), 3);
        let told: Vec<_> = families.iter().map(|family| (family.name.as_str(), family.kind)).collect();
        assert_eq!(told, [("perseq_restarts_total", "counter"), ("perseq_caches", "gauge")]);
        assert_eq!(families[0].samples.len(), 2);
    }
}
