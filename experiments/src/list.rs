//! `perseq list`: the experiments, their cells, and the time each profile takes.

use crate::definition::Definition;
use crate::failure::{Exit, Failure};
use crate::harness::place;
use crate::host::limits::Limits;
use crate::output;
use crate::own;
use crate::plan::{self, Choice};
use regex::Regex;
use serde_json::json;
use std::path::PathBuf;

/// Prints the list.
pub fn main(as_json: bool, filter: Option<&Regex>, files: &[PathBuf]) -> Result<Exit, Failure> {
    let limits = Limits::read();
    let (mut listed, mut text) = (Vec::new(), String::new());
    let matches =
        |definition: &Definition| filter.is_none_or(|f| f.is_match(&definition.id) || f.is_match(&definition.title));
    for definition in own::or_ours(files)?.into_iter().filter(matches) {
        let mut profiles = serde_json::Map::new();
        if !as_json {
            text += &format!("{}  {}\n     {}\n", definition.id, definition.title, definition.question);
        }
        for (name, profile) in &definition.profiles {
            let choice = Choice {
                profile: name.clone(),
                filter: None,
                modes: None,
                blocks: None,
                measure_ms: None,
                seed: 0,
                links_per_ms: None,
                counters: Vec::new(),
            };
            let plan = plan::make(std::slice::from_ref(&definition), &choice, &limits)?;
            let seconds = place::estimate(&plan).as_secs_f64();
            let cells: Vec<_> = definition.cells(profile, limits.cpus).into_iter().map(|cell| cell.id).collect();
            let skipped = plan.iter().filter(|planned| planned.skip.is_some()).count();
            if as_json {
                profiles.insert(
                    name.clone(),
                    json!({"samples": plan.len(), "skipped": skipped, "seconds": seconds, "cells": cells}),
                );
            } else {
                let skipped =
                    if skipped > 0 { format!(", {skipped} beyond this host's limits") } else { String::new() };
                text += &format!("     {name}: {} samples, about {seconds:.0} s{skipped}\n", plan.len());
                cells.iter().for_each(|cell| text += &format!("       {cell}\n"));
            }
        }
        listed.push(json!({"id": definition.id, "title": definition.title, "question": definition.question, "profiles": profiles}));
    }
    if let (true, Some(filter)) = (listed.is_empty(), filter) {
        return Err(Failure::usage(format!("no experiment matches --filter {filter}")));
    }
    if as_json {
        output::print_json(&listed)?
    } else {
        output::print(&text)?
    }
    Ok(Exit::Done)
}
