//! What is made from other files equals what is committed. `UPDATE=1` writes it again.

use std::fs;

use controlplane::Tool;
use serde_json::json;

use super::readme;
use crate::harness::{Helm, chart, config, run};
use crate::manifests::assert_same;

const CRD: &str = "acrcred.dev_acrcredentials.yaml";
const INSTALL_HEADER: &str = "\
# Rendered from charts/acrcred with its default values; to write it again: make generate
# To change an image or a flag, use config/default as the base of a kustomization of your own, or the chart.
---
apiVersion: v1
kind: Namespace
metadata:
  name: acrcred-system
  labels:
    app.kubernetes.io/name: acrcred
";
/// Helm does not manage what kubectl applies.
const MARKS_OF_HELM: [&str; 4] = [
    "# Source: ",
    "helm.sh/chart: ",
    "app.kubernetes.io/managed-by: Helm",
    "app.kubernetes.io/instance: ",
];

// In one test, since each is made from the one before.
#[test]
fn the_chart_and_the_single_file_are_what_they_are_made_from() {
    run(async {
        let crd = fs::read_to_string(config(&format!("crd/{CRD}")))?;
        assert_same(&chart(&format!("files/crds/{CRD}")), &crd);

        let page = chart("README.md");
        let table = readme::table(&fs::read_to_string(chart("values.yaml"))?)?;
        let text = readme::insert(&fs::read_to_string(&page)?, &table)?;
        assert_same(&page, &text);

        let helm = Helm::new(Tool::Helm)?;
        let rendered = helm
            .template("acrcred", "acrcred-system", &json!({}))
            .await?;
        assert_same(&config("install.yaml"), &single_file(&rendered));

        let other = Helm::new(Tool::Helm3)?;
        let other = other
            .template("acrcred", "acrcred-system", &json!({}))
            .await?;
        assert_eq!(
            super::objects::by_name(&other)?,
            super::objects::by_name(&rendered)?,
            "both versions of helm render the same"
        );
        Ok(())
    });
}

fn single_file(rendered: &str) -> String {
    let lines = rendered.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !MARKS_OF_HELM.iter().any(|mark| line.starts_with(mark))
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    format!("{INSTALL_HEADER}{text}\n")
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = fs::read_to_string(chart("Chart.yaml")).expect("Chart.yaml");
    let version = format!("appVersion: {}", env!("CARGO_PKG_VERSION"));
    assert!(chart.lines().any(|line| line == version), "{chart}");
}
