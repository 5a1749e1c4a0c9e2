//! The registry's token endpoint, and who may pass with which token.

use azure_emulator::jwt::Parsed;
use azure_emulator::roles::Role;
use azure_emulator::state::{BodyStyle, Condition, Mode, PasswordGrant, RoleAssignment};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::bed::{Bed, body, field, start};

const ZERO_GUID: &str = "00000000-0000-0000-0000-000000000000";

async fn access(answer: reqwest::Response) -> (String, Value) {
    let token = field(answer, "access_token").await;
    let list = Parsed::read(&token).unwrap().claims["access"].clone();
    (token, list)
}

#[tokio::test]
async fn a17_scopes_may_stand_in_one_parameter_or_in_many() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let (_, joined) = access(
        bed.token(&refresh, "repository:a:pull repository:b:pull")
            .await,
    )
    .await;
    let many = "repository:a:pull&scope=repository:b:pull";
    let (_, repeated) = access(bed.token_basic(ZERO_GUID, &refresh, many).await).await;
    assert_eq!(joined, repeated);
    assert_eq!(joined.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a18_only_what_the_role_allows_is_granted() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let (_, list) = access(bed.token(&refresh, "repository:a:pull,push").await).await;
    assert_eq!(
        list,
        json!([{"type": "repository", "name": "a", "actions": ["pull"]}])
    );
    assert_eq!(bed.token(&refresh, "repository:a:push").await.status(), 401);
    bed.change_registry(|registry| registry.body = BodyStyle::Compat);
    let (_, list) = access(bed.token(&refresh, "repository:a:push").await).await;
    assert_eq!(list, json!([]));
}

#[tokio::test]
async fn a19_a20_a21_an_attribute_based_registry_asks_for_repository_roles() {
    let bed = Bed::new().await;
    bed.change_registry(|registry| registry.mode = Mode::Abac);
    let entra = bed.entra_token(crate::bed::REGISTRY_SCOPE).await;
    assert_eq!(
        bed.exchange(&entra).await.status(),
        401,
        "AcrPull counts for nothing"
    );
    bed.change_registry(|registry| registry.no_role_status = 200);
    let idle = field(bed.exchange(&entra).await, "refresh_token").await;
    let asked = bed.token(&idle, "repository:team-a/x:pull").await;
    assert_eq!(
        asked.status(),
        401,
        "also where the exchange says nothing of it"
    );
    let mut role = RoleAssignment::new(&bed.client_id, &bed.host, Role::RepositoryReader);
    role.condition = Some(Condition {
        starts_with: vec!["Team-A/".into()],
        ..Condition::default()
    });
    bed.emulator.assign_role(role).unwrap();
    let refresh = bed.refresh_token().await;
    let (_, list) = access(
        bed.token(
            &refresh,
            "repository:team-a/x:pull repository:team-b/x:pull",
        )
        .await,
    )
    .await;
    assert_eq!(
        list,
        json!([{"type": "repository", "name": "team-a/x", "actions": ["pull"]}])
    );
    assert_eq!(bed.token(&refresh, "repository:*:*").await.status(), 401);
}

#[tokio::test]
async fn a22_a_raised_epoch_ends_all_tokens() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let (token, _) = access(bed.token(&refresh, "repository:a:pull").await).await;
    assert_eq!(bed.v2("", &token).await.status(), 200);
    bed.emulator.raise_epoch(&bed.host).unwrap();
    assert_eq!(bed.token(&refresh, "repository:a:pull").await.status(), 401);
    assert_eq!(bed.v2("", &token).await.status(), 401);
    let fresh = bed.refresh_token().await;
    assert_eq!(bed.token(&fresh, "repository:a:pull").await.status(), 200);
}

#[tokio::test]
async fn a23_a24_a25_tokens_are_passwords_within_their_own_limits() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let (token, _) = access(
        bed.token_basic(ZERO_GUID, &refresh, "repository:a:pull")
            .await,
    )
    .await;
    let (_, list) = access(
        bed.token_basic(ZERO_GUID, &token, "repository:a:pull")
            .await,
    )
    .await;
    assert_eq!(list[0]["name"], "a");
    assert_eq!(
        bed.token_basic(ZERO_GUID, &token, "repository:b:pull")
            .await
            .status(),
        401
    );
    assert_eq!(
        bed.token_basic("somebody", &refresh, "repository:a:pull")
            .await
            .status(),
        401
    );
}

#[tokio::test]
async fn a26_a28_the_registry_itself_takes_only_access_tokens() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let (token, _) = access(bed.token(&refresh, "repository:a:pull").await).await;
    assert_eq!(bed.v2("", &token).await.status(), 200);
    let as_bearer = bed.v2("", &refresh).await;
    assert_eq!(as_bearer.status(), 401);
    let challenge = as_bearer.headers()["www-authenticate"]
        .to_str()
        .unwrap()
        .to_owned();
    let realm = format!(
        r#"Bearer realm="https://{0}/oauth2/token",service="{0}""#,
        bed.host
    );
    assert!(challenge.starts_with(&realm), "{challenge}");
    let url = format!("https://{}/v2/_catalog", bed.host);
    let basic = bed
        .http
        .get(url)
        .basic_auth(ZERO_GUID, Some(&refresh))
        .send()
        .await
        .unwrap();
    assert_eq!(basic.status(), 401);
    assert_eq!(
        basic.headers()["www-authenticate"],
        r#"Basic realm="Azure Container Registry""#
    );
}

