// The predictions of a definition as text: shared with the build script, which looks for them in the history.

/// Every `[[predictions]]` table of a definition, without the lines around it.
pub fn predictions(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("[[") || (line.starts_with('[') && line.ends_with(']')) {
            inside = line == "[[predictions]]";
            if inside {
                found.push(String::new());
            }
        } else if let (true, Some(last)) = (inside, found.last_mut()) {
            last.push_str(line);
            last.push('\n');
        }
    }
    found.iter().map(|prediction| prediction.trim().to_owned()).collect()
}
