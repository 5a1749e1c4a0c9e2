//! The annotation that says what each entry of a Secret was minted for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Content of `acrcred.dev/minted`. Digests only; a forged one harms its own namespace and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Minted {
    /// Version of this format.
    v: u8,
    /// By login server.
    #[serde(default)]
    pub registries: BTreeMap<String, MintedEntry>,
    /// Keys of the labels that the spec asked for, so that one it no longer asks for is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Keys of the annotations likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

/// One entry of the Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MintedEntry {
    /// Digest of the identity and server that it was minted for.
    #[serde(rename = "for")]
    pub minted_for: String,
    /// Digest of the token.
    pub token: String,
}

const VERSION: u8 = 1;

// === impl Minted ===

impl Minted {
    pub fn new(labels: Vec<String>, annotations: Vec<String>) -> Self {
        Self {
            v: VERSION,
            registries: BTreeMap::new(),
            labels,
            annotations,
        }
    }

    /// What cannot be read says nothing, and every entry is then minted anew.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text)
            .ok()
            .filter(|minted: &Self| minted.v == VERSION)
            .unwrap_or_default()
    }

    pub fn encode(&self) -> String {
        serde_json::json!(self).to_string()
    }
}
