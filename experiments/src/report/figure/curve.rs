//! A metric over a parameter.

use super::super::analysis::{Analysis, Cell, Experiment};
use super::super::document::Figure;
use super::lines::{Lines, Part, Point, lines};
use crate::definition::{Curve, Rule};
use crate::failure::Failure;
use crate::subject::Subject;
use perseq_statistics::mean;

/// One metric against one parameter, a panel for each rule, every sample shown.
pub fn curve(analysis: &Analysis, experiment: &Experiment, curve: &Curve) -> Result<Option<Figure>, Failure> {
    let Some(metric) = experiment.definition.metric(&curve.metric) else {
        return Ok(None);
    };
    let mut rules: Vec<Option<Rule>> = experiment.cells.iter().map(|cell| cell.rule).collect();
    rules.dedup();
    // What differs from the other cells in something else is not on their curve.
    let usual = |cell: &&Cell| {
        let own = experiment.definition.parameters.iter().filter(|(name, _)| **name != curve.parameter);
        own.into_iter().all(|(name, value)| cell.parameters.get(name) == Some(value))
    };
    let points = |rule: Option<Rule>, subject: Subject| -> Vec<Point> {
        let at = |cell: &Cell| {
            let (result, x) = (cell.result(&curve.metric)?, *cell.parameters.get(&curve.parameter)? as f64);
            let (values, mean) = (result.of(subject), mean(result.in_layouts(subject)));
            let late = result.late.get(subject.name()).copied().unwrap_or(0);
            (late > 0 || !values.is_empty()).then_some(Point { x, values, mean, late })
        };
        experiment.cells.iter().filter(|cell| cell.rule == rule).filter(usual).filter_map(at).collect()
    };
    let has_points = |subject: &Subject| rules.iter().any(|rule| !points(*rule, *subject).is_empty());
    let subjects: Vec<_> = Subject::all().filter(has_points).collect();
    let part = |rule: &Option<Rule>| Part {
        key: rule.map_or_else(String::new, |rule| format!("{rule:?}")),
        title: title(&curve.metric, *rule),
        lines: subjects.iter().map(|subject| points(*rule, *subject)).collect(),
    };
    let n = analysis.least_blocks();
    lines(&Lines {
        name: format!("{}-{}", experiment.definition.id.to_lowercase(), curve.metric),
        caption: format!(
            "{}: `{}` against {}. Large marks: medians; bars: the 95 % interval of the mean; dots: every sample, n = {n} or \
             more for each. {}.",
            experiment.definition.id, curve.metric, curve.label, analysis.manifest.host_caption
        ),
        header: ["rule", "mode", &curve.parameter, &curve.metric],
        across: &curve.label,
        unit: &metric.unit,
        log: curve.log,
        shared: true,
        names: subjects.iter().map(|subject| subject.name()).collect(),
        parts: rules.iter().map(part).collect(),
    })
}

/// What stands above a panel.
fn title(metric: &str, rule: Option<Rule>) -> String {
    let words = rule.map_or_else(String::new, |rule| format!(", rule {rule:?}: {}", rule.words()));
    format!("{metric}{words}")
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{LEFT, WIDTH};
    use super::*;

    /// A letter of the figures' font is some 6.3 wide in the mean, and what is cut off at the edge cannot be read.
    #[test]
    fn titles_end_before_the_edge() {
        for definition in crate::definition::all() {
            for curve in &definition.curves {
                for rule in definition.rules.iter().copied().map(Some).chain([None]) {
                    let title = title(&curve.metric, rule);
                    assert!(title.len() as f64 * 6.3 < f64::from(WIDTH - LEFT), "{}: {title}", definition.id);
                }
            }
        }
    }
}
