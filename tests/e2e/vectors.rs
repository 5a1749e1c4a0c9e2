//! Each numbered case of the protocol has its tests, or the reason why not: `docs/vectors.md` against the sources.

use std::fs;
use std::path::{Path, PathBuf};

use crate::layout::sources;

const LAST: [(char, u32); 3] = [('E', 29), ('A', 33), ('K', 19)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Number and proof of each row.
fn rows() -> Vec<(String, String)> {
    let page = fs::read_to_string(root().join("docs/vectors.md")).expect("docs/vectors.md");
    let cells = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _given, proof] = cells[..] else {
            return None;
        };
        Some((number.to_owned(), proof.to_owned()))
    });
    cells
        .filter(|(number, _)| number.starts_with(|c: char| c.is_ascii_uppercase()))
        .collect()
}

/// What a cell names as `module::function`.
fn tests_in(proof: &str) -> Vec<&str> {
    let quoted = proof.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains("::")).collect()
}

/// Whether a file of that module has a test of that name.
fn exists(name: &str, files: &[(PathBuf, String)]) -> bool {
    let (module, function) = name.rsplit_once("::").expect("a path");
    let path = format!("/{}.rs", module.replace("::", "/"));
    files.iter().any(|(file, source)| {
        let tests = source.split("test]\n").skip(1);
        let mut heads = tests.map(|test| test.split('{').next().unwrap_or_default());
        file.to_string_lossy().ends_with(&path)
            && heads.any(|head| head.contains(&format!("fn {function}(")))
    })
}

#[test]
fn every_number_has_one_row_with_tests_or_a_reason() {
    let rows = rows();
    let numbers: Vec<&str> = rows.iter().map(|(number, _)| number.as_str()).collect();
    let expected: Vec<String> = LAST
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |number| format!("{letter}{number}")))
        .collect();
    assert_eq!(numbers, expected);
    for (number, proof) in &rows {
        let reasoned = proof.starts_with("Not here: ");
        assert!(!tests_in(proof).is_empty() || reasoned, "{number}: {proof}");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let folders = ["src", "tests/e2e", "tests/emulator/tests"];
    let files: Vec<(PathBuf, String)> = folders
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
        .map(|path| {
            let source = fs::read_to_string(&path).expect("a file");
            (path, source)
        })
        .collect();
    for (number, proof) in rows() {
        for name in tests_in(&proof) {
            assert!(exists(name, &files), "{number}: there is no test {name}");
        }
    }
    // The positive control: it would not take anything.
    assert!(!exists("vectors::no_such_test", &files));
    assert!(!exists("vectors::rows", &files), "that is no test");
}
