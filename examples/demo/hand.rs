//! The requests that acrcred makes, made by hand: to see what Entra and a registry say to each audience.

use anyhow::{Context as _, Result, ensure};
use reqwest::{Certificate, Client, Proxy, StatusCode};
use serde_json::Value;

use crate::Cast;
use crate::azure::{CLIENT, TENANT};
use crate::cluster::SOON;
use crate::story::Story;

pub const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";
pub const RESOURCE_MANAGER_AUDIENCE: &str = "https://management.azure.com";

/// An Entra token that never leaves this file.
pub struct EntraToken(String);

/// A client that goes where acrcred goes.
pub fn client(cast: &Cast) -> Result<Client> {
    let client = Client::builder()
        .timeout(SOON)
        .proxy(Proxy::https(cast.azure.proxy())?)
        .tls_certs_only([Certificate::from_pem(cast.azure.ca())?]);
    Ok(client.build()?)
}

/// Asks Entra for a token, with the same assertion that acrcred presents.
pub async fn sign_in(
    story: &Story,
    cast: &Cast,
    client: &Client,
    audience: &str,
) -> Result<EntraToken> {
    let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    let scope = format!("{audience}/.default");
    story.command(&format!(
        "ENTRA_TOKEN=$(curl {url} \\\n       \
         -d grant_type=client_credentials -d client_id=$AZURE_CLIENT_ID -d scope={scope} \\\n       \
         -d client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \\\n       \
         -d client_assertion=$(cat $AZURE_FEDERATED_TOKEN_FILE) | jq -r .access_token)"
    ));
    let assertion = cast.pod.assertion()?;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("scope", &scope),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion.trim()),
    ];
    let answer = client.post(&url).form(&form).send().await?;
    let status = answer.status();
    ensure!(
        status.is_success(),
        "Entra refused a token for {audience}: {status}"
    );
    story.output(&status.to_string());
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let token = answer["access_token"]
        .as_str()
        .context("Entra's answer has no token")?;
    Ok(EntraToken(token.to_owned()))
}

/// What a registry says to a token.
pub async fn exchange(
    story: &Story,
    client: &Client,
    server: &str,
    token: &EntraToken,
) -> Result<StatusCode> {
    let url = format!("https://{server}/oauth2/exchange");
    story.command(&format!(
        "curl {url} -d grant_type=access_token -d service={server} -d access_token=$ENTRA_TOKEN"
    ));
    let form = [
        ("grant_type", "access_token"),
        ("service", server),
        ("access_token", &token.0),
    ];
    let status = client.post(&url).form(&form).send().await?.status();
    story.output(&status.to_string());
    Ok(status)
}
