//! A cloud that the platform administrator enabled.

use std::str::FromStr;

use super::cloud::{Authority, Cloud};
use super::identity::Audience;
use super::names::is_domain;

/// A cloud whose registries may be sent tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnabledCloud {
    /// Under which its registries stand.
    pub suffix: RegistrySuffix,
    /// Where its identities sign in.
    pub authority: Authority,
    /// The audience of its Entra tokens.
    pub audience: Audience,
}

/// The domain of a cloud's registries, such as `azurecr.io`: lower case, without a dot at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrySuffix(pub(super) String);

/// Indicates that a text is no suffix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("is not a lower-case domain of at least two labels, such as azurecr.example.com")]
pub struct RegistrySuffixError;

// === impl EnabledCloud ===

impl EnabledCloud {
    /// One of Azure's own clouds, signing in at `authority`.
    pub fn built_in(cloud: Cloud, authority: Authority) -> Self {
        Self {
            suffix: RegistrySuffix(cloud.registry_suffix().to_owned()),
            authority,
            audience: Audience::default(),
        }
    }
}

impl From<Cloud> for EnabledCloud {
    fn from(cloud: Cloud) -> Self {
        Self::built_in(cloud, cloud.default_authority())
    }
}

// === impl RegistrySuffix ===

impl RegistrySuffix {
    /// The domain, without a leading dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn name_of<'a>(&self, host: &'a str) -> Option<&'a str> {
        name_under(&self.0, host)
    }
}

impl FromStr for RegistrySuffix {
    type Err = RegistrySuffixError;

    /// With or without the leading dot with which `az cloud show` prints it.
    fn from_str(text: &str) -> Result<Self, RegistrySuffixError> {
        let suffix = text.strip_prefix('.').unwrap_or(text);
        is_domain(suffix)
            .then(|| Self(suffix.to_owned()))
            .ok_or(RegistrySuffixError)
    }
}

/// What stands before `suffix` in `host`, cut at a dot.
pub(super) fn name_under<'a>(suffix: &str, host: &'a str) -> Option<&'a str> {
    host.strip_suffix(suffix)?.strip_suffix('.')
}
