//! The clusters' signing keys, fetched as Entra does: kept, and fetched again when an unknown key id turns up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::jwt::{Jwk, Parsed};
use crate::state::{Cluster, JwksSource};

/// Keys of one issuer that Entra looks at.
const MOST_KEYS: usize = 100;
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// Key sets by issuer.
#[derive(Debug, Default)]
pub struct JwksCache {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    keys: Arc<Vec<Jwk>>,
    fetched: i64,
    source: String,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

impl JwksCache {
    /// Whether one of the cluster's keys signed the assertion. An error means that the keys cannot be had.
    pub async fn verifies(&self, cluster: &Cluster, assertion: &Parsed) -> anyhow::Result<bool> {
        let source = serde_json::to_string(&cluster.jwks)?;
        let known = self.known.lock().unwrap().get(&cluster.issuer).cloned();
        if let Some(known) = known.filter(|known| known.source == source) {
            let fresh = Timestamp::now().as_second() < known.fetched + cluster.jwks_cache_seconds;
            if fresh || has_key(&known.keys, assertion) {
                return Ok(signed_by_one(&known.keys, assertion));
            }
        }
        let keys = Arc::new(load(&cluster.jwks).await?);
        let known = Known {
            keys: Arc::clone(&keys),
            fetched: Timestamp::now().as_second(),
            source,
        };
        self.known
            .lock()
            .unwrap()
            .insert(cluster.issuer.clone(), known);
        Ok(signed_by_one(&keys, assertion))
    }
}

fn has_key(keys: &[Jwk], assertion: &Parsed) -> bool {
    keys.iter().any(|key| key.kid == assertion.key_id)
}

fn signed_by_one(keys: &[Jwk], assertion: &Parsed) -> bool {
    keys.iter()
        .filter(|key| key.kid == assertion.key_id)
        .any(|key| key.verifies(assertion))
}

async fn load(source: &JwksSource) -> anyhow::Result<Vec<Jwk>> {
    let mut keys = match source {
        JwksSource::Inline { keys } => keys.clone(),
        JwksSource::File { file } => {
            let document: Document = serde_json::from_slice(&tokio::fs::read(file).await?)?;
            document.keys
        }
        JwksSource::Url {
            url,
            ca_file,
            bearer_token_file,
        } => fetch(url, ca_file.as_deref(), bearer_token_file.as_deref()).await?,
    };
    keys.truncate(MOST_KEYS);
    Ok(keys)
}

async fn fetch(url: &str, ca: Option<&str>, bearer: Option<&str>) -> anyhow::Result<Vec<Jwk>> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(trust(ca)?)
        .no_proxy()
        .timeout(FETCH_LIMIT)
        .build()?;
    let mut request = client.get(url);
    if let Some(file) = bearer {
        let token = tokio::fs::read_to_string(file)
            .await
            .context("bearer token")?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await?.error_for_status()?;
    let document: Document = serde_json::from_slice(&answer.bytes().await?)?;
    Ok(document.keys)
}

fn trust(ca_file: Option<&str>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca_file {
        for certificate in CertificateDer::pem_file_iter(file)? {
            roots.add(certificate?)?;
        }
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}
