//! What looks like a registry's tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// What looks like a JWT; `serial` makes it unique.
pub(super) fn token(serial: u32, iat: Option<Timestamp>, exp: Timestamp) -> Token {
    let iat = iat.map(Timestamp::as_second);
    unsigned(&json!({"jti": serial, "iat": iat, "exp": exp.as_second()}))
}

/// The same for pulling these repositories only.
pub(super) fn limited_token<'a>(
    serial: u32,
    iat: Timestamp,
    exp: Timestamp,
    repositories: impl Iterator<Item = &'a str>,
) -> Token {
    let access: Vec<Value> = repositories
        .map(|name| json!({"type": "repository", "name": name, "actions": ["pull"]}))
        .collect();
    let (iat, exp) = (iat.as_second(), exp.as_second());
    unsigned(&json!({"jti": serial, "iat": iat, "exp": exp, "access": access}))
}

fn unsigned(claims: &Value) -> Token {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    Token::new(format!(
        "{}.{}.c2ln",
        part(&json!({"alg": "none"})),
        part(claims)
    ))
}

/// Whether a token may be used for nothing beyond what the spec says of its registry, told without the code
/// under test.
pub(super) fn is_within(token: &str, registry: &Registry) -> bool {
    let Some(repositories) = &registry.repositories else {
        return true;
    };
    let part = token.split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    claims["access"].as_array().is_some_and(|access| {
        access.iter().all(|entry| {
            let name = entry["name"].as_str().unwrap_or_default();
            entry["actions"] == json!(["pull"]) && repositories.iter().any(|asked| asked == name)
        })
    })
}
