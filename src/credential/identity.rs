//! Who asks for a credential.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::Token;
use super::lifetime::payload;
use super::names::{is_guid, is_subdomain, shortened};

/// Whom an access token or assertion is for, without the `/.default` of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience(String);

/// An application (client) id: a GUID in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(String);

/// A tenant: a GUID or a verified domain, in lower case. It becomes a segment of a URL's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

/// Indicates that an id is malformed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidId {
    /// Not a GUID.
    #[error("the client id {0:?} is not a GUID")]
    Client(String),
    /// Neither GUID nor domain.
    #[error("the tenant id {0:?} is neither a GUID nor a domain name")]
    Tenant(String),
}

/// What Entra compares with a federated identity credential: the claims of an assertion, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionClaims {
    /// `iss`, exactly as stated: a trailing slash counts.
    pub issuer: String,
    /// The rest.
    pub subject: Subject,
}

/// Whom an assertion speaks for, and to whom. Every assertion of a cluster has the same issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `sub`: `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// UID of the `ServiceAccount`, which distinguishes a re-created one from its predecessor; Entra does not see it.
    pub service_account_uid: String,
    /// The only `aud`.
    pub audience: String,
}

/// An identity as Entra knows it. The login server's cloud says where it signs in and for which audience.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its application.
    pub client_id: ClientId,
    /// Whose assertion proves it.
    pub subject: Subject,
    /// Whether it is acrcred's own or that of a `ServiceAccount` of the object's namespace.
    pub principal: Principal,
}

/// Whose identity a credential is issued to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::Display, strum::EnumString,
)]
#[strum(serialize_all = "lowercase")]
pub enum Principal {
    /// acrcred's own (the controller identity).
    Controller,
    /// A `ServiceAccount` of the object's namespace.
    ServiceAccount,
}

// === impl Audience ===

impl Audience {
    /// The container registry audience, the same in every cloud: useless against the rest of Azure,
    /// and accepted by registries that disable authentication-as-arm (learn.microsoft.com,
    /// "Disable authentication as ARM template").
    pub const CONTAINER_REGISTRY: &str = "https://containerregistry.azure.net";

    /// Takes an audience with or without `/.default`.
    pub fn new(text: &str) -> Self {
        Self(text.strip_suffix("/.default").unwrap_or(text).to_owned())
    }

    /// The audience itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the container registry audience, and not Resource Manager's or a custom one.
    pub fn is_container_registry(&self) -> bool {
        self.0 == Self::CONTAINER_REGISTRY
    }

    /// The scope that asks for it.
    pub fn scope(&self) -> String {
        format!("{}/.default", self.0)
    }
}

impl Default for Audience {
    fn default() -> Self {
        Self::new(Self::CONTAINER_REGISTRY)
    }
}

// === impl ClientId ===

impl ClientId {
    /// The GUID, lower case with dashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        is_guid(text)
            .then(|| Self(text.to_ascii_lowercase()))
            .ok_or_else(|| InvalidId::Client(shortened(text)))
    }
}

// === impl TenantId ===

impl TenantId {
    /// The GUID or domain, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        (is_guid(text) || is_tenant_domain(text))
            .then(|| Self(text.to_ascii_lowercase()))
            .ok_or_else(|| InvalidId::Tenant(shortened(text)))
    }
}

/// A domain of two labels or more, in either case.
fn is_tenant_domain(text: &str) -> bool {
    text.contains('.') && is_subdomain(&text.to_ascii_lowercase())
}

// === impl AssertionClaims ===

impl AssertionClaims {
    /// Reads the claims of a Kubernetes `ServiceAccount` token; `None` where it is not one, or is for several
    /// audiences at once.
    pub fn of(assertion: &Token) -> Option<Self> {
        let claims = payload(assertion.expose())?;
        let text = |claim: &Value| claim.as_str().map(str::to_owned);
        let audience = match &claims["aud"] {
            Value::Array(several) if several.len() != 1 => return None,
            Value::Array(only) => &only[0],
            audience => audience,
        };
        let uid = &claims["kubernetes.io"]["serviceaccount"]["uid"];
        Some(Self {
            issuer: text(&claims["iss"])?,
            subject: Subject {
                name: text(&claims["sub"])?,
                service_account_uid: text(uid).unwrap_or_default(),
                audience: text(audience)?,
            },
        })
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn ids_that_could_bend_a_url_are_refused() {
        for text in [
            "", "../x", "a/b", "contoso", "-a.b", "a..b", "a.b?c", "a.b#", "a b.c", "a%2fb.c",
        ] {
            assert!(text.parse::<TenantId>().is_err(), "{text}");
            assert!(text.parse::<ClientId>().is_err(), "{text}");
        }
        let guid = "6F9619FF-8B86-D011-B42D-00C04FC964FF";
        assert_eq!(
            guid.parse::<ClientId>().unwrap().as_str(),
            guid.to_ascii_lowercase()
        );
        assert_eq!(
            guid.parse::<TenantId>().unwrap().as_str(),
            guid.to_ascii_lowercase()
        );
        assert!("contoso.onmicrosoft.com".parse::<TenantId>().is_ok());
        assert!("contoso.onmicrosoft.com".parse::<ClientId>().is_err());
    }

    #[test]
    fn a_scope_has_one_default_suffix() {
        assert_eq!(
            Audience::default().scope(),
            "https://containerregistry.azure.net/.default"
        );
        assert_eq!(
            Audience::new("https://a.example/.default").scope(),
            "https://a.example/.default"
        );
    }

    #[test]
    fn an_assertion_tells_what_entra_must_trust() {
        let payload = r#"{"iss":"https://i.example/","sub":"system:serviceaccount:ns:sa","aud":["api://AzureADTokenExchange"],"kubernetes.io":{"serviceaccount":{"name":"sa","uid":"u-1"}}}"#;
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload);
        let federation = AssertionClaims::of(&Token::new(format!("e30.{encoded}.c2ln"))).unwrap();
        assert_eq!(federation.issuer, "https://i.example/");
        assert_eq!(federation.subject.name, "system:serviceaccount:ns:sa");
        assert_eq!(federation.subject.audience, "api://AzureADTokenExchange");
        assert_eq!(federation.subject.service_account_uid, "u-1");
        assert_eq!(AssertionClaims::of(&Token::new("opaque".into())), None);
    }
}
