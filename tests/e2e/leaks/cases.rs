//! What faulty upstreams say.

use azure_emulator::fault::{BodyKind, CANARY, Kind, Spoil};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Stands in everything that a faulty upstream says.
pub const MARKER: &str = "Zq7CanaryWord";

/// A fault, and the reason under which its users read of it.
pub type Case = (Kind, &'static str);

/// A text that clears a terminal and forges a line of the log.
fn hostile() -> String {
    let forged = json!({"level": "ERROR", "message": MARKER, "forged": true});
    format!(
        "\u{1b}[2J\u{1b}]0;{MARKER}\u{7}\r\n{forged}\n2026-01-01T00:00:00Z ERROR {MARKER}\u{202e}\u{0}"
    )
}

fn status(status: u16, body: BodyKind, text: &str) -> Kind {
    Kind::Status {
        status,
        body,
        code: None,
        text: Some(text.to_owned()),
        reason: None,
        retry_after: None,
    }
}

/// The marker wherever a fixed text can stand.
fn everywhere(code: u16, error: &str) -> Kind {
    Kind::Status {
        status: code,
        body: BodyKind::Native,
        code: Some(error.to_owned()),
        text: Some(hostile()),
        reason: Some(MARKER.to_owned()),
        retry_after: Some(MARKER.to_owned()),
    }
}

fn redirect(status: u16) -> Kind {
    Kind::Redirect {
        status,
        location: format!("https://{CANARY}/{MARKER}"),
    }
}

/// At both endpoints of a registry, whose answers have their token in `field`.
fn registry_cases(field: &str, refused: &'static str) -> Vec<Case> {
    let quoted = json!({field: {MARKER: hostile()}}).to_string();
    let marked_token = json!({field: format!("{MARKER}.{MARKER}.{MARKER}")}).to_string();
    vec![
        (status(401, BodyKind::Echo, &hostile()), refused),
        (status(307, BodyKind::Echo, &hostile()), "MalformedAnswer"),
        (status(200, BodyKind::Echo, &hostile()), "MalformedAnswer"),
        (status(429, BodyKind::Echo, &hostile()), "Throttled"),
        (
            status(503, BodyKind::Html, &hostile()),
            "UpstreamUnavailable",
        ),
        (status(200, BodyKind::Text, &quoted), "MalformedAnswer"),
        (
            status(200, BodyKind::Text, &marked_token),
            "MalformedAnswer",
        ),
        (everywhere(403, MARKER), "RegistryRefused"),
        (Kind::Malformed { how: Spoil::NoExp }, "MalformedAnswer"),
        (
            Kind::Malformed {
                how: Spoil::Truncated,
            },
            "MalformedAnswer",
        ),
        (redirect(308), "MalformedAnswer"),
    ]
}

pub fn exchange_cases() -> Vec<Case> {
    registry_cases("refresh_token", "RegistryRefused")
}

pub fn token_cases() -> Vec<Case> {
    let mut cases = registry_cases("access_token", "InsufficientScope");
    for how in [Spoil::ExtraRepository, Spoil::NoAccess] {
        cases.push((Kind::Malformed { how }, "MalformedAnswer"));
    }
    // What was granted is compared, and not one word of it told.
    let foreign = granting(&json!([{"type": MARKER, "name": MARKER, "actions": [MARKER, "pull"]}]));
    cases.push((status(200, BodyKind::Text, &foreign), "MalformedAnswer"));
    let none = granting(&json!([{"type": "repository", "name": hostile(), "actions": []}]));
    cases.push((status(200, BodyKind::Text, &none), "InsufficientScope"));
    cases
}

/// An answer whose token allows this.
fn granting(access: &Value) -> String {
    let claims = json!({"exp": 4_000_000_000_i64, "access": access}).to_string();
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
    json!({"access_token": token}).to_string()
}

pub fn login_cases() -> Vec<Case> {
    let answer = |expires_in: Value| {
        json!({
            "token_type": "Bearer",
            "expires_in": expires_in,
            "ext_expires_in": 1,
            "access_token": format!("{MARKER}.{MARKER}.{MARKER}"),
        })
        .to_string()
    };
    vec![
        (status(401, BodyKind::Echo, &hostile()), "EntraRefused"),
        (status(302, BodyKind::Echo, &hostile()), "MalformedAnswer"),
        (status(200, BodyKind::Echo, &hostile()), "MalformedAnswer"),
        (
            status(500, BodyKind::Text, &hostile()),
            "UpstreamUnavailable",
        ),
        (
            status(200, BodyKind::Text, &answer(json!(MARKER))),
            "MalformedAnswer",
        ),
        // It is taken for a token of a day, and the registry refuses it.
        (
            status(200, BodyKind::Text, &answer(json!(i64::MAX))),
            "RegistryRefused",
        ),
        (everywhere(401, "700213"), "FederationMismatch"),
        (everywhere(400, MARKER), "UpstreamUnavailable"),
        (
            Kind::Malformed {
                how: Spoil::Truncated,
            },
            "MalformedAnswer",
        ),
        (redirect(307), "MalformedAnswer"),
    ]
}
