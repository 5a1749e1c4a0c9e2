//! The Azure clouds: which authority signs in, which suffix its registries have.

use strum::IntoEnumIterator as _;

use super::names::is_domain;

/// An Azure cloud, named as `az cloud list` names it; in the order in which help texts list them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
)]
#[strum(ascii_case_insensitive)]
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

/// Indicates that a URL is not the authority of a known cloud.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a Microsoft Entra authority; use https://login.microsoftonline.com/, https://login.microsoftonline.us/ or https://login.chinacloudapi.cn/"
)]
pub struct AuthorityError(String);

/// Indicates that a URL is not the authority of a custom cloud.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CustomAuthorityError {
    /// It says where, and more than that.
    #[error("is not https://HOST, in lower case and without port, user, path or query")]
    NotAnOrigin,
    /// Its path is that of AD FS (`/adfs`), or of something else that is not Microsoft Entra.
    #[error(
        "has a path, as AD FS does, which cannot exchange ServiceAccount tokens; only a cloud that signs in with Microsoft Entra is served"
    )]
    Path,
}

// === impl Cloud ===

impl Cloud {
    /// The suffix of its registries' login servers, without a leading dot.
    pub fn registry_suffix(self) -> &'static str {
        match self {
            Self::AzurePublicCloud => "azurecr.io",
            Self::AzureUSGovernmentCloud => "azurecr.us",
            Self::AzureChinaCloud => "azurecr.cn",
        }
    }

    /// Hosts of its authority; the first is the default, the others are aliases that Microsoft documents or
    /// its SDKs know.
    fn authority_hosts(self) -> &'static [&'static str] {
        match self {
            Self::AzurePublicCloud => &[
                "login.microsoftonline.com",
                "login.windows.net",
                "login.microsoft.com",
            ],
            Self::AzureUSGovernmentCloud => &["login.microsoftonline.us"],
            Self::AzureChinaCloud => {
                &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"]
            }
        }
    }

    /// Where its identities sign in unless the operator names another host of the same cloud.
    pub fn default_authority(self) -> Authority {
        Authority(format!("https://{}", self.authority_hosts()[0]))
    }
}

// === impl Authority ===

impl Authority {
    /// Reads `AZURE_AUTHORITY_HOST` (`https://login.microsoftonline.com/`, with or without the slash)
    /// and returns which cloud it belongs to.
    pub fn parse(url: &str) -> Result<(Cloud, Self), AuthorityError> {
        let host = url.strip_prefix("https://").unwrap_or_default();
        let host = host.strip_suffix('/').unwrap_or(host);
        Cloud::iter()
            .find(|cloud| cloud.authority_hosts().contains(&host))
            .map(|cloud| (cloud, Self(format!("https://{host}"))))
            .ok_or_else(|| AuthorityError(url.to_owned()))
    }

    /// Reads the authority of a custom cloud: any host, with or without the slash.
    pub fn custom(url: &str) -> Result<Self, CustomAuthorityError> {
        let rest = url
            .strip_prefix("https://")
            .ok_or(CustomAuthorityError::NotAnOrigin)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_domain(host) {
            Err(CustomAuthorityError::NotAnOrigin)
        } else if !path.is_empty() {
            Err(CustomAuthorityError::Path)
        } else {
            Ok(Self(format!("https://{host}")))
        }
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
    #[test]
    fn the_authority_of_a_custom_cloud_is_a_host_and_nothing_more() {
        for url in [
            "https://login.cloud.private",
            "https://login.cloud.private/",
        ] {
            let authority = Authority::custom(url).unwrap();
            assert_eq!(authority.as_str(), "https://login.cloud.private", "{url}");
        }
        for url in [
            "",
            "https://",
            "https:///",
            "http://login.cloud.private/",
            "HTTPS://login.cloud.private/",
            "login.cloud.private",
            "https://Login.cloud.private/",
            "https://login.cloud.private:443/",
            "https://user@login.cloud.private/",
            "https://user:pw@login.cloud.private/",
            "https://login.cloud.private?x",
            "https://login.cloud.private#x",
            "https://login.cloud.private\\x",
            "https://login.cloud.private./",
            "https://localhost/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://login.cloud.0x7f/",
            "https://login.cloud.private \n",
        ] {
            let expected = Err(CustomAuthorityError::NotAnOrigin);
            assert_eq!(Authority::custom(url), expected, "{url}");
        }
        for url in [
            "https://adfs.cloud.private/adfs",
            "https://adfs.cloud.private/adfs/",
            "https://login.cloud.private//",
            "https://login.cloud.private/?x",
        ] {
            assert_eq!(
                Authority::custom(url),
                Err(CustomAuthorityError::Path),
                "{url}"
            );
        }
    }
}
