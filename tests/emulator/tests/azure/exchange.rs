//! The registry's exchange endpoint.

use azure_emulator::roles::Role;
use azure_emulator::state::{ArmAuth, RoleAssignment};
use jiff::{SignedDuration, Timestamp};

use crate::bed::{ARM_SCOPE, Bed, REGISTRY_SCOPE, body, field, start};

#[tokio::test]
async fn a1_a_registry_token_gives_a_refresh_token_of_three_hours() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    let answer = bed.exchange(&entra).await;
    assert!(answer.headers().contains_key("x-ms-correlation-request-id"));
    let content = body(answer).await;
    assert_eq!(content.as_object().unwrap().len(), 1, "only refresh_token");
    let claims = bed
        .emulator
        .verify_token(content["refresh_token"].as_str().unwrap())
        .unwrap();
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3 * 3600
    );
    assert_eq!(claims["aud"], bed.host.as_str());
    assert_eq!(claims["sub"], bed.client_id.as_str());
}

#[tokio::test]
async fn a2_a3_a4_the_resource_manager_audience_counts_only_while_allowed() {
    let bed = Bed::new().await;
    let (arm, registry) = (
        bed.entra_token(ARM_SCOPE).await,
        bed.entra_token(REGISTRY_SCOPE).await,
    );
    assert_eq!(bed.exchange(&arm).await.status(), 200);
    bed.change_registry(|registry| registry.arm_auth = ArmAuth::Disabled);
    let refused = bed.exchange(&arm).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(body(refused).await["errors"][0]["code"], "UNAUTHORIZED");
    assert_eq!(bed.exchange(&registry).await.status(), 200);
}

#[tokio::test]
async fn a5_an_identity_without_a_role_is_refused() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    assert_eq!(bed.exchange(&entra).await.status(), 200);
    let client = bed.client_id.clone();
    let revoke = move |state: &mut azure_emulator::state::State| {
        state
            .role_assignments
            .retain(|role| role.principal != client);
    };
    bed.emulator.update(revoke).unwrap();
    assert_eq!(bed.exchange(&entra).await.status(), 401);
    bed.change_registry(|registry| registry.no_role_status = 403);
    assert_eq!(bed.exchange(&entra).await.status(), 403);
}

#[tokio::test]
async fn a6_a_role_counts_only_once_it_has_spread() {
    let bed = Bed::on(start().await);
    let at = Timestamp::now() + SignedDuration::from_mins(5);
    let delay = move |state: &mut azure_emulator::state::State| {
        state.role_assignments[0].effective_after = Some(at);
    };
    bed.emulator.update(delay).unwrap();
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    assert_eq!(bed.exchange(&entra).await.status(), 401);
    bed.emulator.advance(SignedDuration::from_mins(6));
    assert_eq!(bed.exchange(&entra).await.status(), 200);
}

#[tokio::test]
async fn a7_a_token_of_another_tenant_is_refused() {
    let (bed, other) = (Bed::new().await, Bed::new().await);
    let foreign = other.entra_token(REGISTRY_SCOPE).await;
    assert_eq!(other.exchange(&foreign).await.status(), 200);
    let role = RoleAssignment::new(&other.client_id, &bed.host, Role::AcrPull);
    bed.emulator.assign_role(role).unwrap();
    assert_eq!(bed.exchange(&foreign).await.status(), 401);
}

#[tokio::test]
async fn a8_another_service_is_400() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    assert_eq!(bed.exchange_for(&bed.host, &entra).await.status(), 200);
    assert_eq!(
        bed.exchange_for("elsewhere.azurecr.io", &entra)
            .await
            .status(),
        400
    );
}

#[tokio::test]
async fn a9_there_is_no_get() {
    let bed = Bed::new().await;
    let url = format!("https://{}/oauth2/exchange", bed.host);
    assert_eq!(bed.http.get(url).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a10_too_many_requests_are_told_how_long_to_wait() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    bed.change_registry(|registry| registry.oauth_per_minute = Some(1));
    assert_eq!(bed.exchange(&entra).await.status(), 200);
    let throttled = bed.exchange(&entra).await;
    assert_eq!(throttled.status(), 429);
    let wait: u32 = throttled.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a11_the_firewall_denies() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    assert_eq!(bed.exchange(&entra).await.status(), 200);
    bed.change_registry(|registry| registry.public_network_access = false);
    let refused = bed.exchange(&entra).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(body(refused).await["errors"][0]["code"], "DENIED");
}

#[tokio::test]
async fn a16_the_kubelets_old_grant_counts_as_well() {
    let bed = Bed::new().await;
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    let url = format!("https://{}/oauth2/exchange", bed.host);
    let ask = async |grant: &str| {
        // The kubelet's provider puts the same token into both fields.
        let form = [
            ("grant_type", grant),
            ("service", bed.host.as_str()),
            ("access_token", entra.as_str()),
            ("refresh_token", entra.as_str()),
        ];
        bed.http.post(&url).form(&form).send().await.unwrap()
    };
    let refresh = field(ask("access_token_refresh_token").await, "refresh_token").await;
    assert_eq!(bed.token(&refresh, "repository:a:pull").await.status(), 200);
    assert_eq!(ask("password").await.status(), 400);
}

#[tokio::test]
async fn a31_all_login_servers_of_a_registry_serve() {
    let bed = Bed::new().await;
    let regional = bed.host.replace(".azurecr.io", ".eastus.geo.azurecr.io");
    let name = regional.clone();
    bed.change_registry(|registry| registry.login_servers.push(name));
    let entra = bed.entra_token(REGISTRY_SCOPE).await;
    let form = [
        ("grant_type", "access_token"),
        ("service", regional.as_str()),
        ("access_token", entra.as_str()),
    ];
    let url = format!("https://{regional}/oauth2/exchange");
    let answer = bed.http.post(url).form(&form).send().await.unwrap();
    let refresh = field(answer, "refresh_token").await;
    assert_eq!(
        bed.token(&refresh, "repository:a:pull").await.status(),
        200,
        "tokens are interchangeable"
    );
}
