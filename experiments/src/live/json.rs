//! A view as one JSON object on a line: what the process itself would write (`PERSEQ_STATS=json`), and how it was read.

use super::numbers::Number;
use super::view::View;
use serde_json::{Map, Value};

/// The line.
pub fn line(view: &View) -> String {
    let (about, snapshot) = (&view.about, &view.snapshot);
    let mut total = object(&snapshot.total);
    for (name, text) in [
        ("config", &about.config),
        ("requested_mode", &about.requested),
        ("mode", &about.active),
        ("mode_reason", &about.reason),
        ("slices", &about.slices),
    ] {
        total.insert(name.into(), text.as_str().into());
    }
    let caches = snapshot.caches.iter().map(|(owner, numbers)| {
        let mut cache = object(numbers);
        cache.insert("owner".into(), owner.as_str().into());
        Value::from(cache)
    });
    let mut whole = Map::new();
    whole.insert("perseq".into(), about.perseq.as_str().into());
    whole.insert("process".into(), view.process.into());
    whole.insert("program".into(), view.program.as_str().into());
    whole.insert("file".into(), view.file.as_str().into());
    whole.insert("unix_ms".into(), view.unix_ms.into());
    whole.insert("exact".into(), view.exact.into());
    whole.insert("total".into(), total.into());
    whole.insert("caches".into(), caches.collect::<Vec<_>>().into());
    whole.insert("classes".into(), snapshot.classes.iter().map(|class| Value::from(object(class))).collect());
    Value::from(whole).to_string() + "\n"
}

fn object(numbers: &[Number]) -> Map<String, Value> {
    numbers.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
}
