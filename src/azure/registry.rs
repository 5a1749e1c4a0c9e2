//! Entra token to ACR refresh token, and refresh token to one that is limited to repositories.

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::transport::{Answer, Transport, object};
use crate::credential::{
    Cause, Claims, Credential, Granted, Hop, Lifetime, LoginServer, MintError, Repositories, Token,
};

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
    now: impl FnOnce() -> Timestamp,
) -> Result<Credential, MintError> {
    let fields = [
        ("grant_type", "access_token"),
        ("service", server.as_str()),
        ("access_token", entra_token.expose()),
    ];
    let answer = post(transport, Hop::Exchange, server, "exchange", &fields).await?;
    granted(&answer.body, now()).map_err(|cause| MintError::new(Hop::Exchange, cause))
}

/// `POST /oauth2/token` (the same page) for `pull` on each of `repositories`, all in one request.
pub(super) async fn limit(
    transport: &Transport,
    server: &LoginServer,
    repositories: &Repositories,
    refresh_token: &Token,
    now: impl FnOnce() -> Timestamp,
) -> Result<Credential, MintError> {
    let fields = [
        ("grant_type", "refresh_token"),
        ("service", server.as_str()),
        ("scope", &repositories.scope()),
        ("refresh_token", refresh_token.expose()),
    ];
    let answer = post(transport, Hop::Token, server, "token", &fields).await;
    let answer = answer.map_err(|error| match error.cause {
        // A scope that is refused as a whole; others are told so by a token that allows nothing.
        Cause::InsufficientScope => MintError {
            missing: repositories.all_missing(),
            ..error
        },
        _ => error,
    })?;
    granted_on(repositories, &answer.body, now())
}

/// The refresh token in the body of an answer that arrived at `now`.
pub(super) fn granted(body: &[u8], now: Timestamp) -> Result<Credential, Cause> {
    let answer: ExchangeAnswer = object(body).ok_or(Cause::Malformed)?;
    credential(Token::new(answer.refresh_token), now)
}

/// The access token likewise, if it allows just what was asked for.
pub(super) fn granted_on(
    repositories: &Repositories,
    body: &[u8],
    now: Timestamp,
) -> Result<Credential, MintError> {
    let failed = |cause| MintError::new(Hop::Token, cause);
    let answer: TokenAnswer = object(body).ok_or(failed(Cause::Malformed))?;
    let credential = credential(Token::new(answer.access_token), now).map_err(failed)?;
    repositories.check(&Granted::by(&credential.token))?;
    Ok(credential)
}

fn credential(token: Token, now: Timestamp) -> Result<Credential, Cause> {
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

async fn post(
    transport: &Transport,
    hop: Hop,
    server: &LoginServer,
    endpoint: &str,
    fields: &[(&str, &str)],
) -> Result<Answer, MintError> {
    let url = reqwest::Url::parse(&format!("https://{server}/oauth2/{endpoint}"))
        .map_err(|_| MintError::new(hop, Cause::RequestRefused))?;
    let form = Zeroizing::new(form(fields));
    let answer = transport.post(hop, server.as_str(), url, form).await?;
    if answer.status != 200 {
        let error = MintError::registry(hop, answer.status, answer.retry_after);
        tracing::warn!(
            hop = %hop,
            registry = server.as_str(),
            status = answer.status,
            request_id = answer.request_id,
            "registry refused a token",
        );
        return Err(error);
    }
    Ok(answer)
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
