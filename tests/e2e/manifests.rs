//! What is generated equals what is committed. `UPDATE=1` writes it again.

mod errors_page;

use std::fs;
use std::path::Path;

use acrcred::api::custom_resource_definitions;
use anyhow::Context as _;
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;

use crate::harness::{REFRESH, Scene, config, manifest, run};

const CRD_HEADER: &str =
    "# Generated from src/api; to write it again: UPDATE=1 cargo test --test e2e manifests\n";

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
        let scene = Scene::with_own_time("columns").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let table = async |wide: &[&str]| {
            let mut kubectl = scene.control_plane.kubectl();
            let get = ["get", "acrcred", "--namespace", &scene.namespace];
            let output = kubectl.args(get).args(wide).output().await?;
            let text = String::from_utf8(output.stdout)?;
            let cells = |line: &str| -> Vec<String> {
                let cells = line.split("  ").map(str::trim);
                let filled = cells.filter(|cell| !cell.is_empty());
                filled.map(str::to_owned).collect()
            };
            anyhow::Ok(text.lines().map(cells).collect::<Vec<_>>())
        };
        let rows = table(&[]).await?;
        let narrow = [
            "NAME", "REGISTRY", "SECRET", "READY", "REASON", "REFRESH", "EXPIRES", "AGE",
        ];
        assert_eq!(rows[0], narrow);
        let status = object.status.context("a status")?;
        let expires = status.expires_at.context("an expiry")?.0.to_string();
        // Without a failing refresh, its column is empty.
        assert_eq!(
            rows[1][..6],
            ["acr", &contoso.server, "acr", "True", "Issued", &expires]
        );
        let rows = table(&["--output", "wide"]).await?;
        let wide = [&narrow[..], &["MESSAGE", "CLIENT-ID", "NEXT-REFRESH"]].concat();
        assert_eq!(rows[0], wide);
        assert_eq!(rows[1][8], scene.client_id);

        let throttle = Kind::Throttle {
            retry_after: Some(30),
            http_date: false,
            json: false,
        };
        let of_contoso = Match::registry(&contoso.server);
        let fault = Fault::new(Endpoint::Exchange, of_contoso, throttle);
        scene.emulator.add_fault(fault);
        scene.advance(REFRESH);
        objects
            .has("acr", "RefreshFailing", "True", "Throttled")
            .await?;
        let rows = table(&[]).await?;
        assert_eq!(rows[1][3..6], ["True", "Issued", "Throttled"]);
        Ok(())
    });
}
