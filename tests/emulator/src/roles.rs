//! Roles and what they allow.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::state::{Condition, Identity, Mode, Registry, State};

/// A role that says something about a registry's content.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Role {
    /// Pull and list everything.
    AcrPull,
    /// Pull and push everything.
    AcrPush,
    /// Delete everything, and nothing else.
    AcrDelete,
    /// Pull everything; nothing in attribute-based mode.
    Reader,
    /// Everything; nothing in attribute-based mode.
    Contributor,
    /// Everything; nothing in attribute-based mode.
    Owner,
    /// Pull, under a condition (attribute-based mode).
    #[serde(
        rename = "Container Registry Repository Reader",
        alias = "RepositoryReader"
    )]
    RepositoryReader,
    /// Pull and push, under a condition (attribute-based mode).
    #[serde(
        rename = "Container Registry Repository Writer",
        alias = "RepositoryWriter"
    )]
    RepositoryWriter,
    /// Pull, push and delete, under a condition (attribute-based mode).
    #[serde(
        rename = "Container Registry Repository Contributor",
        alias = "RepositoryContributor"
    )]
    RepositoryContributor,
    /// List repositories (attribute-based mode).
    #[serde(
        rename = "Container Registry Repository Catalog Lister",
        alias = "RepositoryCatalogLister"
    )]
    RepositoryCatalogLister,
}

const READ: &[&str] = &["pull", "metadata_read"];
const WRITE: &[&str] = &["pull", "push", "metadata_read", "metadata_write"];
const ALL: &[&str] = &["pull", "push", "delete", "metadata_read", "metadata_write"];
const DELETE: &[&str] = &["delete"];

impl Role {
    fn mode(self) -> Mode {
        match self {
            Self::RepositoryReader
            | Self::RepositoryWriter
            | Self::RepositoryContributor
            | Self::RepositoryCatalogLister => Mode::Abac,
            _ => Mode::Rbac,
        }
    }

    fn repository_actions(self) -> &'static [&'static str] {
        match self {
            Self::AcrPull | Self::Reader | Self::RepositoryReader => READ,
            Self::AcrPush | Self::RepositoryWriter => WRITE,
            Self::AcrDelete => DELETE,
            Self::Contributor | Self::Owner | Self::RepositoryContributor => ALL,
            Self::RepositoryCatalogLister => &[],
        }
    }

    fn lists_catalog(self) -> bool {
        match self.mode() {
            Mode::Rbac => self != Self::AcrDelete,
            Mode::Abac => self == Self::RepositoryCatalogLister,
        }
    }
}

/// What somebody may do at one registry.
#[derive(Clone, Debug)]
pub enum Rights {
    /// Everything (the admin user).
    All,
    /// Pull anything (anonymous).
    PullOnly,
    /// What these roles allow.
    Roles {
        /// Mode of the registry.
        mode: Mode,
        /// The roles in force.
        held: Vec<(Role, Option<Condition>)>,
    },
}

impl Rights {
    /// The rights that the identity has at the registry now.
    pub fn of(
        state: &State,
        identity: &Identity,
        registry: &Registry,
        has_come: impl Fn(Option<jiff::Timestamp>) -> bool,
    ) -> Self {
        let object_id = identity.object_id();
        let held = state
            .role_assignments
            .iter()
            .filter(|a| a.principal == object_id || a.principal == identity.client_id)
            .filter(|a| registry.serves(&a.registry) && has_come(a.effective_after))
            .filter(|a| a.role.mode() == registry.mode)
            .map(|a| (a.role, a.condition.clone()))
            .collect();
        Self::Roles {
            mode: registry.mode,
            held,
        }
    }

    /// Whether there is any right at all.
    pub fn any(&self) -> bool {
        !matches!(self, Self::Roles { held, .. } if held.is_empty())
    }

    /// Whether a wildcard in a repository's name is refused outright.
    pub fn refuses_wildcards(&self) -> bool {
        matches!(
            self,
            Self::Roles {
                mode: Mode::Abac,
                ..
            }
        )
    }

    /// Actions allowed on a repository.
    pub fn on_repository(&self, name: &str) -> BTreeSet<&'static str> {
        match self {
            Self::All => ALL.iter().copied().collect(),
            Self::PullOnly => READ.iter().copied().collect(),
            Self::Roles { held, .. } => held
                .iter()
                .filter(|(_, condition)| condition.as_ref().is_none_or(|c| c.covers(name)))
                .flat_map(|(role, _)| role.repository_actions().iter().copied())
                .collect(),
        }
    }

    /// Whether the repositories may be listed.
    pub fn on_catalog(&self) -> bool {
        match self {
            Self::All => true,
            Self::PullOnly => false,
            Self::Roles { held, .. } => held.iter().any(|(role, _)| role.lists_catalog()),
        }
    }

    /// The `permissions` claim of a refresh token: registry-wide rights in the words that ACR uses there.
    pub fn permissions(&self) -> Vec<&'static str> {
        let Self::Roles {
            mode: Mode::Rbac, ..
        } = self
        else {
            return Vec::new();
        };
        let actions = self.on_repository("");
        [("pull", "read"), ("push", "write"), ("delete", "delete")]
            .into_iter()
            .filter(|(action, _)| actions.contains(action))
            .map(|(_, word)| word)
            .collect()
    }
}

impl Condition {
    fn covers(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.equals.iter().any(|one| one.to_lowercase() == name)
            || self
                .starts_with
                .iter()
                .any(|prefix| name.starts_with(&prefix.to_lowercase()))
    }
}
