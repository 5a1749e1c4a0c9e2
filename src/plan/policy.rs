//! Which namespaces may use the controller's identity, and for which registries.

use std::str::FromStr;

use wildmatch::WildMatchPattern;

use crate::credential::LoginServer;

/// The operator's `--allow-controller-identity`. Empty allows nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy(pub Vec<PolicyRule>);

/// `NAMESPACE/SERVER`, each a glob that must match whole; `*` stands for any characters.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRule {
    namespace: Glob,
    server: Glob,
}

/// Only `*` is special: no name holds the other character.
type Glob = WildMatchPattern<'*', '\0'>;

// === impl Policy ===

impl Policy {
    /// Whether objects of `namespace` may get credentials for `server` with the controller's identity.
    pub fn allows(&self, namespace: &str, server: &LoginServer) -> bool {
        let mut rules = self.0.iter();
        rules.any(|rule| rule.namespace.matches(namespace) && rule.server.matches(server.as_str()))
    }
}

// === impl PolicyRule ===

impl FromStr for PolicyRule {
    type Err = &'static str;

    /// Neither a namespace nor a host holds a `/`, so no `*` reaches over it.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let is_glob = |half: &str| {
            !half.is_empty()
                && half
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.*".contains(&b))
        };
        match text.split_once('/') {
            Some((namespace, server)) if is_glob(namespace) && is_glob(server) => Ok(Self {
                namespace: Glob::new(namespace),
                server: Glob::new(server),
            }),
            _ => Err(
                "set NAMESPACE/SERVER in lower case, such as team-a/contoso.azurecr.io or */*.azurecr.io",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Clouds;

    fn allows(rules: &[&str], namespace: &str, server: &str) -> bool {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let server = Clouds::default().login_server(server).unwrap();
        Policy(rules).allows(namespace, &server)
    }

    #[test]
    fn both_halves_must_match_whole() {
        let contoso = "contoso.azurecr.io";
        assert!(allows(&["demo/*"], "demo", contoso));
        assert!(allows(&["team-*/contoso.azurecr.io"], "team-a", contoso));
        assert!(allows(&["x/x", "*/*.azurecr.io"], "any", contoso));
        assert!(!allows(&[], "demo", contoso));
        assert!(!allows(&["demo/*"], "demo2", contoso));
        assert!(!allows(&["demo/*"], "a-demo", contoso));
        assert!(!allows(&["demo/contoso"], "demo", contoso));
        assert!(!allows(&["demo/fabrikam.azurecr.io"], "demo", contoso));
    }

    #[test]
    fn a_rule_has_two_globs_in_lower_case() {
        for text in [
            "", "/", "demo", "demo/", "/x", "d?mo/x", "Demo/x", "a/b/c", "a b/c",
        ] {
            assert!(text.parse::<PolicyRule>().is_err(), "{text}");
        }
    }
}
