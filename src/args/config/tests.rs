mod clouds;
mod lease;

use clap::CommandFactory as _;

use super::*;
use crate::credential::Clouds;

const GUID: &str = "6f9619ff-8b86-d011-b42d-00c04fc964ff";

fn configured(flags: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let args = Args::try_parse_from(["acrcred"].iter().chain(flags))
        .map_err(|error| ConfigError::of_value(&error).unwrap_or_else(|| panic!("{error}")))?;
    let lookup = |name: &str| {
        let found = env.iter().find(|(variable, _)| *variable == name)?;
        Some(found.1.to_owned())
    };
    Config::new(args, &lookup)
}

fn message(flags: &[&str], env: &[(&str, &str)]) -> String {
    let error = configured(flags, env).expect_err(&format!("{flags:?} {env:?}"));
    error.to_string()
}

/// The environment of a pod with a federated identity; `file` need not exist.
fn federated(file: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("AZURE_CLIENT_ID", GUID),
        ("AZURE_TENANT_ID", GUID),
        ("AZURE_FEDERATED_TOKEN_FILE", file),
    ]
}

/// A readable file that every build has.
const READABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

#[test]
fn nothing_set_is_a_safe_configuration() {
    let config = configured(&[], &[]).unwrap();
    assert_eq!(config.settings.clouds, Clouds::default());
    assert_eq!(config.settings.controller, None);
    assert_eq!(config.token_file, None);
    assert!(config.settings.policy.0.is_empty());
    assert!(config.settings.secret_metadata_prefixes.is_empty());
    assert!((config.settings.refresh_fraction - 0.5).abs() < f64::EPSILON);
    assert_eq!(config.token_cache_max_life, SignedDuration::from_hours(24));
    assert_eq!(config.resync_interval, SignedDuration::from_mins(10));
    assert_eq!(config.watch_timeout, Duration::from_secs(200));
    assert!(config.watch_namespaces.is_empty());
    assert_eq!(config.selector, "");
    assert_eq!(config.lease, None);
    assert_eq!(config.admin_listen.to_string(), "0.0.0.0:8080");
    assert!(config.metrics_per_object);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.log_filter, LogFilter::default());
    assert_eq!((config.proxy, config.kubeconfig), (Proxy::default(), None));
}

#[test]
fn a_single_value_set_to_nothing_is_the_default() {
    for arg in Args::command().get_arguments() {
        let is_list = matches!(arg.get_action(), clap::ArgAction::Append);
        let Some(long) = arg.get_long().filter(|_| !is_list) else {
            continue;
        };
        for blank in ["", " "] {
            let config = configured(&[&format!("--{long}={blank}")], &[]);
            assert_eq!(config, configured(&[], &[]), "--{long}={blank}");
        }
    }
}

#[test]
fn audiences_of_impersonation_keep_their_order_and_none_is_an_api_servers() {
    let audiences = |flags: &[&str]| {
        configured(flags, &[])
            .unwrap()
            .settings
            .impersonation_audiences
    };
    assert_eq!(audiences(&[]), ["api://AzureCRTokenExchange"]);
    let flags = [
        "--impersonation-audiences=api://b,https://c.example/x",
        "--impersonation-audiences",
        "api://a",
    ];
    assert_eq!(
        audiences(&flags),
        ["api://b", "https://c.example/x", "api://a"]
    );
    for (audience, hint) in [
        ("", "name at least one"),
        (",", "name at least one"),
        ("https://kubernetes.default.svc", "of an API server"),
        ("kubernetes.default.svc.cluster.local", "of an API server"),
        ("api", "of an API server"),
        ("api://a b", "such as api://AzureCRTokenExchange"),
        ("api://a'] + ['b", "such as api://AzureCRTokenExchange"),
    ] {
        let flag = format!("--impersonation-audiences={audience}");
        let said = message(&[&flag], &[]);
        assert!(
            said.contains("impersonation-audiences") && said.contains(hint),
            "{audience}: {said}"
        );
    }
}

