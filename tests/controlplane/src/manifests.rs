//! Applies manifests as `kubectl apply --server-side` would.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, ApiCapabilities, ApiResource, Scope},
    runtime::{conditions, wait::await_condition},
};
use tokio::time::timeout;

use crate::eventually;

const FIELD_MANAGER: &str = "controlplane";
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);
/// Discovery follows a new definition a little later than its condition does.
const DISCOVERED_WITHIN: Duration = Duration::from_secs(10);

/// Objects to apply.
#[derive(Clone, Debug)]
pub enum Manifests {
    /// A YAML file, or a folder: every `*.yaml` in it, in the order of their names.
    Path(PathBuf),
    /// YAML, any number of documents.
    Text(String),
}

impl From<&Path> for Manifests {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<PathBuf> for Manifests {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&str> for Manifests {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Manifests {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Manifests {
    fn objects(&self) -> Result<Vec<DynamicObject>> {
        match self {
            Self::Text(text) => parse(text),
            Self::Path(path) if path.is_dir() => {
                let files = yaml_files(path)?;
                ensure!(!files.is_empty(), "no YAML file in {}", path.display());
                let objects = files
                    .iter()
                    .map(|file| read(file))
                    .collect::<Result<Vec<_>>>()?;
                Ok(objects.into_iter().flatten().collect())
            }
            Self::Path(path) => read(path),
        }
    }
}

fn read(file: &Path) -> Result<Vec<DynamicObject>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text).with_context(|| format!("in {}", file.display()))
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
    });
    files.sort();
    Ok(files)
}

fn parse(text: &str) -> Result<Vec<DynamicObject>> {
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).context("not YAML")?;
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| serde_json::from_value(document).context("not a Kubernetes object"))
        .collect()
}

/// Applies `manifests` as the user of `client`: namespaces and custom resource definitions first (awaiting the latter), then the
/// rest in its order. A namespaced object that names no namespace goes to `namespace`.
pub async fn apply(
    client: &Client,
    manifests: impl Into<Manifests>,
    namespace: &str,
) -> Result<Vec<DynamicObject>> {
    let (definitions, others): (Vec<_>, Vec<_>) = manifests
        .into()
        .objects()?
        .into_iter()
        .partition(|object| kind(object) == "CustomResourceDefinition");
    let (namespaces, others): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|object| kind(object) == "Namespace");

    let mut session = Session {
        client,
        namespace,
        known: HashMap::new(),
    };
    let mut applied = Vec::new();
    for object in namespaces {
        applied.push(session.apply(object).await?);
    }
    applied.extend(define(client, definitions).await?);
    for object in others {
        applied.push(session.apply(object).await?);
    }
    Ok(applied)
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

/// Applies custom resource definitions side by side and waits until the server serves them.
async fn define(client: &Client, definitions: Vec<DynamicObject>) -> Result<Vec<DynamicObject>> {
    let resource = ApiResource::erase::<CustomResourceDefinition>(&());
    let dynamic: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let typed: Api<CustomResourceDefinition> = Api::all(client.clone());
    try_join_all(definitions.iter().map(async |definition| {
        let applied = patch(&dynamic, definition).await?;
        let name = applied.name_any();
        timeout(
            ESTABLISHED_WITHIN,
            await_condition(typed.clone(), &name, conditions::is_crd_established()),
        )
        .await
        .with_context(|| format!("{name} was not established within {ESTABLISHED_WITHIN:?}"))??;
        Ok(applied)
    }))
    .await
}

/// Remembers what discovery said.
struct Session<'a> {
    client: &'a Client,
    namespace: &'a str,
    known: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
}

impl Session<'_> {
    async fn apply(&mut self, object: DynamicObject) -> Result<DynamicObject> {
        let (resource, capabilities) = self.discover(&object).await?;
        let api: Api<DynamicObject> = match (&capabilities.scope, &object.metadata.namespace) {
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), &resource),
            (Scope::Namespaced, own) => Api::namespaced_with(
                self.client.clone(),
                own.as_deref().unwrap_or(self.namespace),
                &resource,
            ),
        };
        patch(&api, &object).await
    }

    async fn discover(&mut self, object: &DynamicObject) -> Result<(ApiResource, ApiCapabilities)> {
        let types = object
            .types
            .as_ref()
            .with_context(|| format!("{} has no kind", object.name_any()))?;
        let kind = GroupVersionKind::try_from(types)?;
        if !self.known.contains_key(&kind) {
            let what = format!("the server serves {} {}", types.api_version, types.kind);
            let found = eventually(DISCOVERED_WITHIN, &what, async || {
                discovery::pinned_kind(self.client, &kind)
                    .await
                    .map_err(|error| error.to_string())
            })
            .await?;
            self.known.insert(kind.clone(), found);
        }
        Ok(self.known[&kind].clone())
    }
}

async fn patch(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<DynamicObject> {
    let Some(name) = object.metadata.name.as_deref() else {
        bail!("a {} has no name", kind(object))
    };
    let params = PatchParams::apply(FIELD_MANAGER)
        .force()
        .validation_strict();
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("cannot apply {} {name}", kind(object)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_are_skipped() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: \"1\"}\n---\n";
        let objects = Manifests::from(text).objects().unwrap();
        assert_eq!(objects.len(), 1);
        assert_eq!(kind(&objects[0]), "ConfigMap");
    }
}
