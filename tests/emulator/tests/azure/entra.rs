//! Entra's token endpoint.

use azure_emulator::journal::{Endpoint, Filter};
use azure_emulator::state::{IdentityKind, ResourceStatus};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::bed::{ARM_SCOPE, Bed, CLUSTER_KEY, FOREIGN_KEY, REGISTRY_SCOPE, body, refusal, start};

#[tokio::test]
async fn e1_a_matching_assertion_gives_a_token_of_about_an_hour() {
    let bed = Bed::new().await;
    let answer = bed.entra(&bed.claims()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store, no-cache");
    let content = body(answer).await;
    let expires_in = content["expires_in"].as_i64().unwrap();
    assert!((3599..=5399).contains(&expires_in), "{expires_in}");
    let claims = bed
        .emulator
        .verify_token(content["access_token"].as_str().unwrap())
        .unwrap();
    assert_eq!(claims["aud"], "https://containerregistry.azure.net");
    assert_eq!(claims["tid"], json!(bed.tenant));
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        expires_in
    );
}

#[tokio::test]
async fn e2_a_managed_identity_gets_a_day() {
    let bed = Bed::new().await;
    bed.change_identity(|identity| identity.kind = IdentityKind::Uami);
    assert_eq!(
        body(bed.entra(&bed.claims()).await).await["expires_in"],
        86_399
    );
}

#[tokio::test]
async fn e3_without_a_federated_credential_it_is_70021() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    bed.change_identity(|identity| identity.federated_credentials.clear());
    assert_eq!(refusal(bed.entra(&bed.claims()).await).await, (400, 70_021));
}

#[tokio::test]
async fn e4_issuer_without_trailing_slash_is_700211() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let bare = bed.issuer.trim_end_matches('/').to_owned();
    bed.change_identity(|identity| identity.federated_credentials[0].issuer = bare);
    assert_eq!(
        refusal(bed.entra(&bed.claims()).await).await,
        (401, 700_211)
    );
}

#[tokio::test]
async fn e5_another_audience_is_700212() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let china = "api://AzureADTokenExchangeChina".to_owned();
    bed.change_identity(|identity| identity.federated_credentials[0].audience = china);
    assert_eq!(
        refusal(bed.entra(&bed.claims()).await).await,
        (400, 700_212)
    );
}

#[tokio::test]
async fn e6_a_service_account_of_another_namespace_is_700213() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let mut claims = bed.claims();
    claims["sub"] = json!("system:serviceaccount:elsewhere:puller");
    assert_eq!(refusal(bed.entra(&claims).await).await, (401, 700_213));
}

#[tokio::test]
async fn e7_a_subject_that_differs_in_case_is_7002138() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let mut claims = bed.claims();
    claims["sub"] = json!(bed.subject.replace("puller", "Puller"));
    assert_eq!(refusal(bed.entra(&claims).await).await, (401, 7_002_138));
}

#[tokio::test]
async fn e8_an_expired_assertion_is_700024() {
    let bed = Bed::new().await;
    let now = Timestamp::now().as_second();
    let mut claims = bed.claims();
    claims["exp"] = json!(now - 60);
    assert_eq!(
        bed.entra(&claims).await.status(),
        200,
        "some skew is forgiven"
    );
    claims["exp"] = json!(now - 7200);
    assert_eq!(refusal(bed.entra(&claims).await).await, (401, 700_024));
    let mut early = bed.claims();
    early["nbf"] = json!(now + 7200);
    assert_eq!(refusal(bed.entra(&early).await).await, (401, 700_024));
}

