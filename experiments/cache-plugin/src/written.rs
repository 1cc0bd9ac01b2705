//! The file that the plugin leaves: one JSON object.

use crate::observer::{CLASSES, Observer};
use perseq_cache_model::Counts;
use std::fmt::Write;

/// Writes everything that was counted, or says why it could not.
pub fn write(observer: &Observer) -> Result<(), String> {
    let model = &observer.model;
    // A model that broke its own laws has counted nothing.
    let check = model.check().err().unwrap_or_default();
    let tested: Vec<_> = observer.tested.iter().map(u64::to_string).collect();
    let mut text = format!(
        "{{\"geometry\":\"{}\",\"cpus\":{},\"started\":{},\"stopped\":{},\"parts\":[{},{}],\"system_calls\":{},\"tested\":[{}],\
         \"wrong\":{},\"law_broken\":\"{}\",\"classes\":{{",
        observer.geometry,
        observer.cpus,
        observer.started,
        observer.stopped,
        observer.parts[0],
        observer.parts[1],
        observer.system_calls,
        tested.join(","),
        observer.wrong,
        check.replace(['"', '\\'], "'"),
    );
    for (class, name) in CLASSES.iter().enumerate() {
        let comma = if class == 0 { "" } else { "," };
        // A string takes all that is written.
        let _ = write!(text, "{comma}\"{name}\":{{\"total\":{},\"cpus\":[", counts(&model.class(class)));
        let cpus: Vec<_> = (0..observer.cpus).map(|cpu| counts(model.counts(cpu, class))).collect();
        text += &cpus.join(",");
        text += "]}";
    }
    text += "}}\n";
    std::fs::write(&observer.out, text).map_err(|error| format!("{}: {error}", observer.out.display()))
}

fn counts(counts: &Counts) -> String {
    let fields: Vec<_> = counts.named().iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}
