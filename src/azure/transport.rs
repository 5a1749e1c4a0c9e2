//! The one way out to Azure: guarded so that a token goes where it should and nothing comes back
//! that we did not ask for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Body, IntoUrl};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::credential::names::is_guid;
use crate::credential::{Cause, Hop, MintError};

/// Answers of Entra and ACR are a few kilobytes; more is not theirs.
const BODY_LIMIT: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte sent to the last received.
const DEADLINE: Duration = Duration::from_secs(10);
/// Below the idle time after which Azure's load balancers drop a connection silently (240 s).
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Requests under way at once to one registry, or to one tenant of an authority.
const IN_FLIGHT: usize = 16;
/// From this many limits on, unused ones are dropped: users choose the hosts.
const MANY_HOSTS: usize = 256;

/// How requests leave.
#[derive(Clone, Debug, Default)]
pub struct TransportConfig {
    /// `HTTPS_PROXY`: a proxy for everything that `no_proxy` does not name.
    pub https_proxy: Option<String>,
    /// `NO_PROXY`: comma-separated hosts, domains and CIDR blocks that are reached directly.
    pub no_proxy: Option<String>,
    /// `SSL_CERT_FILE`: PEM certificates to trust instead of the platform's.
    pub ca_file: Option<PathBuf>,
}

/// Indicates that the HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The proxy is no URL.
    #[error("HTTPS_PROXY is not a proxy URL; use http://HOST:PORT")]
    Proxy,
    /// The certificate file cannot be used.
    #[error("SSL_CERT_FILE {0} is not a readable file of PEM certificates")]
    Certificates(PathBuf),
    /// TLS could not be initialised.
    #[error("cannot initialise TLS; install ca-certificates, or let SSL_CERT_FILE name a PEM file")]
    Tls,
}

/// A shared HTTPS client: no redirects, no plain HTTP, a deadline, a body limit.
#[derive(Clone, Debug)]
pub struct Transport {
    client: reqwest::Client,
    limits: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

// === impl Transport ===

impl Transport {
    /// Builds the client.
    pub fn new(config: &TransportConfig) -> Result<Self, TransportError> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(DEADLINE)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(2)
            .user_agent(concat!("acrcred/", env!("CARGO_PKG_VERSION")));
        if let Some(url) = &config.https_proxy {
            let no_proxy = config
                .no_proxy
                .as_deref()
                .and_then(reqwest::NoProxy::from_string);
            let proxy = reqwest::Proxy::https(url).map_err(|_| TransportError::Proxy)?;
            builder = builder.proxy(proxy.no_proxy(no_proxy));
        }
        if let Some(path) = &config.ca_file {
            let unusable = || TransportError::Certificates(path.clone());
            let pem = std::fs::read(path).map_err(|_| unusable())?;
            let trusted = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| unusable())?;
            if trusted.is_empty() {
                return Err(unusable());
            }
            builder = builder.tls_certs_only(trusted);
        }
        Ok(Self {
            client: builder.build().map_err(|_| TransportError::Tls)?,
            limits: Arc::default(),
        })
    }

    /// POSTs a form to `upstream`, which is also what the number of requests under way is bounded for, and
    /// returns the body of a 200. Any other answer is what `refused` makes of its status, body and `Retry-After`.
    pub(super) async fn post(
        &self,
        hop: Hop,
        upstream: &str,
        url: impl IntoUrl,
        form: impl Into<Body>,
        refused: impl FnOnce(u16, &[u8], Option<SignedDuration>) -> MintError,
    ) -> Result<Zeroizing<Vec<u8>>, MintError> {
        let limit = self.limit(upstream);
        // The semaphore is never closed.
        let _permit = limit.acquire().await;
        let unavailable = |_| MintError::new(hop, Cause::Unavailable);
        let mut response = self
            .client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form)
            .send()
            .await
            .map_err(unavailable)?;
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(MintError {
                    status: Some(status),
                    ..MintError::new(hop, Cause::Malformed)
                });
            }
            body.extend_from_slice(&chunk);
        }
        if status == 200 {
            return Ok(body);
        }
        let error = refused(status, &body, retry_after(response.headers()));
        tracing::warn!(
            %hop,
            upstream,
            status,
            aadsts = error.code,
            request_id = request_id(response.headers()),
            "a token was refused",
        );
        Err(error)
    }

    fn limit(&self, name: &str) -> Arc<Semaphore> {
        let mut limits = self.limits.lock();
        if limits.len() >= MANY_HOSTS {
            // One that nobody holds limits nobody.
            limits.retain(|_, limit| Arc::strong_count(limit) > 1);
        }
        limits
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(IN_FLIGHT)))
            .clone()
    }
}

/// A body that is a JSON object. Derived types would take a list of their fields as well.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok())?
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which is taken relative to the answer's own
/// `Date` so that a skewed clock does not count.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<SignedDuration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit mean "very long", which the cap deals with.
        return Some(SignedDuration::from_secs(text.parse().unwrap_or(i64::MAX)));
    }
    let date = |text: &str| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
    let base = date(headers.get(DATE)?.to_str().ok()?)?;
    Some(date(text)?.duration_since(base))
}

/// The upstream's id of this request, where it is shaped like a GUID.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    ["x-ms-request-id", "x-ms-correlation-request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .filter(|id| is_guid(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let seconds =
            |pairs: &[(&str, &str)]| retry_after(&headers(pairs)).map(|after| after.as_secs());
        assert_eq!(seconds(&[("retry-after", "60")]), Some(60));
        assert_eq!(seconds(&[("retry-after", " 0 ")]), Some(0));
        assert_eq!(
            seconds(&[
                ("date", "Wed, 21 Oct 2026 07:28:00 GMT"),
                ("retry-after", "Wed, 21 Oct 2026 07:29:30 GMT"),
            ]),
            Some(90)
        );
        assert_eq!(
            seconds(&[("retry-after", "99999999999999999999999999")]),
            Some(i64::MAX)
        );
        for text in ["", "-5", "soon", "1e9", "Wed, 21 Oct 2026 07:29:30 GMT"] {
            assert_eq!(seconds(&[("retry-after", text)]), None, "{text}");
        }
    }

    #[test]
    fn only_guid_shaped_ids_are_kept() {
        let is_kept = |value: &str| request_id(&headers(&[("x-ms-request-id", value)])).is_some();
        assert!(is_kept("6f9619ff-8b86-d011-b42d-00c04fc964ff"));
        assert!(!is_kept("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0"));
    }
}
