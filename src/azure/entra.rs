//! Assertion to Entra token (OAuth 2.0 client credentials with a federated credential).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential as _;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::request::{Body, Request};
use azure_core::http::{
    AsyncRawResponse, ClientMethodOptions, ClientOptions, HttpClient, RetryOptions,
    Transport as AzureTransport,
};
use azure_core::time::OffsetDateTime;
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::transport::{Transport, object};
use crate::credential::{
    Cause, Credential, EnabledCloud, Hop, Identity, Lifetime, MAX_LIFE, MintError, Token,
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
    cloud
        .authority
        .as_str()
        .clone_into(&mut configuration.authority_host);
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
                    limit: format!("{}/{}", cloud.authority.host(), identity.tenant_id),
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
            end: crate::credential::saturating_add(now, life),
        },
        received_at: now,
    })
}

/// Our own typed error, which travels through the SDK as the source of its error. What else the SDK
/// may say is never looked at: it can quote the answer.
fn typed(error: &azure_core::Error) -> MintError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(ours) = error.downcast_ref::<MintError>() {
            return *ours;
        }
        source = error.source();
    }
    MintError::new(Hop::Entra, Cause::Malformed)
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
    limit: String,
}

/// What we take over of an answer with a token.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: i64,
}

/// The same as the SDK reads it.
#[derive(Serialize)]
struct SdkAnswer<'a> {
    token_type: &'static str,
    expires_in: i64,
    ext_expires_in: i64,
    access_token: &'a str,
}

/// The body of an answer with a token, written anew for the SDK: it (1.0) adds `expires_in` to the time of day
/// unchecked, and panics where that leaves the calendar.
pub(super) fn granted(body: &[u8]) -> Result<Vec<u8>, Cause> {
    let answer: TokenAnswer = object(body).ok_or(Cause::Malformed)?;
    let token = Token::new(answer.access_token);
    if token.expose().is_empty() {
        return Err(Cause::Malformed);
    }
    let life = answer.expires_in.clamp(0, MAX_LIFE.as_secs());
    let answer = SdkAnswer {
        token_type: "Bearer",
        expires_in: life,
        ext_expires_in: life,
        access_token: token.expose(),
    };
    serde_json::to_vec(&answer).map_err(|_| Cause::Malformed)
}

/// The failure that an answer without a token tells.
pub(super) fn refused(status: u16, body: &[u8], retry_after: Option<SignedDuration>) -> MintError {
    let answer: ErrorAnswer = object(body).unwrap_or_default();
    let error = MintError::entra(status, &answer.error_codes, retry_after);
    if error.cause != Cause::Throttled && answer.error == PASSING {
        return MintError {
            cause: Cause::Unavailable,
            ..error
        };
    }
    error
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
        let malformed = || MintError::new(Hop::Entra, Cause::Malformed);
        let Body::Bytes(form) = request.body() else {
            return Err(malformed());
        };
        let form = std::str::from_utf8(form).map_err(|_| malformed())?;
        let answer = self
            .transport
            .post(
                Hop::Entra,
                &self.limit,
                request.url().clone(),
                Zeroizing::new(form.to_owned()),
            )
            .await?;
        if answer.status == 200 {
            return Ok(AsyncRawResponse::from_bytes(
                azure_core::http::StatusCode::Ok,
                Headers::default(),
                granted(&answer.body).map_err(|cause| MintError::new(Hop::Entra, cause))?,
            ));
        }
        let error = refused(answer.status, &answer.body, answer.retry_after);
        tracing::warn!(
            hop = %error.hop,
            status = answer.status,
            aadsts = error.code,
            request_id = answer.request_id,
            "Entra refused a token",
        );
        Err(error)
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
