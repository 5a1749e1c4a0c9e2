//! The pages hang together: each is reachable from the README, and no link leads nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let top = [
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ];
    let mut pages: Vec<PathBuf> = top.iter().map(|name| root().join(name)).collect();
    pages.push(root().join("charts/acrcred/README.md"));
    let entries = fs::read_dir(root().join("docs")).expect("docs");
    let docs = entries.map(|entry| entry.expect("an entry").path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// Where a page's links lead, those into the Web left out.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .filter(|target| !target.contains("://") && !target.contains(' '))
        .collect()
}

/// The anchors of a page's headings, as GitHub and others make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            });
            kept.collect()
        })
        .collect()
}

/// The file that a link leads to, and the anchor in it.
fn target(page: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor.to_owned())),
        None => (link, None),
    };
    let folder = page.parent().expect("a folder");
    let file = if file.is_empty() {
        page.to_owned()
    } else {
        folder.join(file)
    };
    (file, anchor)
}

#[test]
fn no_link_leads_nowhere() {
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for link in links(&text) {
            let (file, anchor) = target(&page, link);
            assert!(file.exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                let found = anchors(&read(&file)).contains(&anchor);
                assert!(found, "{}: {link}", page.display());
            }
            count += 1;
        }
    }
    assert!(count > 50, "{count} links");
}

#[test]
fn the_readme_leads_to_every_page() {
    let readme = root().join("README.md");
    let text = read(&readme);
    let reached: BTreeSet<PathBuf> = links(&text)
        .iter()
        .map(|link| target(&readme, link).0)
        .collect();
    for page in pages().into_iter().filter(|page| *page != readme) {
        assert!(reached.contains(&page), "{}", page.display());
    }
}
