//! Scopes: what a client asks of the token endpoint, and what it gets.

use serde::{Deserialize, Serialize};

use crate::roles::Rights;

/// An entry of an access token's `access` claim.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Repository name, or `catalog`.
    pub name: String,
    /// What may be done.
    pub actions: Vec<String>,
}

impl Access {
    /// Reads `type(:class)?:name:actions`, in the way of the Docker token specification.
    pub fn read(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        Some(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    }

    /// Whether the name stands for more than one repository.
    pub fn is_wildcard(&self) -> bool {
        self.kind == "repository" && self.name.contains('*')
    }

    /// The part of this that the rights allow, and the source token's list, if there is one; nothing if no action is left.
    pub fn granted(&self, rights: &Rights, limit: Option<&[Self]>) -> Option<Self> {
        let listed = |action: &str| {
            limit.is_none_or(|list| {
                list.iter().any(|entry| {
                    entry.kind == self.kind
                        && entry.name == self.name
                        && entry.actions.iter().any(|a| a == action || a == "*")
                })
            })
        };
        let allowed = self.allowed(rights);
        let actions: Vec<String> = allowed
            .into_iter()
            .filter(|action| listed(action))
            .collect();
        (!actions.is_empty()).then(|| Self {
            actions,
            ..self.clone()
        })
    }

    fn allowed(&self, rights: &Rights) -> Vec<String> {
        let asked = |action: &str| self.actions.iter().any(|a| a == action || a == "*");
        match self.kind.as_str() {
            "repository" => rights
                .on_repository(&self.name)
                .into_iter()
                .filter(|action| asked(action))
                .map(str::to_owned)
                .collect(),
            "registry" if self.name == "catalog" && rights.on_catalog() && asked("*") => {
                vec!["*".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}
