//! What is generated equals what is committed. `UPDATE=1` writes it anew.

use std::fs;
use std::path::Path;

use acrcred::api::{Reason, custom_resource_definitions};

use crate::harness::{Scene, config, run};

const CRD_HEADER: &str = "# Generated from src/api; written anew by: UPDATE=1 cargo test --test e2e manifests\n";

#[test]
fn the_crd_is_the_one_of_the_code() {
    let crds: Vec<String> = custom_resource_definitions()
        .iter()
        .map(|crd| serde_saphyr::to_string(crd).expect("YAML"))
        .collect();
    assert_same(&config("crd/acrcred.dev_acrcredentials.yaml"), &format!("{CRD_HEADER}{}", crds.join("---\n")));
}

fn assert_same(path: &Path, generated: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, generated).expect("a writable checkout");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == generated, "{} is not what the code says; run with UPDATE=1", path.display());
}

#[test]
fn every_reason_is_documented_with_cause_and_remedy() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = fs::read_to_string(page).expect("docs/errors.md");
    for reason in Reason::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{reason}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/errors.md has no row for {reason}"));
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}

#[test]
fn the_samples_are_taken_by_the_api_server() {
    run(async {
        let scene = Scene::new("samples").await?;
        let kubectl = || {
            let mut kubectl = scene.control_plane.kubectl();
            kubectl.args(["create", "--dry-run=server", "--namespace", &scene.namespace]);
            kubectl
        };
        let samples = config("samples");
        for sample in fs::read_dir(&samples)? {
            let path = sample?.path();
            let text = fs::read_to_string(&path)?.replace("namespace: demo", &format!("namespace: {}", scene.namespace));
            let copy = scene.dir.path().join("sample.yaml");
            fs::write(&copy, text)?;
            let output = kubectl().arg("--filename").arg(&copy).output().await?;
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    });
}
