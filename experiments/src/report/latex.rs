//! The report's numbers for a paper: a table for each experiment, a macro for each headline ratio, and the method as a
//! paragraph. Nothing is typed by hand. Needs the package `booktabs` and nothing else.

use super::analysis::{Analysis, Experiment, Ratio};
use super::{number, text};
use crate::subject::{BASELINE, Subject};

/// Name and contents of every file.
pub fn files(analysis: &Analysis) -> Vec<(String, String)> {
    let mut files: Vec<_> = analysis
        .experiments
        .iter()
        .map(|experiment| (format!("{}.tex", experiment.definition.id.to_lowercase()), table(experiment)))
        .collect();
    files.push(("macros.tex".into(), macros(analysis)));
    files.push(("method.tex".into(), method(analysis)));
    files
}

fn table(experiment: &Experiment) -> String {
    let headline = &experiment.definition.headline;
    let mut text = format!(
        "% {} {}: {headline}, ratio to {BASELINE}\n\\begin{{tabular}}{{llrrrl}}\n\\toprule\ncell & mode & $n$ & ratio & \
         95\\,\\% interval & verdict \\\\\n\\midrule\n",
        experiment.definition.id, experiment.definition.title
    );
    for cell in &experiment.cells {
        let Some(result) = cell.result(headline) else { continue };
        for (index, comparison) in result.comparisons.iter().enumerate() {
            let label = if index == 0 { escape(&cell.short_id()) } else { String::new() };
            let (ratio, interval, verdict) = match &comparison.ratio {
                Ok(ratio) => (
                    plain(ratio.mean.ratio),
                    format!("[{}, {}]", plain(ratio.mean.low), plain(ratio.mean.high)),
                    result.word(ratio.side).to_owned(),
                ),
                Err(_) => ("--".into(), "--".into(), "not available".into()),
            };
            text += &format!(
                "{label} & \\texttt{{{}}} & {} & {ratio} & {interval} & {verdict} \\\\\n",
                escape(comparison.subject.name()),
                comparison.n
            );
        }
    }
    text + "\\bottomrule\n\\end{tabular}\n"
}

fn macros(analysis: &Analysis) -> String {
    let manifest = &analysis.manifest;
    let mut text = format!("% From perseq run {}. Made by `perseq report`; do not edit.\n", manifest.run_id);
    let mut define = |name: &str, value: &str| text += &format!("\\newcommand{{\\{name}}}{{{}}}\n", escape(value));
    define("perseqHost", &manifest.host_caption);
    define("perseqProfile", &manifest.about.profile);
    define("perseqSeed", &manifest.seed.to_string());
    define("perseqCommit", &manifest.tool.git_commit.to_string());
    define("perseqSamples", &analysis.planned.to_string());
    define("perseqBlocks", &analysis.least_blocks().to_string());
    for experiment in &analysis.experiments {
        for cell in &experiment.cells {
            let Some(result) = cell.result(&experiment.definition.headline) else { continue };
            for comparison in &result.comparisons {
                let Ok(Ratio { mean, .. }) = &comparison.ratio else { continue };
                let name = macro_name(&cell.id, comparison.subject);
                define(&format!("ratio{name}"), &plain(mean.ratio));
                define(&format!("low{name}"), &plain(mean.low));
                define(&format!("high{name}"), &plain(mean.high));
            }
        }
    }
    text
}

fn method(analysis: &Analysis) -> String {
    text::method_paragraphs(analysis).iter().map(|paragraph| escape(paragraph) + "\n\n").collect()
}

/// `EzerothreeRuleBRthreetwoPercpu` for `percpu` in `E03/rule=B/threads_per_cpu=32`: macros have letters only.
fn macro_name(cell: &str, subject: Subject) -> String {
    const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let words = format!("{}/{subject}", cell.replace("threads_per_cpu", "r"));
    let (mut name, mut begin) = (String::new(), true);
    for letter in words.chars() {
        match letter.to_digit(10) {
            Some(digit) => name += DIGITS[digit as usize],
            None if letter.is_ascii_alphabetic() && begin => name.push(letter.to_ascii_uppercase()),
            None if letter.is_ascii_alphabetic() => name.push(letter),
            None => {}
        }
        begin = !letter.is_ascii_alphanumeric();
    }
    name
}

/// A ratio without the thin spaces that TeX would not know.
fn plain(value: f64) -> String {
    number::ratio(value).replace('\u{202f}', "")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut code = false;
    for letter in text.chars() {
        match letter {
            '`' => {
                code = !code;
                escaped += if code { "\\texttt{" } else { "}" };
            }
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            '\\' => escaped += "\\textbackslash{}",
            '<' => escaped += "$<$",
            '>' => escaped += "$>$",
            '±' => escaped += "$\\pm$",
            '\u{202f}' => escaped += "\\,",
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::TWINNED;

    #[test]
    fn names_of_macros_are_letters_and_differ() {
        let name = macro_name("E03/rule=B/threads_per_cpu=32", TWINNED);
        assert_eq!(name, "EzerothreeRuleBRthreetwoPercpu");
        assert_ne!(name, macro_name("E03/rule=A/threads_per_cpu=32", TWINNED));
    }

    #[test]
    fn what_tex_would_read_as_a_command_is_escaped() {
        assert_eq!(escape("50 % of a_b & `c_d`"), "50 \\% of a\\_b \\& \\texttt{c\\_d}");
    }
}