#[tokio::test]
async fn an_assertion_signed_by_a_foreign_key_is_700027() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let forged = FOREIGN_KEY.sign(&bed.claims());
    let answer = bed
        .entra_with(&bed.tenant, &bed.client_id, REGISTRY_SCOPE, &forged)
        .await;
    assert_eq!(refusal(answer).await, (401, 700_027));

    // The right key id does not help: claims of one token under the signature of another.
    let mut other = bed.claims();
    other["exp"] = json!(other["exp"].as_i64().unwrap() + 1);
    let (good, other) = (CLUSTER_KEY.sign(&bed.claims()), CLUSTER_KEY.sign(&other));
    let spliced = format!(
        "{}.{}",
        &other[..other.rfind('.').unwrap()],
        &good[good.rfind('.').unwrap() + 1..]
    );
    let answer = bed
        .entra_with(&bed.tenant, &bed.client_id, REGISTRY_SCOPE, &spliced)
        .await;
    assert_eq!(refusal(answer).await, (401, 700_027));
}

#[tokio::test]
async fn e9_an_assertion_under_another_algorithm_is_700027() {
    let bed = Bed::new().await;
    let good = CLUSTER_KEY.sign(&bed.claims());
    let (_, rest) = good.split_once('.').unwrap();
    for algorithm in ["ES256", "none", "HS256"] {
        let header = json!({"alg": algorithm, "kid": CLUSTER_KEY.public().kid});
        let other = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let answer = bed
            .entra_with(&bed.tenant, &bed.client_id, REGISTRY_SCOPE, &other)
            .await;
        assert_eq!(refusal(answer).await, (401, 700_027));
    }
    let answer = bed
        .entra_with(&bed.tenant, &bed.client_id, REGISTRY_SCOPE, &good)
        .await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn e10_a_rotated_key_is_unknown_while_the_key_set_is_stale() {
    let bed = Bed::new().await;
    let cache_for = |seconds: i64| {
        let issuer = bed.issuer.clone();
        let change = move |state: &mut azure_emulator::state::State| {
            let cluster = state
                .clusters
                .iter_mut()
                .find(|c| c.issuer == issuer)
                .unwrap();
            cluster.jwks_cache_seconds = seconds;
        };
        bed.emulator.update(change).unwrap();
    };
    cache_for(3600);
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let keys = json!({"keys": [CLUSTER_KEY.public(), FOREIGN_KEY.public()]});
    std::fs::write(bed.file("jwks.json"), keys.to_string()).unwrap();
    let rotated = FOREIGN_KEY.sign(&bed.claims());
    let ask = async || {
        bed.entra_with(&bed.tenant, &bed.client_id, REGISTRY_SCOPE, &rotated)
            .await
    };
    assert_eq!(refusal(ask().await).await, (401, 700_027));
    cache_for(0);
    assert_eq!(ask().await.status(), 200);
}

#[tokio::test]
async fn e11_a_cluster_whose_keys_cannot_be_had_is_90061() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let issuer = bed.issuer.clone();
    let gone = move |state: &mut azure_emulator::state::State| {
        state.clusters.retain(|c| c.issuer != issuer);
    };
    bed.emulator.update(gone).unwrap();
    assert_eq!(refusal(bed.entra(&bed.claims()).await).await, (400, 90_061));
}

#[tokio::test]
async fn e12_an_unknown_client_id_is_700016() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let stranger = "99999999-0000-4000-8000-000000000000";
    let assertion = CLUSTER_KEY.sign(&bed.claims());
    let answer = bed
        .entra_with(&bed.tenant, stranger, REGISTRY_SCOPE, &assertion)
        .await;
    assert_eq!(refusal(answer).await, (400, 700_016));
    bed.change_identity(|identity| identity.enabled = false);
    assert_eq!(
        refusal(bed.entra(&bed.claims()).await).await,
        (401, 7_000_112)
    );
}

#[tokio::test]
async fn e13_an_unknown_tenant_is_90002() {
    let bed = Bed::new().await;
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    let assertion = CLUSTER_KEY.sign(&bed.claims());
    for (tenant, number) in [
        ("99999999-0000-4000-8000-000000000000", 90_002),
        ("a_b", 900_023),
    ] {
        let answer = bed
            .entra_with(tenant, &bed.client_id, REGISTRY_SCOPE, &assertion)
            .await;
        assert_eq!(refusal(answer).await, (400, number));
    }
}

