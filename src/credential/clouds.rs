//! The clouds that the operator enabled, and the login servers that they make trustworthy.

use std::sync::Arc;

use strum::IntoEnumIterator as _;

use super::enabled_cloud::{EnabledCloud, name_under};
use super::login_server::is_registry_name;
use super::names::is_subdomain;
use super::{Audience, Cloud, LoginServer, LoginServerError};

/// The enabled clouds. They alone make a [`LoginServer`], so that no other host is ever sent a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clouds(Vec<Arc<EnabledCloud>>);

// === impl Clouds ===

impl Clouds {
    /// The same clouds, all with `audience`.
    #[must_use]
    pub fn with_audience(self, audience: &Audience) -> Self {
        let changed = |cloud: Arc<EnabledCloud>| EnabledCloud {
            audience: audience.clone(),
            ..Arc::unwrap_or_clone(cloud)
        };
        self.0.into_iter().map(changed).collect()
    }

    /// In the order in which a host is compared with them.
    pub fn iter(&self) -> impl Iterator<Item = &EnabledCloud> {
        self.0.iter().map(Arc::as_ref)
    }

    /// The registry at `host`. The first enabled cloud that has it under its suffix decides where its
    /// identities sign in, and with which audience.
    pub fn login_server(&self, host: &str) -> Result<LoginServer, LoginServerError> {
        if !is_subdomain(host) {
            return Err(LoginServerError::NotAHost);
        }
        let found = self
            .0
            .iter()
            .find(|cloud| cloud.suffix.name_of(host).is_some_and(is_registry_name));
        match found {
            Some(cloud) => Ok(LoginServer::new(host, Arc::clone(cloud))),
            None => Err(self.why_not(host)),
        }
    }

    fn why_not(&self, host: &str) -> LoginServerError {
        let mut enabled = self.iter().map(|cloud| &cloud.suffix);
        if let Some(suffix) = enabled.find(|suffix| suffix.name_of(host).is_some()) {
            return LoginServerError::NotALoginServer(suffix.clone());
        }
        let known = Cloud::iter().find(|cloud| {
            let name = name_under(cloud.registry_suffix(), host);
            name.is_some_and(is_registry_name)
        });
        match known {
            Some(cloud) => LoginServerError::CloudNotEnabled(cloud),
            None => LoginServerError::ForeignSuffix(self.suffixes()),
        }
    }

    /// `.azurecr.io or .azurecr.us`, for people.
    fn suffixes(&self) -> String {
        let suffixes: Vec<String> = self.iter().map(|c| format!(".{}", c.suffix.0)).collect();
        suffixes.join(" or ")
    }
}

impl FromIterator<EnabledCloud> for Clouds {
    fn from_iter<I: IntoIterator<Item = EnabledCloud>>(clouds: I) -> Self {
        Self(clouds.into_iter().map(Arc::new).collect())
    }
}

