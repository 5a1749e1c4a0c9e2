//! Clouds beside the national ones.

use azure_emulator::cloud::{Cloud, PUBLIC};
use azure_emulator::state::Tenant;

use crate::bed::{Bed, CLUSTER_KEY, REGISTRY_SCOPE, body, field, refusal};

/// Moves the test's tenant into a cloud of its own; returns the host of its authority.
fn into_custom_cloud(bed: &Bed) -> String {
    let (name, _) = bed.host.split_once('.').unwrap();
    let authority = format!("login.{name}.private");
    let cloud = Cloud::custom(
        name,
        &authority,
        format!("https://management.{name}.private"),
        format!("azurecr.{name}.private"),
    );
    bed.emulator.add_cloud(cloud).unwrap();
    let tenant = Tenant {
        tenant_id: bed.tenant.clone(),
        cloud: name.to_owned(),
        ..Tenant::default()
    };
    bed.emulator.add_tenant(tenant).unwrap();
    authority
}

#[tokio::test]
async fn a_custom_cloud_knows_its_tenants_and_its_own_resource_manager_only() {
    let bed = Bed::new().await;
    let authority = into_custom_cloud(&bed);
    let assertion = CLUSTER_KEY.sign(&bed.claims());
    let ask = async |host: &str, scope: &str| {
        bed.entra_at(host, &bed.tenant, &bed.client_id, scope, &assertion)
            .await
    };
    let elsewhere = ask("login.microsoftonline.com", REGISTRY_SCOPE).await;
    assert_eq!(refusal(elsewhere).await, (400, 90_002));
    let registry_audience = ask(&authority, REGISTRY_SCOPE).await;
    assert_eq!(refusal(registry_audience).await, (400, 50_001));
    let foreign = ask(&authority, "https://management.azure.com/.default").await;
    assert_eq!(refusal(foreign).await, (400, 500_011));

    let scope = format!(
        "https://{}/.default",
        authority.replace("login", "management")
    );
    let token = field(ask(&authority, &scope).await, "access_token").await;
    assert_eq!(bed.exchange(&token).await.status(), 200);

    let metadata = format!("https://{authority}/metadata/endpoints?api-version=2019-05-01");
    let document = body(bed.http.get(metadata).send().await.unwrap()).await;
    assert!(
        document[0]["suffixes"]["acrLoginServer"]
            .as_str()
            .unwrap()
            .starts_with("azurecr."),
        "{document}"
    );
}

#[tokio::test]
async fn a_cloud_that_cannot_exist_is_refused() {
    let bed = Bed::new().await;
    let add = |name: &str, authority: &str| {
        let cloud = Cloud::custom(
            name,
            authority,
            "https://management.x.private",
            "cr.x.private",
        );
        bed.emulator.add_cloud(cloud)
    };
    assert!(add("twice", "login.microsoftonline.com").is_err());
    assert!(add("odd", "https://login.x.private").is_err());
    assert!(add(PUBLIC, "login.x.private").is_err());
    let stray = Tenant {
        tenant_id: bed.tenant.clone(),
        cloud: "nowhere".to_owned(),
        ..Tenant::default()
    };
    assert!(bed.emulator.add_tenant(stray).is_err());
    into_custom_cloud(&bed);
}
