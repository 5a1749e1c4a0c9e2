//! What a pull Secret holds. Tokens stay inside: they are compared by their digests.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A `kubernetes.io/dockerconfigjson` Secret.
pub struct PullSecret {
    pub uid: String,
    /// Its `.dockerconfigjson`.
    pub docker_config: Vec<u8>,
    /// By login server.
    tokens: BTreeMap<String, String>,
}

impl PullSecret {
    pub fn read(secret: &Secret) -> Result<Self> {
        let kind = secret.type_.as_deref().unwrap_or_default();
        ensure!(
            kind == "kubernetes.io/dockerconfigjson",
            "the Secret's type is {kind:?}"
        );
        let data = secret
            .data
            .as_ref()
            .and_then(|data| data.get(".dockerconfigjson"));
        let docker_config = data
            .context("the Secret has no .dockerconfigjson")?
            .0
            .clone();
        let uid = secret
            .metadata
            .uid
            .clone()
            .context("a Secret without UID")?;
        let tokens = tokens(&serde_json::from_slice(&docker_config)?)?;
        Ok(Self {
            uid,
            docker_config,
            tokens,
        })
    }

    /// A token's SHA-256, enough of it to tell one from another.
    pub fn digest(&self, server: &str) -> Result<String> {
        let digest = Sha256::digest(self.token(server)?);
        Ok(digest.iter().take(6).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    /// Whether it holds other tokens than `before` for all of its registries.
    pub fn has_rotated_since(&self, before: &Self) -> bool {
        self.tokens
            .iter()
            .all(|(server, token)| before.tokens.get(server) != Some(token))
    }

    /// When the first of its tokens expires, as the tokens themselves say.
    pub fn expires_at(&self) -> Result<Timestamp> {
        let expiries = self.tokens.values().map(|token| expiry(token));
        let expiries = expiries.collect::<Result<Vec<_>>>()?;
        expiries
            .into_iter()
            .min()
            .context("the Secret holds no token")
    }

    fn token(&self, server: &str) -> Result<&str> {
        let token = self.tokens.get(server);
        Ok(token.with_context(|| format!("the Secret has no entry for {server}"))?)
    }
}

fn tokens(config: &Value) -> Result<BTreeMap<String, String>> {
    let entries = config["auths"]
        .as_object()
        .context("no `auths` in the Secret")?;
    let token = |(server, entry): (&String, &Value)| {
        let token = entry["password"].as_str();
        let token = token.with_context(|| format!("no password for {server} in the Secret"))?;
        Ok((server.clone(), token.to_owned()))
    };
    entries.iter().map(token).collect()
}

/// `exp` of a JWT.
fn expiry(token: &str) -> Result<Timestamp> {
    let claims = token.split('.').nth(1).context("a token that is no JWT")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    Ok(Timestamp::from_second(
        claims["exp"].as_i64().context("a token without `exp`")?,
    )?)
}
