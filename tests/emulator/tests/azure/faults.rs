//! Injected faults.

use azure_emulator::fault::{BodyKind, CANARY, Fault, Kind, Match, Spoil};
use azure_emulator::journal::{Endpoint, Filter};
use azure_emulator::jwt::Parsed;
use serde_json::{Value, json};

use crate::bed::{Bed, REGISTRY_SCOPE, field};

fn status(status: u16, body: BodyKind) -> Kind {
    Kind::Status {
        status,
        body,
        code: None,
        text: None,
        reason: None,
        retry_after: None,
    }
}

#[tokio::test]
async fn a_fault_meets_one_tenant_and_as_often_as_told() {
    let (bed, other) = (Bed::new().await, Bed::new().await);
    let fault = Fault::new(
        Endpoint::Login,
        Match::tenant(&bed.tenant),
        status(503, BodyKind::Html),
    );
    bed.emulator.add_fault(fault.times(2));
    for _ in 0..2 {
        assert_eq!(bed.entra(&bed.claims()).await.status(), 503);
        assert_eq!(other.entra(&other.claims()).await.status(), 200);
    }
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
}

#[tokio::test]
async fn e17_throttling_is_plain_text_with_retry_after() {
    let bed = Bed::new().await;
    let kind = Kind::Throttle {
        retry_after: Some(60),
        http_date: false,
        json: false,
    };
    let id = bed.emulator.add_fault(Fault::new(
        Endpoint::Login,
        Match::client(&bed.client_id),
        kind,
    ));
    let answer = bed.entra(&bed.claims()).await;
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "60");
    assert_eq!(answer.text().await.unwrap(), "Too Many Requests");
    bed.emulator.remove_fault(id);
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
}

#[tokio::test]
async fn every_way_to_spoil_an_answer_changes_it() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    let every = [
        Spoil::Truncated,
        Spoil::Array,
        Spoil::ExpiresAsText,
        Spoil::ExpiresZero,
        Spoil::ExpiresNegative,
        Spoil::MissingToken,
        Spoil::EmptyToken,
        Spoil::TokenAsNumber,
        Spoil::NotJwt,
        Spoil::NoExp,
        Spoil::FarExp,
        Spoil::Padded,
        Spoil::ExtraFields,
        Spoil::Bom,
    ];
    for how in every {
        let kind = Kind::Malformed { how };
        bed.emulator
            .add_fault(Fault::new(Endpoint::Exchange, Match::registry(&bed.host), kind).times(1));
        let spoilt = bed.exchange(&entra).await;
        assert_eq!(spoilt.status(), 200);
        let text = spoilt.text().await.unwrap();
        let good = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .filter(|v| v.as_object().is_some_and(|fields| fields.len() == 1))
            .and_then(|v| bed.emulator.verify_token(v["refresh_token"].as_str()?).ok());
        assert!(good.is_none(), "{how:?} spoils nothing: {text}");
    }
    assert_eq!(bed.exchange(&entra).await.status(), 200);
}

#[tokio::test]
async fn an_access_token_may_allow_more_than_was_asked_for() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let scope = "repository:a:pull repository:b:pull";
    for (how, expected) in [
        (
            Spoil::ExtraRepository,
            json!([["a", ["pull"]], ["b", ["pull"]], ["more", ["pull"]]]),
        ),
        (
            Spoil::ExtraAction,
            json!([["a", ["pull", "push"]], ["b", ["pull", "push"]]]),
        ),
        (Spoil::NoAccess, json!(null)),
    ] {
        let kind = Kind::Malformed { how };
        bed.emulator
            .add_fault(Fault::new(Endpoint::Token, Match::registry(&bed.host), kind).times(1));
        let token = field(bed.token(&refresh, scope).await, "access_token").await;
        let claims = Parsed::read(&token).unwrap().claims;
        let list = claims["access"].as_array();
        let list = list.map(|list| {
            list.iter()
                .map(|a| json!([a["name"], a["actions"]]))
                .collect()
        });
        assert_eq!(list.unwrap_or(Value::Null), expected, "{how:?}");
    }
}

#[tokio::test]
async fn a_reset_is_journaled_without_a_status() {
    let bed = Bed::new().await;
    let kind = Kind::Reset {
        after_headers: false,
    };
    bed.emulator
        .add_fault(Fault::new(Endpoint::Login, Match::tenant(&bed.tenant), kind).times(1));
    let form = [("client_id", bed.client_id.as_str())];
    let url = format!(
        "https://login.microsoftonline.com/{}/oauth2/v2.0/token",
        bed.tenant
    );
    assert!(bed.http.post(url).form(&form).send().await.is_err());
    let filter = Filter {
        tenant: Some(bed.tenant.clone()),
        ..Filter::default()
    };
    let entries = bed.emulator.journal_of(&filter);
    assert_eq!((entries[0].status, entries[0].fault), (0, Some("reset")));
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
}

#[tokio::test]
async fn huge_bodies_redirects_and_echoes_are_what_they_say() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    let inject = |kind| {
        bed.emulator
            .add_fault(Fault::new(Endpoint::Exchange, Match::registry(&bed.host), kind).times(1))
    };
    inject(Kind::Huge { bytes: 11 << 20 });
    assert!(bed.exchange(&entra).await.bytes().await.unwrap().len() >= 11 << 20);
    let location = format!("https://{CANARY}/leak");
    inject(Kind::Redirect {
        status: 307,
        location,
    });
    let redirect = bed.exchange(&entra).await;
    assert_eq!(redirect.status(), 307);
    assert!(
        redirect.headers()["location"]
            .to_str()
            .unwrap()
            .contains(CANARY)
    );
    inject(status(400, BodyKind::Echo));
    let echo = bed.exchange(&entra).await;
    for name in [
        "x-ms-diagnostics",
        "retry-after",
        "x-ms-correlation-request-id",
    ] {
        assert_eq!(echo.headers()[name], entra.as_str(), "{name}");
    }
    assert!(echo.text().await.unwrap().contains(&entra));
    inject(Kind::Slow {
        headers_ms: 1,
        body_ms: 1,
    });
    assert_eq!(bed.exchange(&entra).await.status(), 200);
}

#[test]
fn a_fault_is_short_in_json() {
    let text = r#"{"target":"exchange","match":{"registry":"contoso.azurecr.io"},"times":2,"kind":"status","status":503,"body":"html"}"#;
    let fault: Fault = serde_json::from_str(text).unwrap();
    assert_eq!(fault.times, Some(2));
    assert!(matches!(
        fault.kind,
        Kind::Status {
            status: 503,
            body: BodyKind::Html,
            ..
        }
    ));
    for short in [
        r#"{"target":"login","kind":"reset"}"#,
        r#"{"target":"v2","kind":"bad_realm"}"#,
    ] {
        serde_json::from_str::<Fault>(short).unwrap();
    }
}