#[test]
fn lists_are_repeated_or_separated() {
    let config = configured(
        &[
            "--allow-controller-identity=team-a/contoso.azurecr.io, */*.azurecr.io,",
            "--allow-controller-identity",
            "x/y",
            "--watch-namespaces=b,a,b",
            "--watch-secrets=acr,pull.v2",
            "--secret-metadata-prefixes=team.example.com/,",
        ],
        &federated(READABLE),
    )
    .unwrap();
    let rules =
        ["team-a/contoso.azurecr.io", "*/*.azurecr.io", "x/y"].map(|rule| rule.parse().unwrap());
    assert_eq!(config.settings.policy.0, rules);
    assert_eq!(config.watch_namespaces, ["a", "b"]);
    assert_eq!(config.watch_secrets, ["acr", "pull.v2"]);
    assert_eq!(
        config.settings.secret_metadata_prefixes,
        ["team.example.com/"]
    );
    let (client_id, tenant_id) = config.settings.controller.unwrap();
    assert_eq!((client_id.as_str(), tenant_id.as_str()), (GUID, GUID));
    assert_eq!(config.token_file.unwrap(), Path::new(READABLE));
}

#[test]
fn values_are_taken_with_their_units() {
    let config = configured(
        &[
            "--refresh-fraction=0.9",
            "--token-cache-max-life=0",
            "--resync-interval=1h30m",
            "--watch-timeout=5s",
            "--admin-listen=[::]:0",
            "--metrics-per-object=false",
            "--log-format=text",
            "--log-level=warn,acrcred::azure=debug",
            "--registry-audience=api://x/.default",
            "--selector=shard in (a, b),!test",
        ],
        &[],
    )
    .unwrap();
    assert!((config.settings.refresh_fraction - 0.9).abs() < f64::EPSILON);
    assert_eq!(config.token_cache_max_life, SignedDuration::ZERO);
    assert_eq!(config.resync_interval, SignedDuration::from_mins(90));
    assert_eq!(config.watch_timeout, Duration::from_secs(5));
    assert_eq!(config.admin_listen.to_string(), "[::]:0");
    assert!(!config.metrics_per_object);
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(
        config.log_filter,
        "warn,acrcred::azure=debug".parse().unwrap()
    );
    assert_eq!(clouds::scopes(&config), ["api://x/.default"]);
    assert_eq!(config.selector, "shard in (a, b),!test");
}

