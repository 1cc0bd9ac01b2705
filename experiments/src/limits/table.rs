//! The table, in Markdown.

use super::case::{Better, Case};
use super::heap::Heap;
use crate::harness::manifest;
use crate::host::kernel::Kernel;

/// A number, or the reason why there is none.
pub type Number = Result<f64, String>;

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
        let others: Vec<f64> =
            pairs().filter(|(heap, _)| !heap.is_perseq).filter_map(|(_, number)| number.clone().ok()).collect();
        let mut cells = vec![format!("`{}`: {}", case.name, case.what), direction(case)];
        for (heap, number) in pairs() {
            let is_worse = heap.is_perseq
                && match number {
                    Ok(number) => is_worse_than_all(case.better, *number, &others),
                    Err(_) => !others.is_empty(),
                };
            self.worse |= is_worse;
            if let Err(reason) = number {
                self.reasons += &format!("* {}, {}: {reason}\n", case.name, heap.name);
            }
            let cell = number.as_ref().map_or("none".to_owned(), |number| plain(*number));
            cells.push(cell + if is_worse { " !" } else { "" });
        }
        let text = line(cells);
        self.rows += &text;
        text
    }

    /// What stands below the rows. `missing` are those that were not measured yet.
    pub fn foot(&self, missing: &[&Case]) -> String {
        let mut text = String::new();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|case| format!("`{}`", case.name)).collect();
            text += &format!("\nNot finished. Not measured: {}.\n", names.join(", "));
        }
        if !self.reasons.is_empty() {
            text += &format!("\nWhere there is no number:\n\n{}", self.reasons);
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
    let slack = number.abs() * 0.02 + 1.0;
    !others.is_empty() && others.iter().all(|other| badness(number) > badness(*other) + slack)
}

/// As many digits as say something.
pub fn plain(number: f64) -> String {
    if number.fract() == 0.0 || number >= 100.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_is_worse_than_the_worst() {
        assert!(is_worse_than_all(Better::Less, 65_000.0, &[2.0, 1000.0]));
        assert!(!is_worse_than_all(Better::Less, 900.0, &[2.0, 1000.0]));
        assert!(is_worse_than_all(Better::More, 129.0, &[400.0, 400.0]));
        assert!(is_worse_than_all(Better::MoreUpTo(2048.0), 4096.0, &[1900.0]));
        assert!(!is_worse_than_all(Better::MoreUpTo(2048.0), 1899.5, &[1900.0]));
        assert!(!is_worse_than_all(Better::Less, 1.0, &[]));
    }
}