#[tokio::test]
async fn e15_e16_unknown_and_disabled_resources_are_refused() {
    let bed = Bed::new().await;
    let assertion = CLUSTER_KEY.sign(&bed.claims());
    let ask = async |scope: &str| {
        bed.entra_with(&bed.tenant, &bed.client_id, scope, &assertion)
            .await
    };
    assert_eq!(
        ask(ARM_SCOPE).await.status(),
        200,
        "words of MSAL and a double slash are taken"
    );
    let registry = format!("https://{}/.default", bed.host);
    assert_eq!(refusal(ask(&registry).await).await, (400, 500_011));
    assert_eq!(
        refusal(ask("https://containerregistry.azure.net").await).await,
        (400, 70_011)
    );
    let two = format!("{REGISTRY_SCOPE} https://management.azure.com/.default");
    assert_eq!(refusal(ask(&two).await).await, (400, 700_022));
    let tenant = bed.tenant.clone();
    let disable = move |state: &mut azure_emulator::state::State| {
        let tenant = state
            .tenants
            .iter_mut()
            .find(|t| t.tenant_id == tenant)
            .unwrap();
        tenant.resources.push(azure_emulator::state::Resource {
            id: "https://containerregistry.azure.net".into(),
            status: ResourceStatus::Disabled,
        });
    };
    bed.emulator.update(disable).unwrap();
    assert_eq!(refusal(ask(REGISTRY_SCOPE).await).await, (400, 50_001));
}

#[tokio::test]
async fn e24_a_credential_counts_only_once_it_has_spread_and_may_flap() {
    let bed = Bed::on(start().await);
    let at = Timestamp::now() + SignedDuration::from_secs(90);
    bed.change_identity(|identity| {
        identity.federated_credentials[0].effective_after = Some(at);
        identity.federated_credentials[0].flap = 1;
    });
    assert_eq!(refusal(bed.entra(&bed.claims()).await).await.1, 70_021);
    bed.emulator.advance(SignedDuration::from_secs(100));
    assert_eq!(refusal(bed.entra(&bed.claims()).await).await.1, 700_211);
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
    assert_eq!(bed.entra(&bed.claims()).await.status(), 200);
}

#[tokio::test]
async fn e25_two_equal_refusals_have_different_ids() {
    let bed = Bed::new().await;
    bed.change_identity(|identity| identity.federated_credentials.clear());
    let (first, second) = (
        body(bed.entra(&bed.claims()).await).await,
        body(bed.entra(&bed.claims()).await).await,
    );
    assert_eq!(first["error_codes"], second["error_codes"]);
    assert_ne!(first["error_description"], second["error_description"]);
    assert_ne!(first["trace_id"], second["trace_id"]);
}

#[tokio::test]
async fn the_journal_knows_who_asked_for_what_but_no_token() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let filter = Filter {
        tenant: Some(bed.tenant.clone()),
        ..Filter::default()
    };
    let entries = bed.emulator.journal_of(&filter);
    let endpoints: Vec<Endpoint> = entries.iter().map(|e| e.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Login, Endpoint::Exchange]);
    assert!(
        entries
            .iter()
            .all(|e| e.subject.as_deref() == Some(&bed.subject))
    );
    assert_eq!(entries[0].scope.as_deref(), Some(REGISTRY_SCOPE));
    assert_eq!(entries[0].assertion.as_ref().unwrap().lifetime_s, 600);
    assert_eq!(entries[0].issued, entries[1].presented);
    assert_eq!(entries[1].issued, [azure_emulator::jwt::sha256(&refresh)]);
    assert!(entries[1].query_keys.is_empty());
    let text = serde_json::to_string(&entries).unwrap();
    assert!(!text.contains("eyJ"), "a token in the journal");
}