#[test]
fn a_bad_value_is_told_with_its_flag_its_variable_and_the_remedy() {
    for (flag, values) in [
        (
            "--allow-controller-identity",
            &[
                "team-a", "/x", "a/", "a/b/c", "Team/x", "a/b:443", "a b/c", "a/b?", "[a]/b",
            ][..],
        ),
        (
            "--clouds",
            &[
                "Azure",
                "AzureGermanCloud",
                "AzurePublicCloud;AzureChinaCloud",
            ],
        ),
        (
            "--registry-audience",
            &[
                "http://x",
                "containerregistry",
                "https://",
                "api:///",
                "https://a?b",
                "https://a b",
                "https://a\nb",
            ],
        ),
        (
            "--refresh-fraction",
            &["0", "0.09", "0.91", "1", "-0.5", "50%", "NaN", "inf"],
        ),
        (
            "--token-cache-max-life",
            &["1", "-1h", "ever", "1 fortnight"],
        ),
        ("--resync-interval", &["9s", "0", "600", "-10m"]),
        ("--watch-secrets", &["*", "a/b", "Acr", "../x"]),
        (
            "--watch-timeout",
            &["0", "0s", "201s", "1h", "1500ms", "200"],
        ),
        (
            "--secret-metadata-prefixes",
            &[
                "a",
                "acrcred.dev",
                "acrcred.dev/x",
                "/x",
                "a/b/c",
                "x y/",
                "*",
            ],
        ),
        (
            "--watch-namespaces",
            &["team-*", "Team", "-a", "a/b", "a.b"],
        ),
        ("--selector", &["a=b\nc", "a={b}", "a=\"b\""]),
        (
            "--admin-listen",
            &[
                "8080",
                ":8080",
                "localhost:8080",
                "0.0.0.0",
                "0.0.0.0:99999",
            ],
        ),
        ("--metrics-per-object", &["yes", "1"]),
        ("--log-format", &["xml", "JSON"]),
        ("--log-level", &["loud", "kube=debug", "info,hyper=trace"]),
    ] {
        let twin = flag
            .trim_start_matches('-')
            .to_uppercase()
            .replace('-', "_");
        for value in values {
            let message = message(&[&format!("{flag}={value}")], &[]);
            let start = format!("{flag} (or ACRCRED_{twin}) cannot be ");
            assert!(message.starts_with(&start), "{value}: {message}");
            assert!(message.contains(": "), "{value}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}

#[test]
fn a_long_value_is_cut() {
    let message = message(&[&format!("--log-format={}", "x".repeat(5_000))], &[]);
    assert!(message.len() < 200, "{message}");
}

#[test]
fn an_empty_list_never_means_everything() {
    for flag in [
        "--clouds=",
        "--clouds=,",
        "--watch-namespaces=",
        "--watch-namespaces= ",
    ] {
        let name = flag.split('=').next().unwrap();
        let message = message(&[flag], &[]);
        assert!(
            message.starts_with(name) && message.contains(" is empty: "),
            "{message}"
        );
    }
    let nobody = configured(
        &[
            "--allow-controller-identity=",
            "--secret-metadata-prefixes=",
        ],
        &[],
    )
    .unwrap();
    assert!(nobody.settings.policy.0.is_empty());
    assert!(nobody.settings.secret_metadata_prefixes.is_empty());
}

#[test]
fn a_missing_or_bad_variable_of_the_controller_identity_is_named() {
    let allow = ["--allow-controller-identity=*/*"];
    for variable in [
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
    ] {
        for value in [None, Some(""), Some("../x")] {
            let mut env = federated(READABLE);
            env.retain(|(name, _)| *name != variable);
            env.extend(value.map(|value| (variable, value)));
            let message = message(&allow, &env);
            assert!(message.starts_with(variable), "{value:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
    assert!(message(&allow, &federated("/")).contains("is a directory"));
    assert!(message(&allow, &federated("/no/such/file")).contains("entity not found"));
    let token = message(&allow, &federated("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"));
    assert!(
        !token.contains("eyJ"),
        "a token in place of a path is not echoed: {token}"
    );
}

#[test]
fn without_permission_the_identity_is_neither_needed_nor_kept() {
    let config = configured(&[], &federated("/no/such/file")).unwrap();
    assert_eq!(config.settings.controller, None);
    assert_eq!(config.token_file, None);
    assert_eq!(config.settings.default_tenant_id.unwrap().as_str(), GUID);
    assert!(message(&[], &[("AZURE_TENANT_ID", "a/b")]).starts_with("AZURE_TENANT_ID"));
}

#[test]
fn the_proxy_is_checked_and_its_password_kept() {
    for (value, url) in [
        (
            "http://user:hunter2@proxy:3128",
            "http://user:hunter2@proxy:3128",
        ),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("https://proxy", "https://proxy"),
    ] {
        for variable in ["HTTPS_PROXY", "https_proxy"] {
            let config = configured(&[], &[(variable, value), ("no_proxy", "a,b")]).unwrap();
            assert_eq!(config.proxy.https.as_deref(), Some(url));
            assert_eq!(config.proxy.no_proxy.as_deref(), Some("a,b"));
            assert!(!format!("{config:?}").contains("hunter2"));
        }
    }
    for value in [
        "socks5://user:hunter2@proxy",
        "http://",
        "http://user:hunter2@",
        "://hunter2",
    ] {
        let message = message(&[], &[("HTTPS_PROXY", value)]);
        assert!(
            message.starts_with("HTTPS_PROXY") && !message.contains("hunter2"),
            "{message}"
        );
    }
    let both = [
        ("HTTPS_PROXY", "http://upper"),
        ("https_proxy", "http://lower"),
    ];
    assert_eq!(
        configured(&[], &both).unwrap().proxy.https.as_deref(),
        Some("http://upper")
    );
}

#[test]
fn rust_log_reaches_no_other_crate() {
    let filter =
        |flags: &[&str], value| configured(flags, &[("RUST_LOG", value)]).map(|c| c.log_filter);
    assert_eq!(filter(&[], "debug"), Ok("debug".parse().unwrap()));
    assert_eq!(
        filter(&["--log-level=warn"], "debug"),
        Ok("warn".parse().unwrap())
    );
    assert!(message(&[], &[("RUST_LOG", "kube=trace")]).starts_with("RUST_LOG"));
}

#[test]
fn every_flag_has_its_twin_and_a_clear_line() {
    let command = Args::command();
    command.clone().debug_assert();
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let twin = format!("ACRCRED_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(
            arg.get_env().and_then(|env| env.to_str()),
            Some(twin.as_str())
        );
        let help = arg.get_help().unwrap().to_string();
        let shown = !arg.get_default_values().is_empty() && !arg.is_hide_default_value_set();
        assert!(
            shown != help.contains("[default: "),
            "--{long} does not tell its default, or twice: {help}"
        );
    }
}
