//! Directories of runs whose sums were made right again after a change, as someone would who wants to deceive: what is left
//! is what the files say.

#![allow(dead_code)] // each test uses its part

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// SHA-256, in hexadecimal.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).expect("a file of the run")
}

fn write(root: &Path, file: &str, text: &str) {
    fs::write(root.join(file), text).expect("a file of the run");
}

/// Changes the manifest, and seals it.
pub fn manifest(root: &Path, change: impl FnOnce(&mut Value)) {
    let mut manifest: Value = serde_json::from_str(&read(root, "manifest.json")).expect("JSON");
    change(&mut manifest);
    manifest["seal"] = Value::Null;
    let open = serde_json::to_string_pretty(&manifest).expect("JSON") + "\n";
    manifest["seal"] = sum(open.as_bytes()).into();
    write(root, "manifest.json", &(serde_json::to_string_pretty(&manifest).expect("JSON") + "\n"));
}

/// Makes the sums of the files right.
pub fn sums(root: &Path) {
    let sums = ["manifest.json", "plan.jsonl", "samples.jsonl"]
        .map(|name| format!("{}  {name}\n", sum(read(root, name).as_bytes())));
    write(root, "SHA256SUMS", &sums.concat());
}

/// Makes every sum right: of each row, of the manifest and of the files.
pub fn everything(root: &Path) {
    let mut previous = sum(read(root, "plan.jsonl").as_bytes());
    let mut lines: Vec<_> = read(root, "samples.jsonl").lines().map(str::to_owned).collect();
    for line in &mut lines {
        if serde_json::from_str::<Value>(line).is_err() {
            continue;
        }
        // In its place, so that all else stays as it is written.
        let (row, old) = line.rsplit_once("\"previous\":\"").expect("a row that is chained");
        *line = format!("{row}\"previous\":\"{previous}{}", &old[previous.len()..]);
        previous = sum(line.as_bytes());
    }
    write(root, "samples.jsonl", &(lines.join("\n") + "\n"));
    manifest(root, |manifest| manifest["rows"] = serde_json::json!({"count": lines.len(), "last": previous}));
    sums(root);
}
