//! The payload of a `kubernetes.io/dockerconfigjson` Secret.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

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

/// Indicates that a payload is no Docker configuration. Says nothing of what it holds instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DockerConfigError;

#[derive(Serialize, Deserialize)]
struct Document<E> {
    auths: BTreeMap<String, E>,
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    auth: String,
    password: &'a str,
    username: &'a str,
}

#[derive(Deserialize)]
struct ReadEntry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    username: String,
}

// === impl DockerConfig ===

impl DockerConfig {
    /// The JSON document, one line, keys sorted.
    pub fn encode(&self) -> Vec<u8> {
        let entry = |token: &Token| -> serde_json::Value {
            let (username, password) = (ZERO_GUID, token.expose());
            let auth = STANDARD.encode(format!("{username}:{password}"));
            serde_json::json!(WrittenEntry {
                auth,
                password,
                username
            })
        };
        let auths = self
            .tokens
            .iter()
            .map(|(host, token)| (host.clone(), entry(token)))
            .collect();
        serde_json::json!(Document { auths })
            .to_string()
            .into_bytes()
    }

    /// Reads a payload back. An entry that acrcred would not have written in just this form (another
    /// user name, or an `auth` that says something else) is left out, which gets it replaced.
    pub fn decode(payload: &[u8]) -> Result<Self, DockerConfigError> {
        let document: Document<ReadEntry> =
            serde_json::from_slice(payload).map_err(|_| DockerConfigError)?;
        let tokens = document
            .auths
            .into_iter()
            .filter_map(|(host, entry)| Some((host, entry.into_token()?)))
            .collect();
        Ok(Self { tokens })
    }
}

impl ReadEntry {
    fn into_token(self) -> Option<Token> {
        let auth = STANDARD.encode(format!("{}:{}", self.username, self.password));
        (self.username == ZERO_GUID && self.auth == auth).then(|| Token::new(self.password))
    }
}

impl fmt::Display for DockerConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payload is not a Docker configuration")
    }
}

impl std::error::Error for DockerConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DockerConfig {
        let tokens = [("b.azurecr.io", "t2"), ("a.azurecr.io", "t1")];
        DockerConfig {
            tokens: tokens
                .map(|(host, token)| (host.to_owned(), Token::new(token.to_owned())))
                .into(),
        }
    }

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

    #[test]
    fn what_was_written_is_read_back() {
        assert_eq!(DockerConfig::decode(&config().encode()), Ok(config()));
        assert_eq!(
            DockerConfig::decode(br#"{"auths":{}}"#),
            Ok(DockerConfig::default())
        );
    }

    #[test]
    fn an_edited_entry_counts_as_absent() {
        let text = String::from_utf8(config().encode()).unwrap();
        let edited = text.replace("\"password\":\"t1\"", "\"password\":\"t9\"");
        let read = DockerConfig::decode(edited.as_bytes()).unwrap();
        assert_eq!(read.tokens.keys().collect::<Vec<_>>(), ["b.azurecr.io"]);
    }

    #[test]
    fn what_is_no_docker_configuration_is_an_error() {
        for payload in [
            "",
            "[]",
            "{}",
            "{\"auths\":[]}",
            "{\"auths\":{\"a\":1}}",
            "\u{0}",
        ] {
            assert_eq!(
                DockerConfig::decode(payload.as_bytes()),
                Err(DockerConfigError),
                "{payload}"
            );
        }
    }
}
