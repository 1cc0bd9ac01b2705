//! What the counter pass found, per pair, and what could not be counted and therefore not be said.

use super::analysis::Analysis;
use super::document::{Block, Figure, Table};
use super::figure::grid;
use super::number;
use crate::counters::{self, Status};
use crate::experiment::Row;
use crate::failure::Failure;
use crate::subject::{BASELINE, Subject, TWINNED};
use perseq_statistics::median;
use std::collections::BTreeMap;

/// Of one event: the values per pair, or why there are none.
enum Found {
    PerPair(f64),
    Missing(Status),
}

/// The section.
pub fn blocks(analysis: &Analysis) -> Result<Vec<Block>, Failure> {
    let mut blocks = vec![Block::Heading(2, "Counters".into())];
    let rows: Vec<_> = analysis.rows.iter().filter(|row| row.planned.task.counter_group.is_some()).collect();
    if rows.is_empty() {
        let why = if analysis.manifest.about.hardware_counters {
            "This run has no counter pass."
        } else {
            "No hardware counter can be opened on this host, and the kernel's own were not asked for (`--counters`)."
        };
        blocks.push(Block::Paragraph(why.into()));
    } else {
        blocks.push(Block::Paragraph(
            "A pass of its own: these samples are not timed, and timing samples run with all counters closed. Each sample \
             reads one small group, so no counter is shared; every thread reads its own, from the start barrier to the end \
             of its work, warm-up included. Medians over samples, per pair: `perseq rows . --metric /counted/EVENT/scaled` over \
             `/ops_alloc`."
                .into(),
        ));
        blocks.extend(tables(analysis, &rows));
    }
    blocks.extend(figure(analysis, &rows)?.map(Block::Figure));
    // A run of an older version has no list of events, and then there is no table to show.
    blocks.extend(Some(missing(analysis, &rows)).filter(|table| !table.rows.is_empty()).map(Block::Table));
    Ok(blocks)
}

/// Every event of this processor for every mode, in the last cell that was counted.
fn figure(analysis: &Analysis, rows: &[&Row]) -> Result<Option<Figure>, Failure> {
    let cell = rows.iter().map(|row| row.planned.cell_id.as_str()).max();
    let own = || rows.iter().filter(|row| Some(row.planned.cell_id.as_str()) == cell).copied();
    let counted: Vec<_> =
        Subject::all().filter(|subject| own().any(|row| row.planned.task.mode_requested == *subject)).collect();
    let columns: Vec<String> = match counted.as_slice() {
        [] => vec![TWINNED.to_string(), BASELINE.to_string()],
        counted => counted.iter().map(Subject::to_string).collect(),
    };
    let value = |event: &str, column: &str| {
        let rows = own().filter(|row| row.planned.task.mode_requested.name() == column);
        match found(rows, event) {
            Some(Found::PerPair(value)) => Some(value),
            _ => None,
        }
    };
    let event = |listed: &counters::Listed| grid::Event {
        name: listed.name.clone(),
        values: columns.iter().map(|column| value(&listed.name, column)).collect(),
    };
    let events: Vec<_> = analysis.manifest.about.counter_catalogue.iter().map(event).collect();
    let caption = format!(
        "Events per pair{}, medians. A crossed cell was not counted, which is not 0: nothing is said about it. {}.",
        cell.map_or_else(String::new, |cell| format!(" in `{cell}`")),
        analysis.manifest.host_caption
    );
    grid::grid(&columns, &events, caption)
}

fn tables(analysis: &Analysis, rows: &[&Row]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for experiment in &analysis.experiments {
        let own: Vec<_> = rows.iter().filter(|row| row.planned.task.experiment == experiment.definition.id).collect();
        let mut events: Vec<&str> = Vec::new();
        for name in
            own.iter().filter_map(|row| row.report.as_ref()).flat_map(|report| report.measurement.counted.keys())
        {
            if !events.contains(&name.as_str()) {
                events.push(name);
            }
        }
        if events.is_empty() {
            continue;
        }
        let subjects: Vec<_> = Subject::all()
            .filter(|subject| own.iter().any(|row| row.planned.task.mode_requested == *subject))
            .collect();
        let mut lines = Vec::new();
        for cell in &experiment.cells {
            for (index, event) in events.iter().enumerate() {
                let mut line = vec![if index == 0 { cell.short_id() } else { String::new() }, format!("`{event}`")];
                line.extend(subjects.iter().map(|subject| {
                    let rows = own
                        .iter()
                        .filter(|row| row.planned.cell_id == cell.id && row.planned.task.mode_requested == *subject);
                    match found(rows.map(|row| **row), event) {
                        Some(Found::PerPair(value)) => number::short(value),
                        Some(Found::Missing(status)) => format!("not available: {status}"),
                        None => "–".into(),
                    }
                }));
                lines.push(line);
            }
        }
        let mut header = vec!["cell", "event per pair"];
        header.extend(subjects.iter().map(|subject| subject.name()));
        blocks.push(Block::Table(Table {
            caption: format!("{} {}", experiment.definition.id, experiment.definition.title),
            header,
            text_columns: 2,
            rows: lines,
        }));
    }
    blocks
}

/// The median per pair. None: no sample counted this event.
fn found<'a>(rows: impl Iterator<Item = &'a Row>, event: &str) -> Option<Found> {
    let (mut values, mut worst) = (Vec::new(), None);
    for row in rows {
        let Some(report) = &row.report else { continue };
        let Some(value) = report.measurement.counted.get(event) else { continue };
        match value.scaled {
            Some(scaled) => values.push(scaled / report.measurement.ops_alloc.max(1) as f64),
            None => worst = worst.max(Some(value.status)),
        }
    }
    if values.is_empty() { worst.map(Found::Missing) } else { Some(Found::PerPair(median(&mut values))) }
}

/// Every event of this processor's table: whether it was counted, and the sentence that depends on it.
fn missing(analysis: &Analysis, rows: &[&Row]) -> Table {
    let mut statuses: BTreeMap<&str, Status> = BTreeMap::new();
    for (name, value) in
        rows.iter().filter_map(|row| row.report.as_ref()).flat_map(|report| &report.measurement.counted)
    {
        let status = statuses.entry(name).or_insert(value.status);
        *status = (*status).max(value.status);
    }
    // The processor of the run, not the one this report is made on.
    let probed = |name: &str| -> Option<String> {
        let events = analysis.manifest.host.get("pmu")?.get("events")?.as_array()?;
        let event = events.iter().find(|event| event.get("name").and_then(|name| name.as_str()) == Some(name))?;
        Some(event.get("status")?.as_str()?.replace('_', " "))
    };
    let line = |event: &counters::Listed| {
        let status = match statuses.get(event.name.as_str()) {
            Some(Status::Ok) => "counted".to_owned(),
            Some(status) => format!("not available: {status}"),
            None => match probed(&event.name) {
                Some(status) if status != "ok" => format!("not available: {status}"),
                _ if analysis.manifest.about.hardware_counters => "not counted in this run".into(),
                _ if event.group == counters::SOFTWARE_GROUP => "not counted in this run".into(),
                _ => "not available: no hardware counter on this host".into(),
            },
        };
        vec![format!("`{}`", event.name), event.group.clone(), status, event.supports.clone()]
    };
    Table {
        caption: "Events of this processor, and what nothing may be said about where they were not counted.".into(),
        header: vec!["event", "group", "in this run", "would show"],
        text_columns: 4,
        rows: analysis.manifest.about.counter_catalogue.iter().map(line).collect(),
    }
}
