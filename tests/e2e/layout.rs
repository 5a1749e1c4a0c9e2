//! Imports go one way.

use std::fs;
use std::path::{Path, PathBuf};

/// Which of our modules each may import.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("credential", &[]),
    ("api", &[]),
    ("process", &[]),
    ("azure", &["credential", "process"]),
    ("plan", &["api", "credential"]),
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
                let known = ALLOWED.iter().any(|(name, _)| *name == import) || import == "args";
                let fine = !known || import == module || allowed.contains(&import.as_str());
                assert!(fine, "{} imports {import}", path.display());
            }
        }
    }
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
