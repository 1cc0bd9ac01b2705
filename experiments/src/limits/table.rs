//! The table, in Markdown.

use super::case::{Better, Case};
use super::heap::Heap;
use super::number::Number;
use crate::harness::manifest;
use crate::host::kernel::Kernel;

/// The table as far as it is made.
pub struct Table<'a> {
    heaps: &'a [Heap],
    head: String,
    rows: String,
    reasons: String,
    /// A number of perseq's is worse than the worst of the others'.
    pub worse: bool,
}

impl<'a> Table<'a> {
    /// A table without rows.
    pub fn new(heaps: &'a [Heap]) -> Table<'a> {
        let kernel = Kernel::read();
        let mut head = format!(
            "# Limits: perseq beside other allocators\n\n\
             Made by `perseq limits`, {}, on Linux {} with vm.overcommit_memory {}. Each number comes from a fresh process \
             on the allocator of its column, preloaded. `!` marks a number of perseq's that is worse than the worst of the \
             others'.\n\n",
            manifest::now(),
            kernel.release,
            kernel.overcommit,
        );
        let names =
            heaps.iter().map(|heap| if heap.is_perseq { format!("perseq {}", heap.name) } else { heap.name.clone() });
        head += &line(["what".to_owned(), "unit".to_owned()].into_iter().chain(names));
        head += &line((0..heaps.len() + 2).map(|column| if column < 2 { "---" } else { "---:" }.to_owned()));
        Table { heaps, head, rows: String::new(), reasons: String::new(), worse: false }
    }

    /// What stands above the rows.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Adds a row, a number for each column, and returns its text.
    pub fn row(&mut self, case: &Case, numbers: &[Number]) -> String {
        let pairs = || self.heaps.iter().zip(numbers);
        let others = pairs().filter(|(heap, _)| !heap.is_perseq).filter_map(|(_, number)| number.as_ref().ok());
        let others: Vec<f64> = others.map(|measured| measured.bound()).collect();
        let mut cells = vec![format!("`{}`: {}", case.name, case.what), direction(case)];
        for (heap, number) in pairs() {
            let is_worse = heap.is_perseq
                && match number {
                    Ok(measured) => is_worse_than_all(case.better, measured.bound(), &others),
                    Err(_) => !others.is_empty(),
                };
            self.worse |= is_worse;
            let cell = number.as_ref().map_or("none".to_owned(), |measured| measured.text());
            cells.push(cell + if is_worse { " !" } else { "" });
        }
        self.reasons += &self.notes(case, numbers);
        let text = line(cells);
        self.rows += &text;
        text
    }

    /// Why a row lacks numbers: a line for each column, or one for all where the reason is the same.
    fn notes(&self, case: &Case, numbers: &[Number]) -> String {
        let note = |number: &Number| match number {
            Ok(measured) if measured.at_least => Some(format!("measuring ended at {} {}", measured.number, case.unit)),
            Ok(_) => None,
            Err(reason) => Some(reason.clone()),
        };
        let notes: Vec<_> = numbers.iter().map(note).collect();
        match notes.as_slice() {
            [Some(first), _, ..] if notes.iter().all(|note| note.as_ref() == Some(first)) => {
                format!("* {}, all: {first}\n", case.name)
            }
            _ => {
                let named = self.heaps.iter().zip(&notes).filter_map(|(heap, note)| Some((heap, note.as_ref()?)));
                named.map(|(heap, note)| format!("* {}, {}: {note}\n", case.name, heap.name)).collect()
            }
        }
    }

    /// What stands below the rows. `missing` are those that were not measured yet.
    pub fn foot(&self, missing: &[&Case]) -> String {
        let mut text = String::new();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|case| format!("`{}`", case.name)).collect();
            text += &format!("\nNot finished. Not measured: {}.\n", names.join(", "));
        }
        if !self.reasons.is_empty() {
            text += &format!("\nWhere there is no number, or only a bound:\n\n{}", self.reasons);
        }
        text += "\nThe allocators:\n\n";
        for heap in self.heaps {
            text += &format!("* {}: {}\n", heap.name, heap.version);
        }
        text
    }

    /// All of it.
    pub fn whole(&self, missing: &[&Case]) -> String {
        format!("{}{}{}", self.head, self.rows, self.foot(missing))
    }
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |\n", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

fn direction(case: &Case) -> String {
    let word = match case.better {
        Better::Less => "less is better",
        Better::More | Better::MoreUpTo(_) => "more is better",
    };
    format!("{}, {word}", case.unit)
}

/// No other is worse. Within 2 % and one unit is as good: the kernel places libraries by chance.
fn is_worse_than_all(better: Better, number: f64, others: &[f64]) -> bool {
    let badness = |number: f64| match better {
        Better::Less => number,
        Better::More => -number,
        Better::MoreUpTo(most) if number > most => f64::INFINITY,
        Better::MoreUpTo(_) => -number,
    };
    // What is not known to end is worse than all that is.
    let slack = if number.is_finite() { number.abs() * 0.02 + 1.0 } else { 0.0 };
    !others.is_empty() && others.iter().all(|other| badness(number) > badness(*other) + slack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::number::Measured;

    #[test]
    fn worse_is_worse_than_the_worst() {
        assert!(is_worse_than_all(Better::Less, 65_000.0, &[2.0, 1000.0]));
        assert!(!is_worse_than_all(Better::Less, 900.0, &[2.0, 1000.0]));
        assert!(is_worse_than_all(Better::More, 129.0, &[400.0, 400.0]));
        assert!(is_worse_than_all(Better::MoreUpTo(2048.0), 4096.0, &[1900.0]));
        assert!(!is_worse_than_all(Better::MoreUpTo(2048.0), 1899.5, &[1900.0]));
        assert!(!is_worse_than_all(Better::Less, 1.0, &[]));
        // Bounds: who reached the end of the measurement is worse than who did not, whatever the others' numbers.
        assert!(is_worse_than_all(Better::Less, f64::INFINITY, &[2047.0]));
        assert!(!is_worse_than_all(Better::Less, f64::INFINITY, &[2047.0, f64::INFINITY]));
        assert!(!is_worse_than_all(Better::Less, 2047.0, &[f64::INFINITY]));
    }

    #[test]
    fn a_reason_that_all_have_is_said_once() {
        let heaps = ["percpu", "system"].map(|name| Heap::bare(name, name == "percpu"));
        let case = crate::limits::case::find("core").unwrap();
        let none = |reason: &str| Err(reason.to_owned());
        let mut table = Table::new(&heaps);
        table.row(case, &[none("refused"), none("refused")]);
        assert!(table.foot(&[]).contains("\n\n* core, all: refused\n\n"), "{}", table.foot(&[]));
        let mut table = Table::new(&heaps);
        table.row(case, &[none("refused"), none("hung")]);
        assert!(table.foot(&[]).contains("* core, percpu: refused\n* core, system: hung\n"), "{}", table.foot(&[]));
        let mut table = Table::new(&heaps);
        let cut = Measured { number: 2048.0, at_least: true };
        let row = table.row(case, &[Ok(Measured::exactly(9.5)), Ok(cut)]);
        assert!(row.ends_with("| 9.5 | at least 2048 |\n"), "{row}");
        assert!(table.foot(&[]).contains("\n* core, system: measuring ended at 2048 MiB\n"), "{}", table.foot(&[]));
        let row = table.row(case, &[Ok(cut), Ok(Measured::exactly(9.5))]);
        assert!(row.ends_with("| at least 2048 ! | 9.5 |\n") && table.worse, "{row}");
    }
}
