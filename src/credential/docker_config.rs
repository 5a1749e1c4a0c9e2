//! The payload of a `kubernetes.io/dockerconfigjson` Secret.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Token;

/// The user name that ACR wants beside a token (Azure/acr, AAD-OAuth.md).
const ZERO_GUID: &str = "00000000-0000-0000-0000-000000000000";

/// Registry hosts and the token for each; encodes to the same bytes for the same content.
///
/// `username`, `password` and `auth` are all written: the kubelet reads the first two or `auth`, podman
/// and skopeo need `auth`. `identitytoken` is not: the kubelet ignores it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// Tokens by host.
    pub tokens: BTreeMap<String, Token>,
}

// === impl DockerConfig ===

impl DockerConfig {
    /// The JSON document, one line, keys sorted.
    pub fn encode(&self) -> Vec<u8> {
        let entry = |token: &Token| {
            let password = token.expose();
            let auth = STANDARD.encode(format!("{ZERO_GUID}:{password}"));
            json!({ "auth": auth, "password": password, "username": ZERO_GUID })
        };
        let entries = self.tokens.iter();
        let auths: Map<String, Value> = entries
            .map(|(host, token)| (host.clone(), entry(token)))
            .collect();
        json!({ "auths": auths }).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_what_the_kubelet_and_podman_read() {
        let one = DockerConfig {
            tokens: [("a.azurecr.io".to_owned(), Token::new("t1".to_owned()))].into(),
        };
        let expected = format!(
            r#"{{"auths":{{"a.azurecr.io":{{"auth":"{}","password":"t1","username":"{ZERO_GUID}"}}}}}}"#,
            STANDARD.encode(format!("{ZERO_GUID}:t1"))
        );
        assert_eq!(String::from_utf8(one.encode()).unwrap(), expected);
    }
}
