//! Assertion to Entra token (OAuth 2.0 client credentials with a federated credential).

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential as _;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::request::{Body, Request};
use azure_core::http::{
    AsyncRawResponse, ClientMethodOptions, ClientOptions, HttpClient, RetryOptions, StatusCode,
    Transport as AzureTransport,
};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use super::transport::{Transport, object};
use crate::credential::{
    Cause, Credential, EnabledCloud, Hop, Identity, Lifetime, MAX_LIFE, MintError, Token,
    saturating_add,
};

/// Asks Entra, in `cloud`, for a token of `identity`, proving it with `assertion`. `now` is when the request
/// leaves.
pub(super) async fn request_token(
    transport: &Transport,
    cloud: &EnabledCloud,
    identity: &Identity,
    assertion: Token,
    now: Timestamp,
) -> Result<Credential, MintError> {
    let mut configuration = CustomConfiguration::default();
    configuration.authority_host = cloud.authority.as_str().to_owned();
    let credential = ClientAssertionCredential::new(
        identity.tenant_id.as_str().to_owned(),
        identity.client_id.as_str().to_owned(),
        Presented(assertion),
        Some(ClientAssertionCredentialOptions {
            client_options: ClientOptions {
                // The object's own backoff is the retry; the SDK's would multiply it.
                retry: RetryOptions::none(),
                transport: Some(AzureTransport::new(Arc::new(EntraClient {
                    transport: transport.clone(),
                    tenant: format!("{}/{}", cloud.authority.host(), identity.tenant_id),
                }))),
                cloud: Some(Arc::new(CloudConfiguration::from(configuration))),
                ..ClientOptions::default()
            },
        }),
    )
    .map_err(|error| typed(&error))?;
    let answer = credential
        .get_token(&[&cloud.audience.scope()], None)
        .await
        .map_err(|error| typed(&error))?;
    let token = Token::new(answer.token.secret().to_owned());
    // The SDK turns `expires_in` into a time of the system clock; only the difference is a fact.
    let life = (answer.expires_on - OffsetDateTime::now_utc()).whole_seconds();
    let life = SignedDuration::from_secs(life).clamp(SignedDuration::ZERO, MAX_LIFE);
    Ok(Credential {
        token,
        lifetime: Lifetime {
            start: now,
            end: saturating_add(now, life),
        },
        received_at: now,
    })
}

/// Our own typed error, which travels through the SDK as the source of its error. What else the SDK
/// may say is never looked at: it can quote the answer.
fn typed(error: &azure_core::Error) -> MintError {
    let error: &(dyn Error + 'static) = error;
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref().copied())
        .unwrap_or_else(malformed)
}

/// An assertion that is presented once.
#[derive(Debug)]
struct Presented(Token);

#[async_trait]
impl ClientAssertion for Presented {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}

/// Our transport in the SDK's shape. Every answer that is not 200 becomes a [`MintError`] here: the
/// SDK (1.0) loses the AADSTS code when the text has an escape, and the status when it is no JSON.
struct EntraClient {
    transport: Transport,
    /// With its authority.
    tenant: String,
}

/// What we take over of an answer with a token, and all that the SDK needs.
#[derive(Deserialize, Serialize, ZeroizeOnDrop)]
struct TokenAnswer {
    access_token: String,
    expires_in: i64,
}

/// The body of an answer with a token, rewritten for the SDK: it (1.0) adds `expires_in` to the time of day
/// unchecked, and panics where that leaves the calendar.
pub(super) fn granted(body: &[u8]) -> Result<Vec<u8>, MintError> {
    let mut answer: TokenAnswer = object(body).ok_or_else(malformed)?;
    if answer.access_token.is_empty() {
        return Err(malformed());
    }
    answer.expires_in = answer.expires_in.clamp(0, MAX_LIFE.as_secs());
    serde_json::to_vec(&answer).map_err(|_| malformed())
}

/// The failure that an answer without a token reports.
pub(super) fn refused(status: u16, body: &[u8], retry_after: Option<SignedDuration>) -> MintError {
    let answer: ErrorAnswer = object(body).unwrap_or_default();
    let error = MintError::entra(status, &answer.error_codes, retry_after);
    let cause = match error.cause {
        Cause::Throttled => Cause::Throttled,
        _ if answer.error == PASSING => Cause::Unavailable,
        cause => cause,
    };
    MintError { cause, ..error }
}

fn malformed() -> MintError {
    MintError::new(Hop::Entra, Cause::Malformed)
}

/// The one OAuth error that says more than the code: passing trouble, whatever the status (learn.microsoft.com,
/// "OAuth 2.0 client credentials flow").
const PASSING: &str = "temporarily_unavailable";

/// The parts of an error answer that are looked at. `error_description` may echo anything and is left unread;
/// `error` is compared and goes no further.
#[derive(Default, Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    error_codes: Vec<u32>,
}

// === impl EntraClient ===

impl EntraClient {
    async fn send(&self, request: &Request) -> Result<AsyncRawResponse, MintError> {
        let Body::Bytes(form) = request.body() else {
            return Err(malformed());
        };
        let (url, form) = (request.url().clone(), form.clone());
        let body = self
            .transport
            .post(Hop::Entra, &self.tenant, url, form, refused)
            .await?;
        let (body, headers) = (granted(&body)?, Headers::default());
        Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, headers, body))
    }
}

#[async_trait]
impl HttpClient for EntraClient {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.send(request)
            .await
            .map_err(|error| azure_core::Error::new(ErrorKind::Other, error))
    }
}

impl fmt::Debug for EntraClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_error_survives_the_sdk() {
        let ours = MintError::entra(401, &[700_213], None);
        let inner = azure_core::Error::new(ErrorKind::Other, ours);
        let outer = azure_core::Error::with_error(ErrorKind::Credential, inner, "failed");
        assert_eq!(typed(&outer), ours);
    }

    #[test]
    fn what_entra_calls_temporary_is_passing_trouble_whatever_its_code() {
        for (body, cause) in [
            (
                r#"{"error":"temporarily_unavailable","error_codes":[700213]}"#,
                Cause::Unavailable,
            ),
            (
                r#"{"error":"invalid_client","error_codes":[700016]}"#,
                Cause::UnknownIdentity,
            ),
            (
                r#"{"error":["odd"],"error_codes":[700016]}"#,
                Cause::UnknownIdentity,
            ),
            (r#"{"error":"temporarily_unavailable"}"#, Cause::Unavailable),
            ("temporarily_unavailable", Cause::EntraRefused),
        ] {
            assert_eq!(refused(400, body.as_bytes(), None).cause, cause, "{body}");
        }
        let throttled = refused(429, br#"{"error":"temporarily_unavailable"}"#, None);
        assert_eq!(throttled.cause, Cause::Throttled);
    }

    #[test]
    fn what_only_the_sdk_says_is_malformed() {
        let theirs = azure_core::Error::with_message(ErrorKind::DataConversion, "eyJ...");
        assert_eq!(typed(&theirs).cause, Cause::Malformed);
    }
}
