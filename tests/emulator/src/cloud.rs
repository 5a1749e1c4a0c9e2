//! Clouds: which authority hosts and which resources belong together.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The audience of tokens for container registries, in every cloud that knows it.
pub const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

/// The public cloud.
pub const PUBLIC: &str = "AzurePublicCloud";
/// US Government.
pub const US_GOVERNMENT: &str = "AzureUSGovernmentCloud";
/// China, run by 21Vianet.
pub const CHINA: &str = "AzureChinaCloud";

/// A cloud, national or custom.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cloud {
    /// Its name, by which tenants say that they are in it.
    pub name: String,
    /// Host names of its authority, the documented one first.
    pub authorities: Vec<String>,
    /// Resource ids of its Resource Manager, without a trailing slash.
    pub resource_manager: Vec<String>,
    /// Suffix of its registries' names.
    pub registry_suffix: String,
    /// Whether its tenants know [`REGISTRY_AUDIENCE`]; otherwise a request for it meets AADSTS50001.
    #[serde(default)]
    pub knows_registry_audience: bool,
}

static NATIONAL: LazyLock<[Cloud; 3]> = LazyLock::new(|| {
    let national = |name, authorities: &[&str], resource_manager: [&str; 2], suffix| Cloud {
        authorities: authorities.iter().map(|&host| host.into()).collect(),
        resource_manager: resource_manager.map(str::to_owned).into(),
        knows_registry_audience: true,
        ..Cloud::custom(name, "", "", suffix)
    };
    [
        national(
            PUBLIC,
            &[
                "login.microsoftonline.com",
                "login.windows.net",
                "login.microsoft.com",
            ],
            [
                "https://management.azure.com",
                "https://management.core.windows.net",
            ],
            "azurecr.io",
        ),
        national(
            US_GOVERNMENT,
            &["login.microsoftonline.us"],
            [
                "https://management.usgovcloudapi.net",
                "https://management.core.usgovcloudapi.net",
            ],
            "azurecr.us",
        ),
        national(
            CHINA,
            &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
            [
                "https://management.chinacloudapi.cn",
                "https://management.core.chinacloudapi.cn",
            ],
            "azurecr.cn",
        ),
    ]
});

impl Cloud {
    /// The clouds that always exist.
    pub fn national() -> &'static [Self] {
        &*NATIONAL
    }

    /// An air-gapped cloud, whose tenants know no registry audience.
    pub fn custom(
        name: impl Into<String>,
        authority: impl Into<String>,
        resource_manager: impl Into<String>,
        registry_suffix: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            authorities: vec![authority.into()],
            resource_manager: vec![resource_manager.into()],
            registry_suffix: registry_suffix.into(),
            knows_registry_audience: false,
        }
    }

    /// Whether `resource`, without a trailing slash, is its Resource Manager.
    pub fn is_resource_manager(&self, resource: &str) -> bool {
        self.resource_manager.iter().any(|id| id == resource)
    }
}
