//! The chart's README: a table of values, from `values.yaml` and its comments.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const BEGIN: &str = "<!-- values -->\n";
const END: &str = "<!-- end of values -->";

/// A value that somebody may set.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Its keys, from the root.
    pub path: Vec<String>,
    /// The comment above it.
    pub comment: String,
}

/// The values in their order. One with a comment is documented as a whole, one without is a group of others.
pub fn entries(values: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut groups: Vec<(usize, String)> = Vec::new();
    let mut whole: Option<usize> = None;
    let mut comment = Vec::new();
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() {
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim().to_owned());
        } else if let Some((key, value)) = text.split_once(':')
            && whole.is_none_or(|at| indent <= at && !text.starts_with('-'))
        {
            groups.retain(|(at, _)| *at < indent);
            let is_group = comment.is_empty() && value.trim().is_empty();
            if is_group {
                groups.push((indent, key.to_owned()));
                whole = None;
            } else {
                let parents = groups.iter().map(|(_, key)| key.clone());
                entries.push(Entry {
                    path: parents.chain([key.to_owned()]).collect(),
                    comment: std::mem::take(&mut comment).join(" "),
                });
                whole = Some(indent);
            }
        }
    }
    entries
}

/// The table, or what a value lacks.
pub fn table(values: &str) -> Result<String> {
    let defaults: Value = serde_saphyr::from_str(values)?;
    let rows = entries(values).into_iter().map(|Entry { path, comment }| {
        let name = path.join(".");
        ensure!(!comment.is_empty(), "values.yaml: {name} has no comment");
        let default = defaults.pointer(&format!("/{}", path.join("/")));
        let default = default.with_context(|| format!("values.yaml: {name} is no value"))?;
        Ok(format!("| `{name}` | `{default}` | {comment} |\n"))
    });
    let rows: String = rows.collect::<Result<_>>()?;
    Ok(format!(
        "| Value | Default | Meaning |\n|---|---|---|\n{rows}"
    ))
}

/// The page with the table between its marks.
pub fn insert(page: &str, table: &str) -> Result<String> {
    let (head, rest) = page.split_once(BEGIN).context("no place for the table")?;
    let (_, tail) = rest.split_once(END).context("no end of the table")?;
    Ok(format!("{head}{BEGIN}{table}{END}{tail}"))
}

#[test]
fn a_group_is_listed_value_by_value_and_a_documented_map_as_a_whole() {
    let values = "\
# About the file.

# One.
one: 1
group:
  # Two,
  # in two lines.
  two:
    deep: [a]
    list:
    - b: c
  bare: x
# Three.
three:
- four: 5
";
    let found = entries(values);
    let found: Vec<_> = found
        .iter()
        .map(|entry| (entry.path.join("."), entry.comment.as_str()))
        .collect();
    let expected = [
        ("one", "One."),
        ("group.two", "Two, in two lines."),
        ("group.bare", ""),
        ("three", "Three."),
    ];
    let expected = expected.map(|(path, comment)| (path.to_owned(), comment));
    assert_eq!(found, expected);
    assert!(table(values).is_err_and(|error| error.to_string().contains("group.bare")));
}
