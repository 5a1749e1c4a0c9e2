//! The Entra authority: its token endpoint and the discovery documents that clients ask for.

use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::cloud::{Cloud, REGISTRY_AUDIENCE};
use crate::core::Core;
use crate::entra_error::EntraError;
use crate::federation;
use crate::form::Form;
use crate::inject;
use crate::journal::{Assertion, Endpoint, Entry};
use crate::jwt::Parsed;
use crate::keys::KeyName;
use crate::random::{between, guid};
use crate::reply::{Reply, json as json_reply, read};
use crate::state::{Identity, IdentityKind, ResourceStatus, Tenant};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Scope words that are no resource; MSAL sends them with every request.
const NO_RESOURCE: [&str; 3] = ["openid", "offline_access", "profile"];

/// Answers a request to an authority.
pub async fn serve(
    core: &Core,
    cloud: &Cloud,
    entry: &mut Entry,
    request: Request<Incoming>,
) -> anyhow::Result<Reply> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (request.method(), segments.as_slice()) {
        (_, [tenant, "oauth2", "v2.0", "token"]) => {
            token(core, cloud, tenant, entry, request).await
        }
        (&Method::GET, _) => Ok(discovery(core, cloud, &segments, entry)),
        _ => Ok(not_found(entry)),
    }
}

async fn token(
    core: &Core,
    cloud: &Cloud,
    tenant: &str,
    entry: &mut Entry,
    request: Request<Incoming>,
) -> anyhow::Result<Reply> {
    entry.endpoint = Endpoint::Login;
    entry.tenant = Some(tenant.to_owned());
    let is_form = request.method() == Method::POST && has_form_type(&request);
    let form = Form::read(&read(request.into_body()).await?);
    note(entry, &form);
    let fault = core.faults.take(entry);
    if let Some(kind) = &fault
        && let Some(reply) = inject::instead(kind, entry, &form).await?
    {
        return Ok(reply);
    }
    let reply = match grant(core, cloud, tenant, is_form, &form, entry).await {
        Ok(answer) => json_reply(StatusCode::OK, &answer),
        Err(error) if core.state.read().unwrap().settings.swap_status => {
            error.swapped().reply(entry)
        }
        Err(error) => error.reply(entry),
    };
    match &fault {
        Some(kind) => inject::after(kind, reply).await,
        None => Ok(reply),
    }
}

