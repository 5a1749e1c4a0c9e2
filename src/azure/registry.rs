//! Entra token to ACR refresh token, and refresh token to one that is limited to repositories.

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::transport::{Transport, object};
use crate::credential::{
    Cause, Claims, Credential, Hop, Lifetime, LoginServer, MintError, Repositories, Token,
};
use crate::process::Clock;

#[derive(Deserialize)]
struct ExchangeAnswer {
    refresh_token: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

/// `POST /oauth2/exchange` (Azure/acr, `docs/AAD-OAuth.md`). No challenge is asked for first, so no realm
/// can divert the token; `tenant` is left out, the Entra token states it.
pub(super) async fn exchange(
    transport: &Transport,
    server: &LoginServer,
    entra_token: &Token,
    clock: &Clock,
) -> Result<Credential, MintError> {
    let fields = [
        ("grant_type", "access_token"),
        ("service", server.as_str()),
        ("access_token", entra_token.expose()),
    ];
    let body = post(transport, Hop::Exchange, server, "exchange", &fields).await?;
    granted(&body, clock.now())
}

/// `POST /oauth2/token` (the same page) for `pull` on each of `repositories`, all in one request.
pub(super) async fn limit(
    transport: &Transport,
    server: &LoginServer,
    repositories: &Repositories,
    refresh_token: &Token,
    clock: &Clock,
) -> Result<Credential, MintError> {
    let fields = [
        ("grant_type", "refresh_token"),
        ("service", server.as_str()),
        ("scope", &repositories.scope()),
        ("refresh_token", refresh_token.expose()),
    ];
    let body = post(transport, Hop::Token, server, "token", &fields).await;
    let body = body.map_err(|error| match error.cause {
        // A scope that is refused as a whole; others are told so by a token that allows nothing.
        Cause::InsufficientScope => MintError {
            missing: repositories.all_missing(),
            ..error
        },
        _ => error,
    })?;
    granted_on(repositories, &body, clock.now())
}

/// The refresh token in the body of an answer that arrived at `now`.
pub(super) fn granted(body: &[u8], now: Timestamp) -> Result<Credential, MintError> {
    let answer: Option<ExchangeAnswer> = object(body);
    credential(
        Hop::Exchange,
        answer.map(|answer| answer.refresh_token),
        now,
    )
}

/// The access token likewise, if it allows just what was asked for.
pub(super) fn granted_on(
    repositories: &Repositories,
    body: &[u8],
    now: Timestamp,
) -> Result<Credential, MintError> {
    let answer: Option<TokenAnswer> = object(body);
    let credential = credential(Hop::Token, answer.map(|answer| answer.access_token), now)?;
    repositories.check(&credential.token)?;
    Ok(credential)
}

fn credential(hop: Hop, text: Option<String>, now: Timestamp) -> Result<Credential, MintError> {
    let malformed = MintError::new(hop, Cause::Malformed);
    let token = text.map(Token::new).ok_or(malformed)?;
    let claims = Claims::parse(token.expose()).ok_or(malformed)?;
    let lifetime = Lifetime::received(claims, now);
    if !lifetime.is_live(now) {
        return Err(MintError::new(hop, Cause::ExpiredOnArrival));
    }
    Ok(Credential {
        token,
        lifetime,
        received_at: now,
    })
}

async fn post(
    transport: &Transport,
    hop: Hop,
    server: &LoginServer,
    endpoint: &str,
    fields: &[(&str, &str)],
) -> Result<Zeroizing<Vec<u8>>, MintError> {
    let url = format!("https://{server}/oauth2/{endpoint}");
    let refused = |status, _: &[u8], retry_after| MintError::registry(hop, status, retry_after);
    transport
        .post(hop, server.as_str(), url, form(fields), refused)
        .await
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
