//! The table, in Markdown.

use super::case::{Better, Case};
use super::heap::Heap;
use crate::harness::manifest;
use crate::host::kernel::Kernel;

/// A row with a number, or the reason why there is none, for each column.
pub type Row = (&'static Case, Vec<Result<f64, String>>);

/// The table, and whether a number of perseq's is worse than the worst of the others'.
pub fn markdown(heaps: &[Heap], rows: &[Row]) -> (String, bool) {
    let kernel = Kernel::read();
    let mut text = format!(
        "# Limits: perseq beside other allocators\n\n\
         Made by `perseq limits`, {}, on Linux {} with vm.overcommit_memory {}. Each number comes from a fresh process \
         on the allocator of its column, preloaded. `!` marks a number of perseq's that is worse than the worst of the others'.\n\n",
        manifest::now(),
        kernel.release,
        kernel.overcommit,
    );
    let cells = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<_> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let names =
        heaps.iter().map(|heap| if heap.is_perseq { format!("perseq {}", heap.name) } else { heap.name.clone() });
    text += &cells(&mut ["what".to_owned(), "unit".to_owned()].into_iter().chain(names));
    text += &cells(&mut (0..heaps.len() + 2).map(|column| if column < 2 { "---" } else { "---:" }.to_owned()));
    let (mut worse, mut reasons) = (false, String::new());
    for (case, numbers) in rows {
        let others: Vec<f64> = pairs(heaps, numbers, false);
        let column = heaps.iter().zip(numbers).map(|(heap, number)| match number {
            Ok(number) => {
                let is_worse = heap.is_perseq && is_worse_than_all(case.better, *number, &others);
                worse |= is_worse;
                format!("{}{}", plain(*number), if is_worse { " !" } else { "" })
            }
            Err(reason) => {
                let is_worse = heap.is_perseq && !others.is_empty();
                worse |= is_worse;
                reasons += &format!("* {}, {}: {reason}\n", case.name, heap.name);
                if is_worse { "none !".into() } else { "none".into() }
            }
        });
        let (what, unit) = (format!("`{}`: {}", case.name, case.what), direction(case));
        text += &cells(&mut [what, unit].into_iter().chain(column.collect::<Vec<_>>()));
    }
    if !reasons.is_empty() {
        text += &format!("\nWhere there is no number:\n\n{reasons}");
    }
    text += "\nThe allocators:\n\n";
    for heap in heaps {
        text += &format!("* {}: {}\n", heap.name, heap.version);
    }
    (text, worse)
}

fn pairs(heaps: &[Heap], numbers: &[Result<f64, String>], of_perseq: bool) -> Vec<f64> {
    let chosen = heaps.iter().zip(numbers).filter(|(heap, _)| heap.is_perseq == of_perseq);
    chosen.filter_map(|(_, number)| number.as_ref().ok().copied()).collect()
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

fn plain(number: f64) -> String {
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
