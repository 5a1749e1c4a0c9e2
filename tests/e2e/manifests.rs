//! What is generated equals what is committed. `UPDATE=1` writes it anew.

mod errors_page;

use std::fs;
use std::path::Path;

use acrcred::api::custom_resource_definitions;

use crate::harness::{Scene, config, run};

const CRD_HEADER: &str =
    "# Generated from src/api; written anew by: UPDATE=1 cargo test --test e2e manifests\n";

#[test]
fn the_crd_is_the_one_of_the_code() {
    let crds: Vec<String> = custom_resource_definitions()
        .iter()
        .map(|crd| serde_saphyr::to_string(crd).expect("YAML"))
        .collect();
    assert_same(
        &config("crd/acrcred.dev_acrcredentials.yaml"),
        &format!("{CRD_HEADER}{}", crds.join("---\n")),
    );
}

pub fn assert_same(path: &Path, generated: &str) {
    let committed = fs::read_to_string(path).unwrap_or_default();
    // Others read it meanwhile: what is the same is not written.
    if std::env::var_os("UPDATE").is_some() && committed != generated {
        fs::write(path, generated).expect("a writable checkout");
    } else {
        assert!(
            committed == generated,
            "{} is not what it is made from; run: make generate",
            path.display()
        );
    }
}

#[test]
fn the_samples_are_taken_by_the_api_server() {
    run(async {
        let scene = Scene::new("samples").await?;
        let kubectl = || {
            let mut kubectl = scene.control_plane.kubectl();
            kubectl.args([
                "create",
                "--dry-run=server",
                "--namespace",
                &scene.namespace,
            ]);
            kubectl
        };
        let samples = config("samples");
        for sample in fs::read_dir(&samples)? {
            let path = sample?.path();
            let text = fs::read_to_string(&path)?.replace(
                "namespace: demo",
                &format!("namespace: {}", scene.namespace),
            );
            let copy = scene.dir.path().join("sample.yaml");
            fs::write(&copy, text)?;
            let output = kubectl().arg("--filename").arg(&copy).output().await?;
            assert!(
                output.status.success(),
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    });
}

#[test]
fn kubectl_get_shows_what_an_operator_looks_for() {
    run(async {
        let scene = Scene::new("columns").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let object = scene
            .objects()
            .create_ready(&crate::harness::manifest("acr", &[&contoso]))
            .await?;
        let mut kubectl = scene.control_plane.kubectl();
        let output = kubectl
            .args(["get", "acrcred", "--namespace", &scene.namespace])
            .output()
            .await?;
        let text = String::from_utf8(output.stdout)?;
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[0],
            [
                "NAME", "REGISTRY", "SECRET", "READY", "REASON", "EXPIRES", "AGE"
            ]
        );
        let expires = object
            .status
            .and_then(|status| status.expires_at)
            .expect("an expiry")
            .0
            .to_string();
        assert_eq!(
            rows[1][..6],
            ["acr", &contoso.server, "acr", "True", "Issued", &expires]
        );
        Ok(())
    });
}
