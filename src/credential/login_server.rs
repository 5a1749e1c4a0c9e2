//! The host of a registry, checked so that a token can only go where it belongs.

use std::fmt;
use std::str::FromStr;

use super::Cloud;

/// The login server of an Azure container registry: `contoso.azurecr.io`, with a domain name label
/// `contoso-a1b2.azurecr.io`, or regional `contoso.eastus.geo.azurecr.io`.
///
/// A value of this type is safe to send an Entra token to over https: lower case, no port, path or
/// user, and its suffix is Microsoft's own. Which clouds are enabled is the caller's check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoginServer {
    host: String,
    cloud: Cloud,
}

/// Indicates why a text is no login server.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoginServerError {
    /// It is not a bare lower-case host name.
    #[error(
        "is not a lower-case host name; type the registry's login server, such as contoso.azurecr.io"
    )]
    NotAHost,
    /// Its suffix belongs to no Azure cloud.
    #[error(
        "does not end in .azurecr.io, .azurecr.us or .azurecr.cn; only Azure container registries are served"
    )]
    ForeignSuffix,
    /// It stands under a known suffix but is no registry: too many labels, or a punycode name.
    #[error("is not a login server; expected NAME.azurecr.io or NAME.REGION.geo.azurecr.io")]
    NotALoginServer,
}

const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

// === impl LoginServer ===

impl LoginServer {
    /// The host, as `auths` keys and `service` parameters need it.
    pub fn as_str(&self) -> &str {
        &self.host
    }

    /// The cloud that its suffix stands for.
    pub fn cloud(&self) -> Cloud {
        self.cloud
    }
}

impl FromStr for LoginServer {
    type Err = LoginServerError;

    fn from_str(host: &str) -> Result<Self, LoginServerError> {
        if host.len() > MAX_HOST || !host.split('.').all(is_label) {
            return Err(LoginServerError::NotAHost);
        }
        let (cloud, name) = Cloud::ALL
            .into_iter()
            .find_map(|cloud| {
                let name = host.strip_suffix(cloud.registry_suffix())?;
                Some((cloud, name.strip_suffix('.')?))
            })
            .ok_or(LoginServerError::ForeignSuffix)?;
        let labels: Vec<&str> = name.split('.').collect();
        let is_punycode = labels.iter().any(|label| label.starts_with("xn--"));
        match labels[..] {
            [_] | [_, _, "geo"] if !is_punycode => Ok(Self {
                host: host.to_owned(),
                cloud,
            }),
            _ => Err(LoginServerError::NotALoginServer),
        }
    }
}

impl fmt::Display for LoginServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// A DNS label (RFC 1123) in lower case.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

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
                host.parse::<LoginServer>().map(|s| s.cloud()),
                Ok(cloud),
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
            assert!(host.parse::<LoginServer>().is_err(), "{host}");
        }
    }
}
