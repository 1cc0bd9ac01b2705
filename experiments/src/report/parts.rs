//! What a report says of a part of a plan, or of joined parts: which they are, of which hosts, and what each host says
//! by itself where times of several are pooled.

use super::document::{Block, Table};
use super::{number, tables};
use crate::experiment::{Series, pairs};
use crate::harness::manifest::Manifest;
use crate::harness::part::{self, Joined};
use crate::harness::row::Row;
use crate::harness::task::Task;
use perseq_statistics::{Estimate, Paired};
use std::collections::{BTreeMap, BTreeSet};

/// What nobody must miss, before anything else is said.
pub fn notice<A>(manifest: &Manifest<A>) -> Option<String> {
    if let Some(part) = &manifest.part {
        return Some(format!(
            "A PART: {} of a plan of {}. What is said here is of this part alone; `perseq merge` joins all of them.",
            part.shard,
            number::count(part.samples, "sample")
        ));
    }
    manifest.across_hosts.then(|| {
        format!(
            "ACROSS HOSTS: values of {} hosts stand in this run, because `--across-hosts` joined them. All of a block ran on \
             one host, so each pair is of one; what is made of several pairs is of all hosts, and says nothing of a host that \
             is not among them. Under \"{HEADING}\" stands what each says by itself.",
            part::hosts(&manifest.parts).len()
        )
    })
}

const HEADING: &str = "Hosts and parts";

/// The name of what some rows of a cell are held against.
type Baseline<'a, T, R> = dyn Fn(&[&Row<T, R>]) -> String + 'a;

/// Rows that each host's ratios are made of.
pub struct Compared<'a, T, R> {
    /// All rows.
    pub rows: &'a [Row<T, R>],
    /// The value that is compared. None: the row has none, or is not of the comparison.
    pub value: &'a dyn Fn(&Row<T, R>) -> Option<f64>,
    /// What the rows of a cell are held against.
    pub baseline: &'a Baseline<'a, T, R>,
}

/// The parts that a run was joined from, and the ratios of each host. Nothing of a run that was not joined.
pub fn blocks<A, T: Task, R>(manifest: &Manifest<A>, compared: &Compared<T, R>) -> Vec<Block> {
    let tables = tables(manifest, compared);
    let heading = (!tables.is_empty()).then(|| Block::Heading(2, HEADING.into()));
    heading.into_iter().chain(tables.into_iter().map(Block::Table)).collect()
}

/// The same in lines of text, the notice first.
pub fn text<A, T: Task, R>(manifest: &Manifest<A>, compared: &Compared<T, R>) -> String {
    let mut text = notice(manifest).map_or_else(String::new, |notice| notice + "\n");
    for Table { caption, rows, .. } in tables(manifest, compared) {
        text += &format!("{caption}\n");
        rows.iter().for_each(|row| text += &format!("  {}\n", row.join("  ")));
    }
    text
}

fn tables<A, T: Task, R>(manifest: &Manifest<A>, compared: &Compared<T, R>) -> Vec<Table> {
    if manifest.parts.is_empty() {
        return Vec::new();
    }
    let mut tables = vec![parts(&manifest.parts)];
    tables.extend(manifest.across_hosts.then(|| ratios(&manifest.parts, compared)));
    tables
}

fn parts(parts: &[Joined]) -> Table {
    let mut rows = Vec::new();
    for (number, host) in (1..).zip(part::hosts(parts)) {
        for (index, part) in host.iter().enumerate() {
            rows.push(vec![
                if index == 0 { format!("host {number}: {}", part.host_caption) } else { format!("host {number}") },
                format!("part {}", part.number),
                number::count(part.rows, "row"),
                format!("`{}`", part.run_id),
                format!("{} to {}", part.started_utc, part.finished_utc.as_deref().unwrap_or("not finished")),
                format!("commit {}", part.git_commit),
                format!("`{}`", part.root),
            ]);
        }
    }
    Table {
        caption: "Joined from parts of one plan, all by the same binary. Each row bears the name of the run that is its part. \
                  The root of a part is the SHA-256 of its last row as it stood there; whoever reads this run makes the \
                  chains of its parts again, and compares their ends with these. A host is one boot of a kernel."
            .into(),
        header: vec!["host", "part", "rows", "run", "taken", "commit", "root"],
        text_columns: 7,
        rows,
    }
}

