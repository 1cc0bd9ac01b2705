//! `CITATION.cff` has what version 1.2.0 of the format demands, nothing it does not know, and this version of perseq.
//! The format's own schema is asked by `cffconvert --validate`, in `.ci/run`.

use serde::Deserialize;

/// What the file may have; the format knows more. The first four are demanded.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Citation {
    cff_version: String,
    message: String,
    title: String,
    authors: Vec<Author>,
    r#type: Type,
    version: String,
    date_released: String,
    license: Vec<String>,
    keywords: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Author {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Type {
    Software,
    Dataset,
}

#[test]
fn the_citation_is_valid_and_of_this_version() {
    let citation: Citation = serde_norway::from_str(include_str!("../../CITATION.cff")).expect("a citation");
    assert_eq!(citation.cff_version, "1.2.0");
    assert_eq!(citation.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(citation.license.join(" OR "), env!("CARGO_PKG_LICENSE"));
    assert!(matches!(citation.r#type, Type::Software | Type::Dataset));
    let date: Vec<_> = citation.date_released.split('-').map(str::len).collect();
    assert_eq!(date, [4, 2, 2], "{}", citation.date_released);
    let empty = |text: &String| text.trim().is_empty();
    assert!(!empty(&citation.message) && !empty(&citation.title));
    assert!(!citation.authors.is_empty() && !citation.authors.iter().any(|author| empty(&author.name)));
    let mut keywords = citation.keywords.clone();
    keywords.dedup();
    assert_eq!(keywords, citation.keywords, "a keyword twice");
}
