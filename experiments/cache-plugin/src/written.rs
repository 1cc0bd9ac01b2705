//! The file that the plugin leaves: one JSON object.

use crate::marks::TIERS;
use crate::observer::{CLASSES, Observer, USER};
use perseq_cache_model::{Counts, Reuse};
use std::fmt::Write;

/// Writes everything that was counted, or says why it could not.
pub fn write(observer: &Observer) -> Result<(), String> {
    let model = &observer.model;
    let told = observer.ranges.told();
    let tiers = told.as_ref().ok().filter(|_| !observer.ranges.is_empty());
    let tiers = tiers.map(|told| observer.places.by_tier(told, TIERS.len()));
    let whole = tiers.as_ref().is_none_or(|tiers| tiers.iter().copied().sum::<Counts>() == model.class(USER));
    // A model that broke its own laws has counted nothing.
    let check = model.check().and(if whole { Ok(()) } else { Err("whole: tiers are not what programs did".into()) });
    let check = check.err().unwrap_or_default();
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
    text += "},\"tiers\":";
    text += &tiers.map_or("null".into(), |tiers| {
        let names = TIERS.iter().chain(&["program"]);
        let fields: Vec<_> = names.zip(&tiers).map(|(name, sum)| format!("\"{name}\":{}", counts(sum))).collect();
        format!("{{{}}}", fields.join(","))
    });
    text += ",\"objects\":";
    text += &observer.reuse.as_ref().map_or("null".into(), |reuse| objects(reuse, observer.lines));
    let bytes = TIERS.iter().zip(observer.ranges.bytes(TIERS.len()));
    let bytes: Vec<_> = bytes.map(|(name, bytes)| format!("\"{name}\":{bytes}")).collect();
    let (ranges, fault) = (observer.ranges.len(), told.err().unwrap_or_default());
    let _ =
        writeln!(text, ",\"told\":{{\"ranges\":{ranges},\"bytes\":{{{}}},\"fault\":\"{fault}\"}}}}", bytes.join(","));
    std::fs::write(&observer.out, text).map_err(|error| format!("{}: {error}", observer.out.display()))
}

fn counts(counts: &Counts) -> String {
    let fields: Vec<_> = counts.named().iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// What was found of objects, beside the lines of a CPU's first level and of its second.
fn objects(reuse: &Reuse, lines: [u64; 2]) -> String {
    let list = |values: &[u64]| values.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let quartiles: Vec<_> = [1, 2, 3].into_iter().filter_map(|quarters| reuse.quartile(quarters)).collect();
    let ((passed, touchers), [first, second]) = (reuse.passed(), lines.map(|lines| reuse.beyond(lines)));
    format!(
        "{{\"handed_out\":{},\"never\":{},\"beyond_l1\":{first},\"beyond_l2\":{second},\"quartiles\":[{}],\"digits\":[{}],\
         \"passed\":{passed},\"touchers\":{touchers}}}",
        reuse.handed_out(),
        reuse.never(),
        list(&quartiles),
        list(&reuse.digits()),
    )
}
