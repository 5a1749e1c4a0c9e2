//! `POST /oauth2/exchange`: an Entra token for a registry-wide refresh token.

use http::StatusCode;
use serde_json::json;

use crate::cloud::REGISTRY_AUDIENCE;
use crate::core::Core;
use crate::journal::Entry;
use crate::jwt::Parsed;
use crate::keys::KeyName;
use crate::oauth::OauthRequest;
use crate::random::guid;
use crate::reply::{Reply, acr_error, json as json_reply, unauthorized};
use crate::roles::Rights;
use crate::state::{ArmAuth, Identity, REFRESH_TOKEN_LIFETIME, Registry, State};

/// `iss` of the registry's own tokens.
pub const ISSUER: &str = "Azure Container Registry";
/// Application id of the registry service, which may stand for its audience.
const REGISTRY_APP_ID: &str = "6a0ec4d3-30cb-4a83-91c0-ae56bc0e3d26";
const GRANTS: [&str; 3] = [
    "access_token",
    "access_token_refresh_token",
    "refresh_token",
];

/// Answers an exchange.
pub fn answer(
    core: &Core,
    registry: &Registry,
    entry: &mut Entry,
    request: &OauthRequest,
) -> Reply {
    if !request.post {
        return acr_error(
            entry,
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "404 page not found",
        );
    }
    let form = &request.form;
    let bad = |entry: &mut Entry, what: &str| {
        acr_error(entry, StatusCode::BAD_REQUEST, "BAD_REQUEST", what)
    };
    if !form
        .get("grant_type")
        .is_some_and(|grant| GRANTS.contains(&grant))
    {
        return bad(entry, "unsupported grant_type");
    }
    let Some(token) = form.get("access_token") else {
        return bad(entry, "access_token is missing");
    };
    if !form
        .get("service")
        .is_some_and(|service| registry.serves(service))
    {
        return bad(entry, "service is not this registry");
    }
    let (source, identity) = match judge(core, registry, token) {
        Ok(judged) => judged,
        Err(why) => return unauthorized(entry, why),
    };
    let rights = rights(core, registry, &identity);
    if !rights.any() && registry.no_role_status != 200 {
        let status =
            StatusCode::from_u16(registry.no_role_status).unwrap_or(StatusCode::UNAUTHORIZED);
        let refusal = if status == StatusCode::FORBIDDEN {
            "DENIED"
        } else {
            "UNAUTHORIZED"
        };
        return acr_error(
            entry,
            status,
            refusal,
            "the identity has no role at this registry",
        );
    }
    let token = mint(core, registry, entry, &source, &identity, &rights);
    entry.issues(&token);
    json_reply(StatusCode::OK, &json!({"refresh_token": token}))
}

/// The rights that the identity has now.
pub fn rights(core: &Core, registry: &Registry, identity: &Identity) -> Rights {
    let state = core.state.read().unwrap();
    Rights::of(&state, identity, registry, |moment| {
        core.clock.has_come(moment)
    })
}

fn judge(
    core: &Core,
    registry: &Registry,
    token: &str,
) -> Result<(Parsed, Identity), &'static str> {
    let source = core
        .keys
        .verify(KeyName::Entra, token)
        .map_err(|_| "the access token's signature is invalid")?;
    if source
        .seconds("exp")
        .is_none_or(|exp| exp < core.clock.now())
    {
        return Err("the access token has expired");
    }
    if !source
        .text("tid")
        .is_some_and(|tid| tid.eq_ignore_ascii_case(&registry.tenant_id))
    {
        return Err("the access token is from another tenant");
    }
    let client_id = source.text("appid").unwrap_or_default();
    let state = core.state.read().unwrap();
    check_audience(&state, registry, &source)?;
    let identity = state.identity(client_id).filter(|i| i.enabled);
    let identity = identity
        .cloned()
        .ok_or("the principal is unknown or disabled")?;
    drop(state);
    Ok((source, identity))
}

fn check_audience(state: &State, registry: &Registry, source: &Parsed) -> Result<(), &'static str> {
    let audience = source.text("aud").unwrap_or_default().trim_end_matches('/');
    let resource_manager = state
        .all_clouds()
        .any(|cloud| cloud.is_resource_manager(audience));
    match registry.arm_auth {
        _ if audience == REGISTRY_AUDIENCE || audience == REGISTRY_APP_ID => Ok(()),
        ArmAuth::Enabled if resource_manager => Ok(()),
        ArmAuth::Disabled if resource_manager => Err("authentication-as-arm is disabled"),
        _ => Err("the access token's audience is not accepted"),
    }
}

/// The refresh token. `oid`, `epoch` and `fed_sub` are private claims.
fn mint(
    core: &Core,
    registry: &Registry,
    entry: &Entry,
    source: &Parsed,
    identity: &Identity,
    rights: &Rights,
) -> String {
    let lifetime = registry
        .refresh_token_lifetime_s
        .unwrap_or(REFRESH_TOKEN_LIFETIME);
    let mut validity = core.clock.validity(lifetime);
    if registry.bound_to_entra {
        let end = source.seconds("exp").unwrap_or(validity.expires_at);
        validity.expires_at = validity.expires_at.min(end);
    }
    let claims = json!({
        "jti": guid(),
        "sub": identity.client_id,
        "nbf": validity.not_before,
        "exp": validity.expires_at,
        "iat": validity.issued_at,
        "iss": ISSUER,
        "aud": entry.host,
        "version": "1.0",
        "grant_type": "refresh_token",
        "tenant": registry.tenant_id,
        "permissions": {"actions": rights.permissions(), "notActions": null},
        "roles": [],
        "oid": identity.object_id(),
        "epoch": registry.credential_epoch,
        "fed_sub": entry.subject,
    });
    core.keys.sign(KeyName::Refresh, &claims)
}