fn ratios<T: Task, R>(parts: &[Joined], compared: &Compared<T, R>) -> Table {
    let hosts = part::hosts(parts);
    let mut cells: BTreeMap<&str, Vec<&Row<T, R>>> = BTreeMap::new();
    for row in compared.rows.iter().filter(|row| !row.planned.twin) {
        cells.entry(&row.planned.cell_id).or_default().push(row);
    }
    let (mut lines, mut apart) = (Vec::new(), 0);
    for (cell, rows) in &cells {
        let baseline = (compared.baseline)(rows);
        let arms: BTreeSet<String> = rows.iter().map(|row| row.planned.task.arm()).collect();
        for arm in arms.iter().filter(|arm| **arm != baseline) {
            let of = |host: Option<&Vec<&Joined>>| -> Vec<(u64, f64, f64)> {
                let own = |row: &&&Row<T, R>| host.is_none_or(|host| host.iter().any(|part| part.run_id == row.run_id));
                let series = |arm: &str| -> Series {
                    let own = rows.iter().filter(own).filter(|row| row.planned.task.arm() == arm);
                    let value = |row: &&Row<T, R>| Some((row.planned.task.layout(), (compared.value)(row)?));
                    own.filter_map(|row| Some((row.planned.block, value(row)?))).collect()
                };
                pairs(&series(&baseline), &series(arm))
            };
            let all = of(None);
            if all.is_empty() {
                continue;
            }
            let each: Vec<_> = hosts.iter().map(|host| of(Some(host))).collect();
            let found: Vec<_> = each.iter().filter_map(|pairs| estimate(pairs)).collect();
            let differ = found.iter().any(|one| found.iter().any(|two| one.low > two.high));
            apart += usize::from(differ);
            let (mut cell, mut arm) = ((*cell).to_owned(), format!("{arm} to {baseline}"));
            let names = std::iter::once("all".to_owned()).chain((1..=hosts.len()).map(|host| format!("host {host}")));
            for (name, pairs) in names.zip(std::iter::once(&all).chain(&each)) {
                let ratio = estimate(pairs).map_or_else(|| "–".into(), tables::estimate);
                let n = pairs.len().to_string();
                lines.push(vec![std::mem::take(&mut cell), std::mem::take(&mut arm), name, n, ratio]);
            }
        }
    }
    let compared = lines.len() / (hosts.len() + 1);
    Table {
        caption: format!(
            "Ratios of all hosts together and of each: geometric means with 95 % intervals, paired by block. In {apart} of {} \
             the intervals of two hosts do not meet: there the ratio of all is that of no host.",
            number::count(compared, "comparison")
        ),
        header: vec!["cell", "compared", "of", "n", "ratio"],
        text_columns: 3,
        rows: lines,
    }
}

fn estimate(pairs: &[(u64, f64, f64)]) -> Option<Estimate> {
    Paired::in_layouts(pairs)?.t()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{self, Options, Question};
    use crate::harness::place::{self, Planned};
    use crate::known::Known;
    use crate::subject::{BASELINE, TWINNED};

    fn joined(number: u64) -> Joined {
        Joined {
            number,
            run_id: format!("run-part-{number}-of-2"),
            root: "f00".into(),
            rows: 8,
            host: Known::is(format!("boot {number}")),
            host_caption: "the same processor".into(),
            host_facts: None,
            git_commit: Known::is("c0".into()),
            binary_sha256: "b0".into(),
            started_utc: "then".into(),
            finished_utc: Some("later".into()),
        }
    }

    /// Where one host finds twice as much and the other half, no interval of theirs meets, and that is said.
    #[test]
    fn what_each_host_says_stands_beside_what_all_say() {
        let mut manifest =
            experiment::manifest("run".into(), "quick", 1, Options::default(), Vec::new()).expect("a manifest");
        manifest.parts = vec![joined(1), joined(2)];
        let mut rows = Vec::new();
        for block in 0..8 {
            let host = block % 2;
            for subject in [BASELINE, TWINNED] {
                let planned = experiment::single("E", "fast_path", subject, Default::default());
                let sample_id = place::name("E/cell", block, subject.name(), false);
                let task = Question { layout: block, ..planned.task };
                let planned = Planned { sample_id, cell_id: "E/cell".into(), block, task, ..planned };
                let ratio = if subject == BASELINE { 1.0 } else { [2.0, 0.5][host as usize] };
                let noise = 1.0 + block as f64 / 1000.0;
                let row = experiment::row(&planned, "pairs_per_s", ratio * noise);
                rows.push(Row { run_id: format!("run-part-{}-of-2", host + 1), ..row });
            }
        }
        let compared = Compared {
            rows: &rows,
            value: &|row| experiment::value(row, "pairs_per_s"),
            baseline: &|rows| experiment::baseline(rows).to_string(),
        };
        assert!(notice(&manifest).is_none(), "rows that are the same anywhere need no warning");
        assert_eq!(blocks(&manifest, &compared).len(), 2, "the parts are named all the same");
        manifest.across_hosts = true;
        let told = text(&manifest, &compared);
        assert!(told.starts_with("ACROSS HOSTS: values of 2 hosts"), "{told}");
        assert!(told.contains("In 1 of 1 comparison "), "{told}");
        for line in ["all  8  1.000 [", "host 1  4  2.000 [", "host 2  4  0.500 ["] {
            assert!(told.contains(line), "{line}: {told}");
        }
        // Of a host whose blocks say the same, the intervals meet.
        let same: Vec<_> = rows.iter().map(|row| Row { run_id: "run-part-1-of-2".into(), ..row.clone() }).collect();
        let told = text(&manifest, &Compared { rows: &same, ..compared });
        assert!(told.contains("In 0 of 1 comparison ") && told.contains("host 2  0  –"), "{told}");
    }

    #[test]
    fn a_part_says_that_it_is_one_and_a_whole_run_says_nothing() {
        let mut manifest =
            experiment::manifest("run".into(), "quick", 1, Options::default(), Vec::new()).expect("a manifest");
        let none: Compared<Question, crate::worker::Report> =
            Compared { rows: &[], value: &|_| None, baseline: &|_| String::new() };
        assert_eq!(text(&manifest, &none), "");
        manifest.part = Some(part::Part {
            shard: "2/3".parse().expect("a part"),
            samples: 1,
            plan: "f00".into(),
            host: Known::missing("a test"),
        });
        assert!(text(&manifest, &none).starts_with("A PART: 2/3 of a plan of 1 sample."));
        assert!(blocks(&manifest, &none).is_empty());
    }
}
