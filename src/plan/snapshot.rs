//! A Secret, reduced to what decisions rest on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Entitlement;
use super::minted::Minted;
use crate::api::{ADOPT_ANNOTATION, MINTED_ANNOTATION, OWNER_UID_ANNOTATION};
use crate::credential::{Claims, Digest, DockerConfig, Lifetime, Token};

pub(super) const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
/// As long as the longest answer that a token is taken from, in bytes.
const LONGEST_TOKEN: usize = 64 * 1024;
pub(super) const PAYLOAD_KEY: &str = ".dockerconfigjson";

/// The Secret as the API server last showed it to us.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// `metadata.uid`, which writes carry so that a replaced Secret is not seized.
    pub uid: String,
    /// `metadata.resourceVersion`, likewise.
    pub resource_version: String,
    /// Whether it has the type that we write.
    pub is_docker_config: bool,
    /// `immutable: true`.
    pub is_immutable: bool,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) owner_uid: Option<String>,
    pub(super) adopt: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) minted: Minted,
    /// Entries by host. Those without a lifetime hold what is no ACR token.
    pub(super) tokens: BTreeMap<String, (Token, Option<Lifetime>)>,
    /// Whether the payload is byte for byte what its entries encode to.
    pub(super) is_exact: bool,
}

/// An entry that we minted: its token has the digest that the annotation states.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it works.
    pub lifetime: Lifetime,
    pub(super) minted_for: Digest,
    pub(super) impersonated: bool,
}

// === impl Snapshot ===

impl Snapshot {
    /// Reads `secret`. `known` are lifetimes of tokens that this process received or saw before; others
    /// are judged by their claims, as of `now`.
    pub fn of(secret: &Secret, known: &BTreeMap<String, Lifetime>, now: Timestamp) -> Self {
        let metadata = &secret.metadata;
        let annotations = metadata.annotations.clone().unwrap_or_default();
        let payload = secret.data.as_ref().and_then(|data| data.get(PAYLOAD_KEY));
        let config = payload.and_then(|payload| DockerConfig::decode(&payload.0).ok());
        let config = config.map(|mut config| {
            // None of ours is that long: kept and parsed at every look, it would cost whoever else is served.
            config
                .tokens
                .retain(|_, token| token.expose().len() <= LONGEST_TOKEN);
            config
        });
        let is_exact = match (&config, payload) {
            (Some(config), Some(payload)) => config.encode() == payload.0,
            _ => false,
        };
        let lifetime = |token: &Token| {
            let received = known.get(token.digest().as_str()).copied();
            received.or_else(|| {
                let claims = Claims::parse(token.expose()).ok()?;
                Some(Lifetime::found(claims, now))
            })
        };
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            is_docker_config: secret.type_.as_deref() == Some(SECRET_TYPE),
            is_immutable: secret.immutable == Some(true),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            owner_uid: annotations.get(OWNER_UID_ANNOTATION).cloned(),
            adopt: annotations.get(ADOPT_ANNOTATION).cloned(),
            labels: metadata.labels.clone().unwrap_or_default(),
            minted: annotations
                .get(MINTED_ANNOTATION)
                .map(|text| Minted::parse(text))
                .unwrap_or_default(),
            annotations,
            tokens: config
                .unwrap_or_default()
                .tokens
                .into_iter()
                .map(|(host, token)| {
                    let lifetime = lifetime(&token);
                    (host, (token, lifetime))
                })
                .collect(),
            is_exact,
        }
    }

    /// Lifetimes by token digest, for the next [`Snapshot::of`]: a token must not grow younger each time
    /// that it is read.
    pub fn lifetimes(&self) -> BTreeMap<String, Lifetime> {
        self.tokens
            .values()
            .filter_map(|(token, lifetime)| {
                Some((token.digest().as_str().to_owned(), (*lifetime)?))
            })
            .collect()
    }

    /// The token for a registry that the object is entitled to, unless the token may be used for more. Its
    /// own claims tell: the annotation holds digests only.
    pub(super) fn token(&self, entitlement: &Entitlement) -> Option<&Token> {
        let (token, _) = self.tokens.get(entitlement.server.as_str())?;
        entitlement.scope.covers(token).then_some(token)
    }

    /// The same as an entry, if it is one that we minted.
    pub fn minted_entry(&self, entitlement: &Entitlement) -> Option<Entry> {
        let token = self.token(entitlement)?;
        let host = entitlement.server.as_str();
        let (_, lifetime) = self.tokens.get(host)?;
        let minted = self.minted.registries.get(host)?;
        (token.digest().as_str() == minted.token).then_some(Entry {
            lifetime: (*lifetime)?,
            minted_for: Digest::stated(&minted.minted_for),
            impersonated: minted.impersonated,
        })
    }
}
