use serde_json::json;

use super::*;

/// What an Azure Stack cluster has, of which we need three.
fn stack() -> Value {
    json!({
        "name": "AzureStackCloud",
        "managementPortalURL": "https://portal.local.azurestack.external/",
        "resourceManagerEndpoint": "https://management.local.azurestack.external/",
        "activeDirectoryEndpoint": "https://login.microsoftonline.com/",
        "tokenAudience": "https://management.stack.onmicrosoft.com/0c9b6c0e-0000-4000-8000-000000000000",
        "containerRegistryDNSSuffix": "azurecr.local.azurestack.external",
        "resourceIdentifiers": {"graph": "N/A"},
        "futureField": [1, null],
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut document = stack();
    document[field] = value;
    document
}

fn refused(text: impl AsRef<[u8]>) -> EnvironmentFileError {
    parse(text.as_ref()).expect_err("it is not fit")
}

#[test]
fn three_fields_count_and_the_rest_is_left_to_others() {
    let cloud = parse(stack().to_string().as_bytes()).unwrap();
    assert_eq!(cloud.suffix.as_str(), "azurecr.local.azurestack.external");
    assert_eq!(
        cloud.authority.as_str(),
        "https://login.microsoftonline.com"
    );
    assert_eq!(
        cloud.audience.as_str(),
        "https://management.local.azurestack.external",
        "not the tokenAudience"
    );
}

#[test]
fn a_scope_has_one_slash_before_default() {
    for endpoint in [
        "https://management.cloud.private",
        "https://management.cloud.private/",
        "https://management.cloud.private//",
        " https://management.cloud.private/ ",
    ] {
        let document = with(RESOURCE_MANAGER, endpoint.into());
        let cloud = parse(document.to_string().as_bytes()).unwrap();
        assert_eq!(
            cloud.audience.scope(),
            "https://management.cloud.private/.default",
            "{endpoint}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_forgiven() {
    let text = format!("\u{feff}{}", stack());
    assert!(parse(text.as_bytes()).is_ok());
}

#[test]
fn each_missing_field_is_named() {
    for name in [RESOURCE_MANAGER, AUTHORITY, SUFFIX] {
        let mut without = stack();
        without.as_object_mut().unwrap().remove(name);
        let absent = [Value::Null, "".into(), " ".into()].map(|value| with(name, value));
        for document in absent.into_iter().chain([without]) {
            let error = refused(document.to_string());
            let is_named =
                matches!(error, EnvironmentFileError::Missing { field, .. } if field == name);
            assert!(is_named, "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        for value in [
            json!(1),
            json!(true),
            json!(["https://x.example"]),
            json!({}),
        ] {
            let error = refused(with(name, value).to_string());
            let is_named =
                matches!(error, EnvironmentFileError::NotText { field, .. } if field == name);
            assert!(is_named, "{name}: {error}");
        }
    }
}

#[test]
fn each_field_that_cannot_be_used_is_named_and_not_echoed() {
    for (name, values) in [
        (
            RESOURCE_MANAGER,
            &[
                "http://canary.example/",
                "https://",
                "canary.example",
                "api://canary",
                "https://canary.example/?x=1",
                "https://user@canary.example/",
                "https://canary.example/ x/",
            ][..],
        ),
        (
            AUTHORITY,
            &[
                "http://canary.example/",
                "canary.example",
                "https://canary.example/adfs",
                "https://canary.example:8443/",
                "https://user:canary@login.example/",
                "https://10.0.0.1/",
            ],
        ),
        (
            SUFFIX,
            &[
                "N/A",
                "canary",
                "*.canary.example",
                "https://canary.example",
                "Canary.example",
                "canary.example:443",
                "0.0.1",
            ],
        ),
    ] {
        for value in values {
            let error = refused(with(name, (*value).into()).to_string()).to_string();
            assert!(error.contains(name), "{value}: {error}");
            assert!(!error.to_lowercase().contains("canary"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
    let adfs = refused(with(AUTHORITY, "https://adfs.example/adfs".into()).to_string());
    assert_eq!(
        adfs,
        EnvironmentFileError::Authority(CustomAuthorityError::Path)
    );
    assert!(adfs.to_string().contains("AD FS"));
}

#[test]
fn what_is_no_json_object_is_refused_without_a_word_of_it() {
    for text in [
        "",
        "canary",
        "{\"resourceManagerEndpoint\": canary",
        "resourceManagerEndpoint: canary",
        "{} canary",
    ] {
        let error = refused(text);
        assert!(
            matches!(error, EnvironmentFileError::NotJson { .. }),
            "{text}: {error}"
        );
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    assert!(matches!(
        refused(b"{\"a\": \"\xff\"}"),
        EnvironmentFileError::NotJson { .. }
    ));
    for text in ["[]", "\"canary\"", "1", "null"] {
        assert_eq!(refused(text), EnvironmentFileError::NotAnObject, "{text}");
    }
    assert_eq!(
        refused("{\n  \"a\": canary}"),
        EnvironmentFileError::NotJson { line: 2, column: 8 }
    );
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    let unreadable = |path: &str| read(Path::new(path)).unwrap_err();
    assert_eq!(
        unreadable("/no/such/file"),
        EnvironmentFileError::Unreadable(io::ErrorKind::NotFound)
    );
    assert_eq!(
        unreadable("/"),
        EnvironmentFileError::Unreadable(io::ErrorKind::IsADirectory)
    );
    assert_eq!(unreadable("/dev/zero"), EnvironmentFileError::TooLarge);
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{config, json, text};

    /// A field's value, more or less.
    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            4 => "(https://|http://|)[a-z.@:/?#%\\\\A-Z0-9-]{0,30}".prop_map(Value::from),
            4 => "https://login[.][a-z]{1,9}[.]private/{0,2}".prop_map(Value::from),
            2 => "[.]?[a-z0-9-]{1,6}([.][a-z0-9-]{1,6}){0,3}".prop_map(Value::from),
            1 => text().prop_map(Value::from),
            1 => json(),
        ]
    }

    proptest! {
        #![proptest_config(config(8_000))]

        #[test]
        fn a_file_that_is_taken_leads_to_plain_https_hosts(
            resource_manager in value(), authority in value(), suffix in value(), more in json(),
        ) {
            let document = json!({
                RESOURCE_MANAGER: resource_manager, AUTHORITY: authority, SUFFIX: suffix, "more": more,
            });
            let Ok(cloud) = parse(document.to_string().as_bytes()) else { return Ok(()) };
            let url = reqwest::Url::parse(cloud.authority.as_str()).unwrap();
            prop_assert_eq!(url.as_str(), format!("https://{}/", cloud.authority.host()));
            prop_assert!(url.domain().is_some(), "{} is no address", url);
            let registry = format!("https://contoso.{}/", cloud.suffix.as_str());
            let url = reqwest::Url::parse(&registry).unwrap();
            prop_assert_eq!(url.as_str(), &registry);
            prop_assert!(url.domain().is_some(), "{} is no address", url);
            let scope = cloud.audience.scope();
            let resource = scope.strip_suffix("/.default").unwrap();
            prop_assert!(resource.starts_with("https://") && !resource.ends_with('/'), "{}", scope);
            prop_assert!(scope.bytes().all(|b| b.is_ascii_graphic()));
        }

        #[test]
        fn no_text_makes_it_panic_or_tell_what_it_read(text in text(), odd in any::<Vec<u8>>()) {
            for text in [text.as_bytes(), &odd] {
                if let Err(error) = parse(text) {
                    prop_assert!(error.to_string().bytes().all(|b| b.is_ascii_graphic() || b == b' '));
                }
            }
        }
    }
}