impl Default for Clouds {
    /// Global Azure alone.
    fn default() -> Self {
        Self::from_iter([Cloud::AzurePublicCloud.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{Authority, RegistrySuffix, RegistrySuffixError};

    fn private(suffix: &str) -> EnabledCloud {
        EnabledCloud {
            suffix: suffix.parse().unwrap(),
            authority: Authority::custom("https://login.cloud.private/").unwrap(),
            audience: Audience::new("https://management.cloud.private"),
        }
    }

    #[test]
    fn the_suffix_decides_where_to_sign_in_and_for_which_audience() {
        let clouds = Clouds::from_iter([private("azurecr.pr"), Cloud::AzureChinaCloud.into()]);
        let custom = clouds.login_server("foo.azurecr.pr").unwrap();
        assert_eq!(custom.authority().as_str(), "https://login.cloud.private");
        assert_eq!(
            custom.audience().as_str(),
            "https://management.cloud.private"
        );
        let china = clouds.login_server("foo.azurecr.cn").unwrap();
        assert_eq!(
            china.authority(),
            &Cloud::AzureChinaCloud.default_authority()
        );
        assert_eq!(china.audience(), &Audience::default());
    }

    #[test]
    fn of_two_clouds_with_one_suffix_the_first_counts() {
        let public = || EnabledCloud::from(Cloud::AzurePublicCloud);
        for (clouds, host) in [
            ([private("azurecr.io"), public()], "login.cloud.private"),
            (
                [public(), private("azurecr.io")],
                "login.microsoftonline.com",
            ),
        ] {
            let server = Clouds::from_iter(clouds).login_server("contoso.azurecr.io");
            assert_eq!(server.unwrap().authority().host(), host);
        }
    }

    #[test]
    fn a_suffix_within_another_takes_nothing_from_it() {
        let clouds = Clouds::from_iter([private("cr.azurecr.io"), Cloud::AzurePublicCloud.into()]);
        let host_of = |server| {
            clouds
                .login_server(server)
                .map(|s| s.authority().host().to_owned())
        };
        assert_eq!(
            host_of("x.cr.azurecr.io"),
            Ok("login.cloud.private".to_owned())
        );
        assert_eq!(
            host_of("cr.azurecr.io"),
            Ok("login.microsoftonline.com".to_owned())
        );
    }

    #[test]
    fn a_refusal_says_which_of_three_things_is_wrong() {
        let clouds = Clouds::from_iter([private("azurecr.pr")]);
        let refused = |host| clouds.login_server(host).unwrap_err();
        for host in [
            "foo.azurecr.private",
            "fooazurecr.pr",
            "azurecr.pr.evil.example",
            "azurecr.pr",
            "evil.azurecr.io.example",
        ] {
            let foreign = LoginServerError::ForeignSuffix(".azurecr.pr".into());
            assert_eq!(refused(host), foreign, "{host}");
        }
        for host in ["a.b.azurecr.pr", "xn--a.azurecr.pr", "a.b.data.azurecr.pr"] {
            let odd = LoginServerError::NotALoginServer("azurecr.pr".parse().unwrap());
            assert_eq!(refused(host), odd, "{host}");
        }
        let known = LoginServerError::CloudNotEnabled(Cloud::AzurePublicCloud);
        assert_eq!(refused("contoso.azurecr.io"), known);
        assert_eq!(refused("Foo.azurecr.pr"), LoginServerError::NotAHost);
        assert!(clouds.login_server("foo.azurecr.pr").is_ok());
        assert!(clouds.login_server("foo.eastus.geo.azurecr.pr").is_ok());
    }

    #[test]
    fn an_audience_of_the_operator_holds_in_every_cloud() {
        let audience = Audience::new("https://management.azure.com");
        let clouds = Clouds::from_iter([private("azurecr.pr"), Cloud::AzurePublicCloud.into()])
            .with_audience(&audience);
        assert_eq!(clouds.iter().count(), 2);
        assert!(clouds.iter().all(|cloud| cloud.audience == audience));
    }

    #[test]
    fn suffixes_are_domains_and_no_addresses() {
        for text in ["azurecr.pr", ".azurecr.local.azurestack.external", "a-b.c1"] {
            let suffix: RegistrySuffix = text.parse().unwrap();
            assert_eq!(suffix.as_str(), text.trim_start_matches('.'));
        }
        for text in [
            "",
            ".",
            "local",
            ".local",
            "..azurecr.pr",
            "azurecr.pr.",
            "Azurecr.pr",
            "azure_cr.pr",
            "*.azurecr.pr",
            "azurecr.pr:443",
            "https://azurecr.pr",
            "azurecr.pr/x",
            "0.0.1",
            "0.0x1",
            "xn--a.pr",
            "cr\u{e9}.pr",
            "N/A",
        ] {
            assert_eq!(
                text.parse::<RegistrySuffix>(),
                Err(RegistrySuffixError),
                "{text}"
            );
        }
    }
}
