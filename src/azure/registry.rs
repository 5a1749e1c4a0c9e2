//! Entra token to ACR refresh token.

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::transport::{Transport, object};
use crate::credential::{Cause, Claims, Credential, Hop, Lifetime, LoginServer, MintError, Token};

#[derive(Deserialize)]
struct ExchangeAnswer {
    refresh_token: String,
}

/// `POST /oauth2/exchange` (Azure/acr, `docs/AAD-OAuth.md`). No challenge is asked for first, so no realm
/// can divert the token; `tenant` is left out, the Entra token states it.
pub(super) async fn exchange(
    transport: &Transport,
    server: &LoginServer,
    entra_token: &Token,
    now: impl FnOnce() -> Timestamp,
) -> Result<Credential, MintError> {
    let failed = |cause| MintError::new(Hop::Exchange, cause);
    let url = reqwest::Url::parse(&format!("https://{server}/oauth2/exchange"))
        .map_err(|_| failed(Cause::RequestRefused))?;
    let form = Zeroizing::new(form(&[
        ("grant_type", "access_token"),
        ("service", server.as_str()),
        ("access_token", entra_token.expose()),
    ]));
    let answer = transport
        .post(Hop::Exchange, server.as_str(), url, form)
        .await?;
    if answer.status != 200 {
        let error = MintError::registry(Hop::Exchange, answer.status, answer.retry_after);
        tracing::warn!(
            hop = error.hop.name(),
            registry = server.as_str(),
            status = answer.status,
            request_id = answer.request_id,
            "registry refused a token",
        );
        return Err(error);
    }
    granted(&answer.body, now()).map_err(failed)
}

/// The token in the body of an answer that arrived at `now`.
pub(super) fn granted(body: &[u8], now: Timestamp) -> Result<Credential, Cause> {
    let answer: ExchangeAnswer = object(body).ok_or(Cause::Malformed)?;
    let token = Token::new(answer.refresh_token);
    let claims = Claims::parse(token.expose()).map_err(|_| Cause::Malformed)?;
    let lifetime = Lifetime::received(claims, now);
    if !lifetime.is_live(now) {
        return Err(Cause::ExpiredOnArrival);
    }
    Ok(Credential {
        token,
        lifetime,
        received_at: now,
    })
}

fn form(pairs: &[(&str, &str)]) -> String {
    reqwest::Url::parse_with_params("form:", pairs)
        .ok()
        .and_then(|url| url.query().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_escapes_its_values() {
        assert_eq!(
            form(&[("a", "b&c=d"), ("e", "f+g/h")]),
            "a=b%26c%3Dd&e=f%2Bg%2Fh"
        );
    }
}
