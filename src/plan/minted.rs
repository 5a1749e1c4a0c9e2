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
    /// Whether it was minted with the identity of a `ServiceAccount` of the object's namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub impersonated: bool,
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

#[cfg(test)]
mod fuzz {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{config, json, text};

    proptest! {
        #![proptest_config(config(2_000))]

        #[test]
        fn an_annotation_is_read_back_as_written(
            registries in btree_map(text(), (text(), text()), 0..4),
            keys in vec(text(), 0..4),
        ) {
            let entry = |(minted_for, token): (String, String)| MintedEntry {
                impersonated: token.len() % 2 == 0,
                minted_for,
                token,
            };
            let minted = Minted {
                registries: registries.into_iter().map(|(server, e)| (server, entry(e))).collect(),
                ..Minted::new(keys.clone(), keys)
            };
            prop_assert_eq!(Minted::parse(&minted.encode()), minted);
        }

        #[test]
        fn a_forged_annotation_says_what_is_well_formed_or_nothing(
            text in prop_oneof![
                text(),
                json().prop_map(|json| json.to_string()),
                (json(), json()).prop_map(|(version, entry)| {
                    serde_json::json!({"v": version, "registries": {"a": entry}}).to_string()
                }),
                json().prop_map(|entry| {
                    serde_json::json!({"v": 1, "registries": {"a": {"for": "f", "token": entry}}}).to_string()
                }),
            ],
        ) {
            let minted = Minted::parse(&text);
            prop_assert!(minted == Minted::default() || minted.v == VERSION);
            let again = Minted::parse(&minted.encode());
            prop_assert!(again == minted || minted == Minted::default());
        }
    }
}
