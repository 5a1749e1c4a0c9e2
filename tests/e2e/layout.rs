//! Imports go one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our modules each may import.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("credential", &[]),
    ("api", &[]),
    ("process", &[]),
    ("azure", &["credential", "process"]),
    ("plan", &["api", "credential"]),
    ("args", &["credential", "plan", "process"]),
    (
        "controller",
        &["api", "azure", "credential", "plan", "process"],
    ),
];

pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn imports(source: &str) -> Vec<String> {
    let name = |rest: &str| {
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    source.split("crate::").skip(1).map(name).collect()
}

#[test]
fn each_module_imports_only_what_is_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, allowed) in ALLOWED {
        for path in sources(&src.join(module)) {
            let source = fs::read_to_string(&path).expect("a file");
            for import in imports(&source) {
                let known = ALLOWED.iter().any(|(name, _)| *name == import);
                let fine = !known || import == module || allowed.contains(&import.as_str());
                assert!(fine, "{} imports {import}", path.display());
            }
        }
    }
}

/// What the files of a folder import from each other, tests left out.
fn imports_between_files(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(folder);
    let module = fs::read_to_string(dir.join("mod.rs")).expect("mod.rs");
    let exported = exports(&module);
    let mut graph = BTreeMap::new();
    for line in module.lines() {
        let Some(name) = line.trim_start_matches("pub ").strip_prefix("mod ") else {
            continue;
        };
        let name = name.trim_end_matches(';');
        let path = dir.join(format!("{name}.rs"));
        if matches!(name, "tests" | "fuzz") || !path.exists() {
            continue;
        }
        let source = fs::read_to_string(&path).expect("a file");
        let names = [String::from("super::"), format!("crate::{folder}::")];
        let names = names
            .iter()
            .flat_map(|prefix| names_after(&product_code(&source), prefix));
        let files = names.map(|name| exported.get(&name).cloned().unwrap_or(name));
        let files = files.filter(|file| file != name && dir.join(format!("{file}.rs")).exists());
        graph.insert(name.to_owned(), files.collect());
    }
    graph
}

/// The names that a `mod.rs` exports, and the file of each.
fn exports(module: &str) -> BTreeMap<String, String> {
    let mut exported = BTreeMap::new();
    for statement in module.split(';') {
        let Some((_, path)) = statement
            .split_once(" use ")
            .filter(|(before, _)| before.contains("pub"))
        else {
            continue;
        };
        let (file, names) = path.split_once("::").expect("a path");
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_') {
            exported.insert(name.to_owned(), file.to_owned());
        }
    }
    exported
}

/// Without comments, and without the tests at the end.
fn product_code(source: &str) -> String {
    let code = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names of the paths behind `prefix`, also of `prefix::{a, b::{c, d}}`.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split(prefix).skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        let (mut depth, mut start) = (1, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                names.push(first_name(&group[start..at]));
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

fn first_name(path: &str) -> String {
    let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
    path.trim_start().chars().take_while(is_part).collect()
}

/// A file that imports itself through others, with the way there.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    fn walk(graph: &BTreeMap<String, BTreeSet<String>>, way: &mut Vec<String>) -> Option<String> {
        let last = way.last().cloned().unwrap_or_default();
        for next in graph.get(&last).into_iter().flatten() {
            if let Some(at) = way.iter().position(|file| file == next) {
                return Some(format!("{} -> {next}", way[at..].join(" -> ")));
            }
            way.push(next.clone());
            if let Some(found) = walk(graph, way) {
                return Some(found);
            }
            way.pop();
        }
        None
    }
    graph
        .keys()
        .find_map(|file| walk(graph, &mut vec![file.clone()]))
}

#[test]
fn no_file_of_the_decisions_imports_itself_through_others() {
    for (folder, file, import) in [
        ("plan", "step", "case"),
        ("credential", "clouds", "login_server"),
    ] {
        let mut graph = imports_between_files(folder);
        assert!(graph.len() > 8, "{folder}: {graph:?}");
        assert_eq!(cycle(&graph), None, "src/{folder}");
        // The positive control: the way back would be found.
        assert!(graph[file].contains(import), "{file}: {:?}", graph[file]);
        graph
            .entry(import.to_owned())
            .or_default()
            .insert(file.to_owned());
        let found = cycle(&graph).unwrap_or_default();
        assert!(found.contains(file) && found.contains(import), "{found}");
    }
}

#[test]
fn imports_are_read_as_rust_writes_them() {
    let code = "use super::a::{B, c::D};\nuse super::{\n    E,\n    f::{G, H},\n};\nlet x = super::i::J::k();\npub(super) fn l() {}";
    assert_eq!(names_after(code, "super::"), ["a", "E", "f", "", "i"]);
    let module = "mod a;\npub use a::{B, C};\npub(crate) use d::E;\n";
    let exported = exports(module);
    assert_eq!((&*exported["C"], &*exported["E"]), ("a", "d"));
    let source = "//! super::x\nuse super::y;\n#[cfg(test)]\nmod tests {\n    use super::z;\n}\n";
    assert_eq!(names_after(&product_code(source), "super::"), ["y"]);
}

#[test]
fn plan_has_no_clock_no_client_and_no_async() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan");
    for path in sources(&src) {
        let source = fs::read_to_string(&path).expect("a file");
        for word in [
            "async fn",
            ".await",
            "Timestamp::now",
            "SystemTime",
            "Client",
            "tokio::",
        ] {
            assert!(
                !source.contains(word) || word == "Client" && source.contains("ClientId"),
                "{}: {word}",
                path.display()
            );
        }
    }
}

#[test]
fn no_file_grows_beyond_reading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in sources(&root.join("src"))
        .into_iter()
        .chain(sources(&root.join("tests")))
    {
        let lines = fs::read_to_string(&path).expect("a file").lines().count();
        assert!(lines <= 600, "{}: {lines} lines", path.display());
    }
}
