//! Which clouds are enabled, and where their identities sign in.

use super::*;

/// The scope that is asked for in each enabled cloud.
pub(super) fn scopes(config: &Config) -> Vec<String> {
    let clouds = config.settings.clouds.iter();
    clouds.map(|cloud| cloud.audience.scope()).collect()
}

/// Suffix and authority host of each enabled cloud, `SUFFIX at HOST`.
fn domains(config: &Config) -> Vec<String> {
    let clouds = config.settings.clouds.iter();
    clouds
        .map(|cloud| format!("{} at {}", cloud.suffix.as_str(), cloud.authority.host()))
        .collect()
}

#[test]
fn the_authority_picks_the_cloud_and_overrides_only_there() {
    let authorities = |flags: &[&str], host| {
        domains(&configured(flags, &[("AZURE_AUTHORITY_HOST", host)]).unwrap())
    };
    assert_eq!(
        authorities(&[], "https://login.partner.microsoftonline.cn/"),
        ["azurecr.cn at login.partner.microsoftonline.cn"]
    );
    assert_eq!(
        authorities(
            &["--clouds=AzureChinaCloud,AzurePublicCloud,AzureChinaCloud"],
            "https://login.windows.net"
        ),
        [
            "azurecr.io at login.windows.net",
            "azurecr.cn at login.chinacloudapi.cn"
        ]
    );
    assert_eq!(
        authorities(&["--clouds=AzureChinaCloud"], "https://login.windows.net"),
        ["azurecr.cn at login.chinacloudapi.cn"]
    );
    for host in [
        "https://evil.example/",
        "login.microsoftonline.com",
        "https://adfs.contoso.com/adfs",
    ] {
        let message = message(&[], &[("AZURE_AUTHORITY_HOST", host)]);
        assert!(
            message.starts_with("AZURE_AUTHORITY_HOST cannot be used: "),
            "{message}"
        );
    }
}

/// A file that describes a cloud, with this authority and suffix.
fn environment_file(authority: &str, suffix: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let document = serde_json::json!({
        "resourceManagerEndpoint": "https://management.cloud.private/",
        "activeDirectoryEndpoint": authority,
        "containerRegistryDNSSuffix": suffix,
    });
    std::fs::write(file.path(), document.to_string()).unwrap();
    file
}

#[test]
fn an_environment_file_stands_alone_unless_other_clouds_are_listed() {
    let file = environment_file("https://login.cloud.private/", "azurecr.pr");
    let path = file.path().to_str().unwrap();
    let configured = |flags: &[&str], host| {
        let env = [
            ("AZURE_ENVIRONMENT_FILEPATH", path),
            ("AZURE_AUTHORITY_HOST", host),
        ];
        configured(flags, &env)
    };
    let custom = "azurecr.pr at login.cloud.private";
    // The webhook sets the authority to the file's, or to that of the cloud that it was told.
    for host in [
        "",
        "https://login.cloud.private",
        "https://login.cloud.private/",
        "https://login.chinacloudapi.cn/",
    ] {
        let config = configured(&[], host).unwrap();
        assert_eq!(domains(&config), [custom], "{host}");
        assert_eq!(
            scopes(&config),
            ["https://management.cloud.private/.default"]
        );
    }
    let both = configured(&["--clouds=AzurePublicCloud"], "https://login.windows.net/").unwrap();
    assert_eq!(domains(&both), [custom, "azurecr.io at login.windows.net"]);
    assert_eq!(
        scopes(&both)[1],
        "https://containerregistry.azure.net/.default"
    );
    let audience = "--registry-audience=https://registry.cloud.private";
    assert_eq!(
        scopes(&configured(&[audience, "--clouds=AzurePublicCloud"], "").unwrap()),
        ["https://registry.cloud.private/.default"; 2]
    );
    assert_eq!(
        configured(&[], "https://login.other.private/"),
        Err(ConfigError::AuthorityConflict)
    );
    assert!(matches!(
        configured(&["--clouds="], ""),
        Err(ConfigError::Empty("clouds"))
    ));
}

#[test]
fn an_environment_file_that_describes_azure_itself_counts_before_it() {
    let file = environment_file("https://login.windows.net/", "azurecr.io");
    let env = [("AZURE_ENVIRONMENT_FILEPATH", file.path().to_str().unwrap())];
    let config = configured(&["--clouds=AzurePublicCloud"], &env).unwrap();
    let server = config
        .settings
        .clouds
        .login_server("contoso.azurecr.io")
        .unwrap();
    assert_eq!(server.authority().host(), "login.windows.net");
    assert_eq!(
        server.audience().as_str(),
        "https://management.cloud.private"
    );
}

#[test]
fn an_environment_file_that_cannot_be_used_is_told_with_its_variable() {
    let file = environment_file("https://adfs.cloud.private/adfs", "azurecr.pr");
    let told = |path| message(&[], &[("AZURE_ENVIRONMENT_FILEPATH", path)]);
    let adfs = told(file.path().to_str().unwrap());
    assert!(
        adfs.starts_with("AZURE_ENVIRONMENT_FILEPATH names a file whose activeDirectoryEndpoint "),
        "{adfs}"
    );
    for path in ["/no/such/file", "/", READABLE] {
        let message = told(path);
        assert!(
            message.starts_with("AZURE_ENVIRONMENT_FILEPATH names a file ")
                && !message.contains(path),
            "{message}"
        );
    }
}
