//! `docs/errors.md`: what can be told from the code is generated, and the rest is held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use acrcred::api::Reason;
use acrcred::credential::{Class, Failure, Hop, When, catalogue};
use acrcred::plan;
use strum::IntoEnumIterator as _;

use super::assert_same;

const END: &str = "<!-- end of generated -->";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md")
}

fn page() -> String {
    fs::read_to_string(path()).expect("docs/errors.md")
}

/// The page with a table between the markers of its name.
fn with_table(page: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- generated: {name} -->");
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("no {END}"));
    format!("{before}{begin}\n{table}{END}{after}")
}

fn table(first: &str, rows: impl Iterator<Item = (String, &'static Failure)>) -> String {
    let head = format!(
        "| {first} | Reason | Class | What it means | Who must do what |\n|---|---|---|---|---|\n"
    );
    let rows = rows.map(|(what, row)| {
        let (reason, class) = (plan::reason(row.cause), row.class);
        let (meaning, who, remedy) = (row.meaning, row.who, row.remedy);
        format!("| {what} | `{reason}` | {class} | {meaning} | {who}: {remedy} |\n")
    });
    head + &rows.collect::<String>()
}

fn codes() -> String {
    let rows = catalogue().filter_map(|row| match row.when {
        When::Codes(codes) => Some((joined(codes.iter()), row)),
        _ => None,
    });
    table("AADSTS", rows)
}

fn statuses(hop: Hop) -> String {
    let rows = catalogue().filter_map(|row| match row.when {
        When::Status(hops, ranges) if hops.contains(&hop) => {
            let ranges = ranges
                .iter()
                .map(|range| match (range.start(), range.end()) {
                    (500, &u16::MAX) => "5xx".to_owned(),
                    (400, 499) => "any other 4xx".to_owned(),
                    (first, last) if first == last => first.to_string(),
                    other => panic!("no word for {other:?}"),
                });
            Some((joined(ranges), row))
        }
        _ => None,
    });
    table("Answer", rows)
}

fn others() -> String {
    let rows = catalogue().filter_map(|row| match row.when {
        When::Other(what) => Some((what.to_owned(), row)),
        _ => None,
    });
    table("Event", rows)
}

fn joined(parts: impl Iterator<Item = impl ToString>) -> String {
    let parts: Vec<String> = parts.map(|part| part.to_string()).collect();
    parts.join(", ")
}

/// The cells of the table rows that begin with `first`.
fn rows(page: &str, first: &str) -> Vec<Vec<String>> {
    let rows = page
        .lines()
        .filter(|line| line.starts_with(&format!("| {first} |")));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

#[test]
fn the_tables_of_failures_are_those_of_the_code() {
    let mut generated = page();
    for (name, table) in [
        ("codes", codes()),
        ("entra", statuses(Hop::Entra)),
        ("registry", statuses(Hop::Exchange)),
        ("token", statuses(Hop::Token)),
        ("others", others()),
    ] {
        generated = with_table(&generated, name, &table);
    }
    assert_same(&path(), &generated);
}

#[test]
fn every_reason_is_documented_with_cause_and_remedy() {
    let page = page();
    for reason in Reason::iter() {
        let rows = rows(&page, &format!("`{reason}`"));
        let described = rows
            .first()
            .unwrap_or_else(|| panic!("docs/errors.md has no row for {reason}"));
        assert!(
            described.len() == 3 && described.iter().all(|cell| !cell.is_empty()),
            "{described:?}"
        );
    }
}

#[test]
fn every_class_of_a_reason_is_said_where_the_reason_appears() {
    let mut classes = BTreeMap::<Reason, BTreeSet<String>>::new();
    for row in catalogue() {
        let reason = plan::reason(row.cause);
        let of_reason = classes.entry(reason).or_default();
        of_reason.insert(row.class.to_string());
    }
    let page = page();
    for (reason, classes) in classes {
        let rows = rows(&page, &format!("`{reason}`"));
        let appears = rows
            .iter()
            .find(|row| row.len() == 4)
            .unwrap_or_else(|| panic!("{reason} appears nowhere"));
        for class in classes {
            assert!(appears[3].contains(&class), "{appears:?} lacks {class}");
        }
    }
}

#[test]
fn every_class_says_when_it_is_tried_again() {
    let page = page();
    for class in Class::iter() {
        let rows = rows(&page, &class.to_string());
        assert!(
            rows.len() == 1 && rows[0].len() == 2 && !rows[0][1].is_empty(),
            "{class}: {rows:?}"
        );
    }
}
