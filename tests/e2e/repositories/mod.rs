//! Credentials that are limited to repositories.

mod changes;
mod grants;
mod refresh;

use anyhow::Result;
use azure_emulator::journal::{Endpoint, Entry};
use azure_emulator::roles::Role;
use azure_emulator::state::{Condition, Mode, RoleAssignment};

use crate::harness::{Scene, TestRegistry};

const APP: &str = "team/app";
const OTHER: &str = "team/other";

/// A registry of the classic mode with images in both repositories, which the test's identity may pull.
async fn classic(scene: &Scene, name: &str) -> Result<TestRegistry> {
    let registry = scene.registry(name).await?;
    scene.push(&registry, OTHER).await?;
    Ok(registry)
}

/// The same in attribute-based mode, with the right to pull these.
async fn attribute_based(scene: &Scene, name: &str, readable: &[&str]) -> Result<TestRegistry> {
    let abac = |registry: &mut azure_emulator::registry::Registry| registry.mode = Mode::Abac;
    let registry = scene.empty_registry("azurecr.io", name, abac)?;
    let_read(scene, &registry, readable)?;
    for repository in [APP, OTHER] {
        scene.push(&registry, repository).await?;
    }
    Ok(registry)
}

/// Lets the test's identity read these repositories of a registry, and no others.
fn let_read(scene: &Scene, registry: &TestRegistry, repositories: &[&str]) -> Result<()> {
    let mut role = RoleAssignment::new(&scene.client_id, &registry.server, Role::RepositoryReader);
    role.condition = Some(Condition {
        equals: repositories.iter().map(ToString::to_string).collect(),
        ..Condition::default()
    });
    scene.emulator.update(|state| {
        let roles = &mut state.role_assignments;
        roles.retain(|held| held.registry != registry.server || held.role != role.role);
        roles.push(role);
    })
}

/// Requests of acrcred for limited tokens; crane's are others.
fn limits(scene: &Scene) -> Vec<Entry> {
    let mut entries = scene.journal(Endpoint::Token);
    entries.retain(|entry| entry.grant_type.as_deref() == Some("refresh_token"));
    entries
}

fn image(registry: &TestRegistry, repository: &str) -> String {
    format!("{}/{repository}:v1", registry.server)
}
