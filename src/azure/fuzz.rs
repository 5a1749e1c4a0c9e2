//! Hostile answers of Entra, of a registry, and of whatever stands in between.

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::Value;

use super::transport::{request_id, retry_after};
use super::{entra, registry};
use crate::credential::{Hop, MAX_LIFE, MintError, RETRY_AFTER_CAP, Repositories, Scope};
use crate::fuzzing::{config, json, jwt, number, signed, text, time};

/// A body that need not be JSON, or what one field should be.
fn body(field: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..80),
        1 => jwt().prop_map(|jwt| serde_json::json!([jwt, 3599]).to_string().into_bytes()),
        1 => json().prop_map(|json| json.to_string().into_bytes()),
        1 => json().prop_map(move |json| serde_json::json!({field: json}).to_string().into_bytes()),
        4 => (jwt(), number()).prop_map(move |(jwt, number)| {
            format!(r#"{{"{field}":"{jwt}","expires_in":{number},"error_codes":[{number}]}}"#).into_bytes()
        }),
    ]
}

/// An entry of an `access` claim, more often right than not.
fn entry() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![9 => Just("repository"), 1 => Just("registry")];
    let name = prop_oneof![4 => Just("a"), 4 => Just("b/c"), 1 => Just("d")];
    let actions = prop_oneof![
        9 => Just(serde_json::json!(["pull"])),
        1 => Just(serde_json::json!(["pull", "push"])),
        1 => Just(serde_json::json!([])),
        1 => json(),
    ];
    (kind, name, actions).prop_map(
        |(kind, name, actions)| serde_json::json!({"type": kind, "name": name, "actions": actions}),
    )
}

fn header() -> impl Strategy<Value = HeaderValue> {
    let date = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun|), [0-9]{1,3} (Jan|Feb|Dec|Foo) -?[0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|\\+2359|-9999|Z)";
    let text = prop_oneof![
        date,
        number(),
        text(),
        "[0-9]{1,25}",
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    ];
    let bytes = prop_oneof![text.prop_map(String::into_bytes), vec(any::<u8>(), 0..40)];
    bytes.prop_map(|mut bytes| {
        bytes.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        HeaderValue::from_bytes(&bytes).expect("no control character")
    })
}

proptest! {
    #![proptest_config(config(4_000))]

    #[test]
    fn an_exchanged_token_is_live_and_lives_a_day_at_most(body in body("refresh_token"), now in time()) {
        if let Ok(credential) = registry::granted(&body, now) {
            let shown = (&credential.lifetime, String::from_utf8_lossy(&body));
            prop_assert!(credential.lifetime.is_live(now), "{shown:?}");
            prop_assert!(credential.lifetime.length() <= MAX_LIFE, "{shown:?}");
            let shown = String::from_utf8_lossy(&body);
            prop_assert!(shown.contains(credential.token.expose()), "{shown}");
        }
    }

    #[test]
    fn a_limited_token_that_is_taken_is_limited(
        access in prop_oneof![
            3 => vec(entry(), 0..4).prop_map(Value::from),
            1 => json(),
        ],
        grant in prop_oneof![Just("access_token"), Just("refresh_token")],
    ) {
        let asked = Repositories::new(&["a".to_owned(), "b/c".to_owned()]).unwrap();
        let claims = serde_json::json!({"exp": 2_000_000_000, "grant_type": grant, "access": access});
        let token = signed(&claims.to_string());
        let body = serde_json::json!({"access_token": token}).to_string();
        let now = Timestamp::from_second(1_999_990_000).unwrap();
        if let Ok(credential) = registry::granted_on(&asked, body.as_bytes(), now) {
            let list = access.as_array().expect("a list");
            let acts = |entry: &&Value| entry["actions"].as_array().is_some_and(|a| !a.is_empty());
            for entry in list.iter().filter(acts) {
                prop_assert_eq!(&entry["type"], "repository");
                prop_assert!(["a", "b/c"].contains(&entry["name"].as_str().unwrap()));
                prop_assert!(entry["actions"].as_array().unwrap().iter().all(|a| a == "pull"));
            }
            for name in ["a", "b/c"] {
                prop_assert!(list.iter().filter(acts).any(|entry| entry["name"] == name));
            }
            prop_assert_eq!(grant, "access_token");
            prop_assert!(Scope::Repositories(asked).covers(&credential.token));
        }
    }

    #[test]
    fn the_sdk_gets_no_answer_of_entra_that_it_cannot_bear(body in body("access_token")) {
        if let Ok(rewritten) = entra::granted(&body) {
            let ours: Value = serde_json::from_slice(&rewritten).unwrap();
            // A field that nobody reads may hold a number that no `Value` can.
            if let Ok(theirs) = serde_json::from_slice::<Value>(&body) {
                prop_assert_eq!(&ours["access_token"], &theirs["access_token"]);
            }
            prop_assert!(!ours["access_token"].as_str().unwrap().is_empty());
            prop_assert!((0..=MAX_LIFE.as_secs()).contains(&ours["expires_in"].as_i64().unwrap()));
        }
    }

    #[test]
    fn a_refusal_says_numbers_and_our_own_words(
        status in prop_oneof![any::<u16>(), 300..600_u16],
        body in prop_oneof![body("error_codes"), vec(any::<u32>(), 0..3).prop_map(|codes| {
            serde_json::json!({"error_codes": codes, "error_description": "Zq7"}).to_string().into_bytes()
        })],
        wait in any::<Option<i64>>(),
    ) {
        let wait = wait.map(SignedDuration::from_secs);
        for error in [entra::refused(status, &body, wait), MintError::registry(Hop::Token, status, wait)] {
            prop_assert_eq!(error.status, Some(status));
            prop_assert_eq!(error.retry_after.is_some(), wait.is_some());
            let bounds = SignedDuration::ZERO..=RETRY_AFTER_CAP;
            prop_assert!(error.retry_after.is_none_or(|wait| bounds.contains(&wait)));
            let said = error.to_string();
            prop_assert!(!said.contains("Zq7") && !said.contains(char::is_control), "{}", said);
        }
    }

    #[test]
    fn headers_of_any_kind_are_read_in_peace(wait in header(), date in header(), id in header()) {
        let id_header = HeaderName::from_static("x-ms-request-id");
        let headers = HeaderMap::from_iter([(RETRY_AFTER, wait.clone()), (DATE, date), (id_header, id.clone())]);
        if let Some(wait) = retry_after(&headers) {
            let capped = MintError::entra(429, &[], Some(wait)).retry_after;
            prop_assert!(capped.is_some_and(|wait| (SignedDuration::ZERO..=RETRY_AFTER_CAP).contains(&wait)));
        }
        let digits = wait.to_str().is_ok_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
        prop_assert!(!digits || retry_after(&headers).is_some());
        if let Some(kept) = request_id(&headers) {
            prop_assert_eq!(kept.as_bytes(), id.as_bytes());
            let parts: Vec<usize> = kept.split('-').map(str::len).collect();
            prop_assert_eq!(parts, [8, 4, 4, 4, 12]);
            prop_assert!(kept.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
        }
    }
}

#[test]
fn an_absurd_life_is_cut_before_the_sdk_adds_it_to_the_time() {
    for (expires_in, life) in [(i64::MAX, MAX_LIFE.as_secs()), (i64::MIN, 0), (3599, 3599)] {
        let body = format!(r#"{{"access_token":"a.b.c","expires_in":{expires_in}}}"#);
        let rewritten: Value =
            serde_json::from_slice(&entra::granted(body.as_bytes()).unwrap()).unwrap();
        assert_eq!(rewritten["expires_in"], life);
    }
}
