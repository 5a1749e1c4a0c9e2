//! The proxy and its log.

use crate::bed::Bed;

#[tokio::test]
async fn an_unknown_host_does_not_resolve_and_is_logged() {
    let bed = Bed::new().await;
    let evil = format!("{}.evil.example", bed.host);
    for host in [evil.as_str(), "no-such-registry.azurecr.io"] {
        let error = bed
            .http
            .get(format!("https://{host}/v2/"))
            .send()
            .await
            .unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }
    assert_eq!(
        bed.http
            .get(format!("https://{}/v2/", bed.host))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    let connects = bed.emulator.connects();
    let accepted = |host: &str| connects.iter().find(|c| c.host == host).map(|c| c.accepted);
    assert_eq!(accepted(&evil), Some(false));
    assert_eq!(accepted(&bed.host), Some(true));
    assert_eq!(accepted("never.example"), None);
}

#[tokio::test]
async fn a_wrong_port_is_no_host_and_plain_proxying_is_refused() {
    let bed = Bed::new().await;
    assert!(
        bed.http
            .get(format!("https://{}:444/v2/", bed.host))
            .send()
            .await
            .is_err()
    );
    let plain = bed
        .http
        .get(format!("http://{}/v2/", bed.host))
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 405);
    let connects = bed.emulator.connects();
    let ports: Vec<u16> = connects
        .iter()
        .filter(|c| c.host == bed.host)
        .map(|c| c.port)
        .collect();
    assert_eq!(ports, [444, 80]);
}

#[tokio::test]
async fn every_authority_serves_its_own_discovery() {
    let bed = Bed::new().await;
    for host in [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
    ] {
        let url = format!(
            "https://{host}/{}/v2.0/.well-known/openid-configuration",
            bed.tenant
        );
        let document = crate::bed::body(bed.http.get(url).send().await.unwrap()).await;
        let endpoint = document["token_endpoint"].as_str().unwrap();
        assert!(
            endpoint.starts_with(&format!("https://{host}/")),
            "{endpoint}"
        );
    }
    let imds = "https://login.microsoftonline.com/metadata/identity/oauth2/token";
    assert_eq!(bed.http.get(imds).send().await.unwrap().status(), 404);
}