fn has_form_type(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

/// Notes what the form says, before anything is checked.
fn note(entry: &mut Entry, form: &Form) {
    entry.form_keys = form.keys();
    entry.client_id = form.get("client_id").map(str::to_owned);
    entry.grant_type = form.get("grant_type").map(str::to_owned);
    entry.scope = form.get("scope").map(str::to_owned);
    let Some(assertion) = form.get("client_assertion") else {
        return;
    };
    entry.presents(assertion);
    let Ok(parsed) = Parsed::read(assertion) else {
        return;
    };
    let text = |claim| parsed.text(claim).unwrap_or_default().to_owned();
    let seconds = |claim| parsed.seconds(claim).unwrap_or_default();
    let uid = &parsed.claims["kubernetes.io"]["serviceaccount"]["uid"];
    entry.subject = parsed.text("sub").map(str::to_owned);
    entry.assertion = Some(Assertion {
        issuer: text("iss"),
        subject: text("sub"),
        audience: parsed.audiences().into_iter().map(str::to_owned).collect(),
        lifetime_s: seconds("exp") - seconds("iat"),
        service_account_uid: uid.as_str().map(str::to_owned),
    });
}

/// The checks in Entra's order; the first that fails answers.
async fn grant(
    core: &Core,
    cloud: &Cloud,
    tenant: &str,
    is_form: bool,
    form: &Form,
    entry: &mut Entry,
) -> Result<Value, EntraError> {
    if !is_form {
        return Err(missing("grant_type"));
    }
    let (tenant, identity, assertion) = {
        let state = core.state.read().unwrap();
        let tenant = find_tenant(&state, cloud, tenant)?;
        match form.get("grant_type") {
            Some("client_credentials") => {}
            Some(_) => {
                return Err(EntraError::new(
                    70_003,
                    "The app requested an unsupported grant type.",
                ));
            }
            None => return Err(missing("grant_type")),
        }
        let identity = find_identity(&state, &tenant, form)?;
        (tenant, identity, find_assertion(form)?)
    };
    entry.tenant = Some(tenant.tenant_id.clone());
    entry.identity = Some(identity.object_id());
    federation::check(core, &identity, assertion).await?;
    let resource = find_resource(cloud, &tenant, form)?;
    let lifetime = lifetime(core, &identity);
    let token = mint(
        core,
        &tenant,
        &identity,
        &resource,
        entry.subject.as_deref(),
        lifetime,
    );
    entry.issues(&token);
    Ok(json!({
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": token,
    }))
}

fn missing(parameter: &str) -> EntraError {
    EntraError::new(
        900_144,
        format!("The request body must contain the following parameter: '{parameter}'."),
    )
}

fn find_tenant(
    state: &crate::state::State,
    cloud: &Cloud,
    name: &str,
) -> Result<Tenant, EntraError> {
    let sound = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    if !sound {
        let text = format!(
            "Specified tenant identifier '{name}' is neither a valid DNS name, nor a valid external domain."
        );
        return Err(EntraError::new(900_023, text));
    }
    let found = state
        .tenant(name)
        .filter(|tenant| tenant.cloud == cloud.name);
    found.cloned().ok_or_else(|| {
        EntraError::new(
            90_002,
            format!("Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."),
        )
    })
}

fn find_identity(
    state: &crate::state::State,
    tenant: &Tenant,
    form: &Form,
) -> Result<Identity, EntraError> {
    let client_id = form.get("client_id").ok_or_else(|| missing("client_id"))?;
    let found = state
        .identity(client_id)
        .filter(|i| i.lives_in(&tenant.tenant_id));
    match found {
        Some(identity) if identity.enabled => Ok(identity.clone()),
        Some(_) => Err(EntraError::new(
            7_000_112,
            format!("Application '{client_id}' is disabled."),
        )),
        None => Err(EntraError::new(
            700_016,
            format!(
                "Application with identifier '{client_id}' was not found in the directory '{}'.",
                tenant.tenant_id
            ),
        )),
    }
}

fn find_assertion(form: &Form) -> Result<&str, EntraError> {
    if form.get("client_secret").is_some() {
        return Err(EntraError::new(
            7_000_215,
            "Invalid client secret provided.",
        ));
    }
    let typed = form.get("client_assertion_type") == Some(ASSERTION_TYPE);
    let absent = || {
        let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
        EntraError::new(7_000_218, text)
    };
    form.get("client_assertion")
        .filter(|_| typed)
        .ok_or_else(absent)
}

fn find_resource(cloud: &Cloud, tenant: &Tenant, form: &Form) -> Result<String, EntraError> {
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?;
    let mut wanted: Vec<&str> = scope
        .split_whitespace()
        .filter(|word| !NO_RESOURCE.contains(word))
        .collect();
    let invalid = || {
        EntraError::new(
            70_011,
            format!(
                "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
            ),
        )
    };
    let mut resources: Vec<&str> = wanted
        .drain(..)
        .map(|word| word.strip_suffix("/.default").ok_or_else(invalid))
        .collect::<Result<_, _>>()?;
    resources.dedup();
    let [resource] = resources[..] else {
        return Err(if resources.is_empty() {
            invalid()
        } else {
            EntraError::new(
                700_022,
                "The provided value for the input parameter scope is not valid because it contains more than one resource.",
            )
        });
    };
    match status_of(cloud, tenant, resource) {
        ResourceStatus::Enabled => Ok(resource.to_owned()),
        ResourceStatus::Disabled => Err(EntraError::new(
            50_001,
            format!("The resource principal named {resource} is disabled or does not exist."),
        )),
        ResourceStatus::Missing => Err(EntraError::new(
            500_011,
            format!(
                "The resource principal named {resource} was not found in the tenant named {}.",
                tenant.tenant_id
            ),
        )),
    }
}

fn status_of(cloud: &Cloud, tenant: &Tenant, resource: &str) -> ResourceStatus {
    let resource = resource.trim_end_matches('/');
    let mut listed = tenant.resources.iter();
    match listed.find(|r| r.id.trim_end_matches('/') == resource) {
        Some(resource) => resource.status,
        None if resource == REGISTRY_AUDIENCE && cloud.knows_registry_audience => {
            ResourceStatus::Enabled
        }
        None if resource == REGISTRY_AUDIENCE => ResourceStatus::Disabled,
        None if cloud.is_resource_manager(resource) => ResourceStatus::Enabled,
        None => ResourceStatus::Missing,
    }
}

fn lifetime(core: &Core, identity: &Identity) -> i64 {
    let global = core.state.read().unwrap().settings.entra_lifetime_s;
    identity
        .token_lifetime_s
        .or(global)
        .unwrap_or_else(|| match identity.kind {
            IdentityKind::App => between(3599, 5399),
            IdentityKind::Uami => 86_399,
        })
}

/// The access token. `fed_sub` is ours: it lets the journal name the subject that a later request began with.
fn mint(
    core: &Core,
    tenant: &Tenant,
    identity: &Identity,
    resource: &str,
    subject: Option<&str>,
    lifetime: i64,
) -> String {
    let validity = core.clock.validity(lifetime);
    let object_id = identity.object_id();
    let claims = json!({
        "aud": resource,
        "iss": format!("https://sts.windows.net/{}/", tenant.tenant_id),
        "iat": validity.issued_at,
        "nbf": validity.not_before,
        "exp": validity.expires_at,
        "tid": tenant.tenant_id,
        "oid": object_id,
        "sub": object_id,
        "appid": identity.client_id,
        "appidacr": "2",
        "idtyp": "app",
        "ver": "1.0",
        "uti": guid(),
        "fed_sub": subject,
    });
    core.keys.sign(KeyName::Entra, &claims)
}

fn discovery(core: &Core, cloud: &Cloud, segments: &[&str], entry: &mut Entry) -> Reply {
    let authority = format!("https://{}", entry.host);
    let document = match segments {
        [tenant, "v2.0", ".well-known", "openid-configuration"] => json!({
            "issuer": format!("{authority}/{tenant}/v2.0"),
            "authorization_endpoint": format!("{authority}/{tenant}/oauth2/v2.0/authorize"),
            "token_endpoint": format!("{authority}/{tenant}/oauth2/v2.0/token"),
            "jwks_uri": format!("{authority}/{tenant}/discovery/v2.0/keys"),
            "response_types_supported": ["code", "id_token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }),
        [_, "discovery", "v2.0", "keys"] => json!({"keys": core.keys.public(KeyName::Entra)}),
        ["common", "discovery", "instance"] => json!({
            "tenant_discovery_endpoint": format!("{authority}/common/v2.0/.well-known/openid-configuration"),
            "api-version": "1.1",
            "metadata": [{
                "preferred_network": entry.host,
                "preferred_cache": entry.host,
                "aliases": cloud.authorities,
            }],
        }),
        ["metadata", "endpoints"] => json!([{
            "name": cloud.name,
            "authentication": {
                "loginEndpoint": authority,
                "audiences": cloud.resource_manager,
                "tenant": "common",
            },
            "suffixes": {"acrLoginServer": cloud.registry_suffix},
        }]),
        _ => return not_found(entry),
    };
    entry.endpoint = Endpoint::Discovery;
    json_reply(StatusCode::OK, &document)
}

fn not_found(entry: &mut Entry) -> Reply {
    entry.error = Some("not_found".into());
    json_reply(StatusCode::NOT_FOUND, &json!({"error": "not_found"}))
}