#[tokio::test]
async fn an_unauthenticated_request_is_challenged_in_the_registrys_words() {
    let bed = Bed::new().await;
    let url = format!("https://{}/v2/team/app/manifests/latest", bed.host);
    let answer = bed.http.head(url.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.ends_with(r#",scope="repository:team/app:pull""#),
        "{challenge}"
    );
    let errors = body(bed.http.get(url).send().await.unwrap()).await;
    assert_eq!(errors["errors"][0]["code"], "UNAUTHORIZED");
    assert_eq!(
        errors["errors"][0]["detail"][0],
        json!({"Type": "repository", "Name": "team/app", "Action": "pull"})
    );
}

#[tokio::test]
async fn a27_the_password_grant_can_be_the_old_400() {
    let bed = Bed::new().await;
    let refresh = bed.refresh_token().await;
    let form = [
        ("grant_type", "password"),
        ("service", bed.host.as_str()),
        ("scope", "repository:a:pull"),
        ("username", ZERO_GUID),
        ("password", refresh.as_str()),
    ];
    let url = format!("https://{}/oauth2/token", bed.host);
    let ask = async || bed.http.post(&url).form(&form).send().await.unwrap();
    assert_eq!(ask().await.status(), 200);
    bed.change_registry(|registry| registry.password_grant = PasswordGrant::Legacy400);
    assert_eq!(ask().await.status(), 400);
    assert_eq!(
        bed.token_basic(ZERO_GUID, &refresh, "repository:a:pull")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a29_a_token_of_one_registry_is_nothing_at_another() {
    let (bed, other) = (Bed::new().await, Bed::new().await);
    let refresh = bed.refresh_token().await;
    let (token, _) = access(bed.token(&refresh, "repository:a:pull").await).await;
    assert_eq!(bed.v2("", &token).await.status(), 200);
    assert_eq!(other.v2("", &token).await.status(), 401);
    assert_eq!(
        other.token(&refresh, "repository:a:pull").await.status(),
        401
    );
}

#[tokio::test]
async fn a32_a33_anonymous_pull_works_until_a_bad_credential_is_sent() {
    let bed = Bed::new().await;
    let url = format!(
        "https://{0}/oauth2/token?service={0}&scope=repository:a:pull",
        bed.host
    );
    let ask = async || bed.http.get(&url).send().await.unwrap();
    assert_eq!(ask().await.status(), 401);
    bed.change_registry(|registry| registry.anonymous_pull = true);
    let (token, list) = access(ask().await).await;
    assert_eq!(
        list,
        json!([{"type": "repository", "name": "a", "actions": ["pull"]}])
    );
    assert_eq!(
        bed.v2("a/tags/list", &token).await.status(),
        404,
        "allowed, but there is no such repository"
    );
    bed.change_registry(|registry| registry.refresh_token_lifetime_s = Some(-1));
    let expired = bed.refresh_token().await;
    assert_eq!(
        bed.token_basic(ZERO_GUID, &expired, "repository:a:pull")
            .await
            .status(),
        401
    );
}

#[tokio::test]
async fn an_expired_refresh_token_is_refused_and_a_later_one_still_pulls() {
    let bed = Bed::on(start().await);
    let refresh = bed.refresh_token().await;
    let (token, _) = access(bed.token(&refresh, "repository:a:pull").await).await;
    bed.emulator.advance(SignedDuration::from_mins(76));
    assert_eq!(bed.token(&refresh, "repository:a:pull").await.status(), 200);
    assert_eq!(
        bed.v2("", &token).await.status(),
        401,
        "access tokens live 75 minutes"
    );
    bed.emulator.advance(SignedDuration::from_mins(120));
    assert_eq!(bed.token(&refresh, "repository:a:pull").await.status(), 401);
    let fresh = bed.refresh_token().await;
    let (token, _) = access(bed.token(&fresh, "repository:a:pull").await).await;
    assert_eq!(
        bed.v2("", &token).await.status(),
        200,
        "the real registry process accepts it in real time"
    );
}

#[tokio::test]
async fn short_lives_work_under_a_moved_clock() {
    let bed = Bed::on(start().await);
    bed.emulator
        .set_clock_offset(SignedDuration::from_hours(48));
    bed.change_registry(|registry| {
        registry.refresh_token_lifetime_s = Some(30);
        registry.access_token_lifetime_s = Some(600);
    });
    let refresh = bed.refresh_token().await;
    let (token, _) = access(bed.token(&refresh, "repository:a:pull").await).await;
    assert_eq!(bed.v2("", &token).await.status(), 200);
    bed.emulator.advance(SignedDuration::from_secs(31));
    assert_eq!(bed.token(&refresh, "repository:a:pull").await.status(), 401);
    assert_eq!(
        bed.v2("", &token).await.status(),
        401,
        "no longer than the token it came from"
    );
}
