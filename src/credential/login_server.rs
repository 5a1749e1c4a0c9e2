//! The host of a registry, checked so that a token can only go where it belongs.

use std::fmt;
use std::sync::Arc;

use super::{Audience, Authority, Cloud, EnabledCloud, RegistrySuffix};

/// The login server of an Azure container registry: `contoso.azurecr.io`, with a domain name label
/// `contoso-a1b2.azurecr.io`, or regional `contoso.eastus.geo.azurecr.io`.
///
/// A value of this type is safe to send an Entra token to over https: lower case, no port, path or
/// user, and under the suffix of a cloud that the operator enabled. Only
/// [`Clouds::login_server`](super::Clouds::login_server) makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoginServer {
    host: String,
    cloud: Arc<EnabledCloud>,
}

/// Indicates why a text is no login server of an enabled cloud.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoginServerError {
    /// It is not a bare lower-case host name.
    #[error(
        "is not a lower-case host name; type the registry's login server, such as contoso.azurecr.io"
    )]
    NotAHost,
    /// Its suffix belongs to no cloud that is enabled or known. Holds the suffixes that are enabled.
    #[error("does not end in {0}; only Azure container registries are served")]
    ForeignSuffix(String),
    /// It stands under an enabled suffix but is no registry: too many labels, or a punycode name.
    #[error("is not a login server; expected NAME.{suffix} or NAME.REGION.geo.{suffix}", suffix = .0.as_str())]
    NotALoginServer(RegistrySuffix),
    /// It is one, of a cloud that the operator has not enabled.
    #[error(
        "belongs to {0}, which the operator has not enabled; ask for it to be added to --clouds"
    )]
    CloudNotEnabled(Cloud),
}

// === impl LoginServer ===

impl LoginServer {
    /// The caller has found `host` under the suffix of `cloud`.
    pub(super) fn new(host: &str, cloud: Arc<EnabledCloud>) -> Self {
        Self {
            host: host.to_owned(),
            cloud,
        }
    }

    /// The host, as `auths` keys and `service` parameters need it.
    pub fn as_str(&self) -> &str {
        &self.host
    }

    /// Where identities that want its credentials sign in.
    pub fn authority(&self) -> &Authority {
        &self.cloud.authority
    }

    /// The audience of the Entra token that it is sent.
    pub fn audience(&self) -> &Audience {
        &self.cloud.audience
    }

    /// The cloud that it belongs to.
    pub fn cloud(&self) -> &Arc<EnabledCloud> {
        &self.cloud
    }
}

impl fmt::Display for LoginServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// What stands before the suffix: `NAME` or `NAME.REGION.geo`, nothing of it punycode (ADR 12).
pub(super) fn is_registry_name(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let is_punycode = labels.iter().any(|label| label.starts_with("xn--"));
    matches!(labels[..], [_] | [_, _, "geo"]) && !is_punycode
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator as _;

    use super::super::Clouds;
    use super::*;

    fn clouds() -> Clouds {
        Cloud::iter().map(EnabledCloud::from).collect()
    }

    #[test]
    fn login_servers_of_every_shape_and_cloud_are_taken() {
        for (host, cloud) in [
            ("contoso.azurecr.io", Cloud::AzurePublicCloud),
            ("contoso-a1b2.azurecr.io", Cloud::AzurePublicCloud),
            ("contoso.eastus.geo.azurecr.io", Cloud::AzurePublicCloud),
            ("contoso.azurecr.us", Cloud::AzureUSGovernmentCloud),
            ("contoso.azurecr.cn", Cloud::AzureChinaCloud),
        ] {
            assert_eq!(
                clouds().login_server(host).map(|s| s.authority().clone()),
                Ok(cloud.default_authority()),
                "{host}"
            );
        }
    }

    #[test]
    fn hostile_hosts_are_refused() {
        for host in [
            "evil.example",
            "azurecr.io.evil.example",
            "x.azurecr.io@evil",
            "https://x.azurecr.io/",
            "X.AzureCR.io",
            ".azurecr.io",
            "azurecr.io",
            "x.azurecr.io.",
            "x..azurecr.io",
            "azurecr.com",
            "xazurecr.io",
            "x.data.azurecr.io",
            "x.eastus.data.azurecr.io",
            "x.geo.azurecr.io",
            "a.b.c.geo.azurecr.io",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "xn--cntoso-r9a.azurecr.io",
            "x.xn--eaaaa.geo.azurecr.io",
            "cont\u{3bf}so.azurecr.io",
            "x.azurecr.io:443",
            "x.azurecr.io/path",
            "x.azurecr.io\n",
            " x.azurecr.io",
            "-x.azurecr.io",
            "x-.azurecr.io",
            "x_y.azurecr.io",
            "x%2e.azurecr.io",
            "",
            ".",
        ] {
            assert!(clouds().login_server(host).is_err(), "{host}");
        }
    }
}
