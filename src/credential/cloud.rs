//! The Azure clouds: which authority signs in, which suffix its registries have.

use std::fmt;
use std::str::FromStr;

/// An Azure cloud, named as `az cloud list` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cloud {
    /// Global Azure.
    AzurePublicCloud,
    /// Azure Government (United States).
    AzureUSGovernmentCloud,
    /// Azure operated by 21Vianet (China).
    AzureChinaCloud,
}

/// The origin of a Microsoft Entra authority: `https://HOST`, without port, path or trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority(String);

/// Indicates that a name is none of the clouds that acrcred knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a cloud; use AzurePublicCloud, AzureUSGovernmentCloud or AzureChinaCloud")]
pub struct UnknownCloud(String);

/// Indicates that a URL is not the authority of a known cloud.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a Microsoft Entra authority; use https://login.microsoftonline.com/, https://login.microsoftonline.us/ or https://login.chinacloudapi.cn/"
)]
pub struct AuthorityError(String);

/// Authority hosts by cloud; the first of each is the default, the others are aliases that Microsoft
/// documents or its SDKs know.
const AUTHORITY_HOSTS: [(Cloud, &[&str]); 3] = [
    (
        Cloud::AzurePublicCloud,
        &[
            "login.microsoftonline.com",
            "login.windows.net",
            "login.microsoft.com",
        ],
    ),
    (Cloud::AzureUSGovernmentCloud, &["login.microsoftonline.us"]),
    (
        Cloud::AzureChinaCloud,
        &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
    ),
];

// === impl Cloud ===

impl Cloud {
    /// Every cloud, in the order in which help texts list them.
    pub const ALL: [Self; 3] = [
        Self::AzurePublicCloud,
        Self::AzureUSGovernmentCloud,
        Self::AzureChinaCloud,
    ];

    /// The name that flags and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::AzurePublicCloud => "AzurePublicCloud",
            Self::AzureUSGovernmentCloud => "AzureUSGovernmentCloud",
            Self::AzureChinaCloud => "AzureChinaCloud",
        }
    }

    /// The suffix of its registries' login servers, without a leading dot.
    pub fn registry_suffix(self) -> &'static str {
        match self {
            Self::AzurePublicCloud => "azurecr.io",
            Self::AzureUSGovernmentCloud => "azurecr.us",
            Self::AzureChinaCloud => "azurecr.cn",
        }
    }

    /// Where its identities sign in unless the operator names another host of the same cloud.
    pub fn default_authority(self) -> Authority {
        let host = AUTHORITY_HOSTS
            .iter()
            .find(|(cloud, _)| *cloud == self)
            .map_or("login.microsoftonline.com", |(_, hosts)| hosts[0]);
        Authority(format!("https://{host}"))
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Cloud {
    type Err = UnknownCloud;

    fn from_str(name: &str) -> Result<Self, UnknownCloud> {
        Self::ALL
            .into_iter()
            .find(|cloud| cloud.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownCloud(name.to_owned()))
    }
}

// === impl Authority ===

impl Authority {
    /// Reads `AZURE_AUTHORITY_HOST` (`https://login.microsoftonline.com/`, with or without the slash)
    /// and tells which cloud it belongs to.
    pub fn parse(url: &str) -> Result<(Cloud, Self), AuthorityError> {
        let host = url
            .strip_prefix("https://")
            .map(|rest| rest.strip_suffix('/').unwrap_or(rest))
            .ok_or_else(|| AuthorityError(url.to_owned()))?;
        AUTHORITY_HOSTS
            .iter()
            .find(|(_, hosts)| hosts.contains(&host))
            .map(|(cloud, _)| (*cloud, Self(format!("https://{host}"))))
            .ok_or_else(|| AuthorityError(url.to_owned()))
    }

    /// `https://HOST`, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        self.0.trim_start_matches("https://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_and_alias_names_its_cloud() {
        for (url, cloud) in [
            (
                "https://login.microsoftonline.com/",
                Cloud::AzurePublicCloud,
            ),
            ("https://login.microsoftonline.com", Cloud::AzurePublicCloud),
            ("https://login.windows.net/", Cloud::AzurePublicCloud),
            (
                "https://login.microsoftonline.us/",
                Cloud::AzureUSGovernmentCloud,
            ),
            ("https://login.chinacloudapi.cn", Cloud::AzureChinaCloud),
            (
                "https://login.partner.microsoftonline.cn/",
                Cloud::AzureChinaCloud,
            ),
        ] {
            assert_eq!(
                Authority::parse(url).map(|found| found.0),
                Ok(cloud),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for url in [
            "http://login.microsoftonline.com/",
            "login.microsoftonline.com",
            "https://login.microsoftonline.com:443/",
            "https://login.microsoftonline.com//",
            "https://login.microsoftonline.com/adfs",
            "https://login.microsoftonline.com.evil.example/",
            "https://evil@login.microsoftonline.com",
            "",
        ] {
            assert!(Authority::parse(url).is_err(), "{url}");
        }
    }
}
