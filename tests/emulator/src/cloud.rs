//! National clouds: which authority hosts and which resources belong together.

use serde::{Deserialize, Serialize};

/// The audience of tokens for container registries, in every cloud.
pub const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

/// A national cloud.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Cloud {
    /// The public cloud.
    #[default]
    #[serde(rename = "AzurePublicCloud")]
    Public,
    /// US Government.
    #[serde(rename = "AzureUSGovernmentCloud")]
    UsGovernment,
    /// China, run by 21Vianet.
    #[serde(rename = "AzureChinaCloud")]
    China,
}

impl Cloud {
    /// The cloud whose authority answers under that host name.
    pub fn of_authority(host: &str) -> Option<Self> {
        [Self::Public, Self::UsGovernment, Self::China]
            .into_iter()
            .find(|cloud| cloud.authorities().contains(&host))
    }

    /// Host names of its authority, the documented one first.
    pub fn authorities(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["login.microsoftonline.com"],
            Self::UsGovernment => &["login.microsoftonline.us"],
            Self::China => &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
        }
    }

    /// Resource ids of its Resource Manager, without a trailing slash.
    pub fn resource_manager(self) -> &'static [&'static str] {
        match self {
            Self::Public => &[
                "https://management.azure.com",
                "https://management.core.windows.net",
            ],
            Self::UsGovernment => &[
                "https://management.usgovcloudapi.net",
                "https://management.core.usgovcloudapi.net",
            ],
            Self::China => &[
                "https://management.chinacloudapi.cn",
                "https://management.core.chinacloudapi.cn",
            ],
        }
    }

    /// Suffix of its registries' names.
    pub fn registry_suffix(self) -> &'static str {
        match self {
            Self::Public => "azurecr.io",
            Self::UsGovernment => "azurecr.us",
            Self::China => "azurecr.cn",
        }
    }
}
