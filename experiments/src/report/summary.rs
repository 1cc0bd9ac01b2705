//! `summary.csv`: one line per cell, metric and subject.

use super::analysis::{Analysis, Comparison, MetricResult};

const HEADER: &str = "experiment,cell,metric,unit,baseline,mode,n,baseline_gmean,mode_gmean,ratio,ci_lo,ci_hi,\
median_ratio,med_lo,med_hi,aa_ratio,aa_lo,aa_hi,resolution_pct,verdict,holm,note\n";

/// Writes it. An empty field means "not available"; the note says why.
pub fn csv(analysis: &Analysis) -> String {
    let mut text = HEADER.to_owned();
    for experiment in &analysis.experiments {
        for cell in &experiment.cells {
            for result in &cell.metrics {
                for comparison in &result.comparisons {
                    let head = [experiment.definition.id.clone(), quote(&cell.id)];
                    text += &head.into_iter().chain(line(result, comparison)).collect::<Vec<_>>().join(",");
                    text.push('\n');
                }
            }
        }
    }
    text
}

fn line(result: &MetricResult, comparison: &Comparison) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
    let ratio = comparison.ratio.as_ref().ok();
    let (mean, median, twin) = (ratio.map(|ratio| ratio.mean), ratio.map(|ratio| ratio.median), result.twin);
    let bounds = |estimate: Option<perseq_statistics::Estimate>| {
        [estimate.map(|e| e.ratio), estimate.map(|e| e.low), estimate.map(|e| e.high)].map(number)
    };
    let mut fields = vec![
        result.metric.name.clone(),
        result.metric.unit.clone(),
        result.baseline.name().into(),
        comparison.subject.name().into(),
        comparison.n.to_string(),
        number(geometric_mean(&result.of(result.baseline))),
        number(geometric_mean(&result.of(comparison.subject))),
    ];
    fields.extend(bounds(mean));
    fields.extend(bounds(median));
    fields.extend(bounds(twin));
    fields.push(number(ratio.and_then(|ratio| ratio.resolution).map(|share| share * 100.0)));
    fields.push(ratio.map_or("", |ratio| result.word(ratio.side)).into());
    fields.push(comparison.holm.map_or_else(String::new, |kept| kept.to_string()));
    let unavailable = || result.unavailable.get(comparison.subject.name()).cloned();
    let note = comparison.ratio.as_ref().err().map(|reason| unavailable().unwrap_or_else(|| reason.clone()));
    fields.push(quote(&note.unwrap_or_default()));
    fields
}

fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| *value <= 0.0) {
        return None;
    }
    Some((values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

/// A field, between quotes where it needs them.
pub fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}
