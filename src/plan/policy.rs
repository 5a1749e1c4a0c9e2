//! Which namespaces may use the controller's identity, and for which registries.

use wildmatch::WildMatchPattern;

use crate::credential::LoginServer;

/// The operator's `--allow-controller-identity`. Empty allows nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<PolicyRule>,
}

/// `NAMESPACE/SERVER`, each a glob that must match whole; `*` stands for any characters.
#[derive(Clone, Debug)]
pub struct PolicyRule {
    namespace: Glob,
    server: Glob,
}

/// Only `*` is special: no name holds the other character.
type Glob = WildMatchPattern<'*', '\0'>;

// === impl Policy ===

impl Policy {
    /// A policy that allows what any of the rules allows.
    pub fn new(rules: Vec<PolicyRule>) -> Self {
        Self { rules }
    }

    /// Whether objects of `namespace` may get credentials for `server` with the controller's identity.
    pub fn allows(&self, namespace: &str, server: &LoginServer) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.namespace.matches(namespace) && rule.server.matches(server.as_str()))
    }
}

// === impl PolicyRule ===

impl PolicyRule {
    /// Of its two halves. Neither a namespace nor a host holds a `/`, so no `*` reaches over it.
    pub fn new(namespace: &str, server: &str) -> Self {
        Self {
            namespace: Glob::new(namespace),
            server: Glob::new(server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Clouds;

    fn allows(rules: &[(&str, &str)], namespace: &str, server: &str) -> bool {
        let rules = rules.iter().map(|(ns, server)| PolicyRule::new(ns, server));
        let server = Clouds::default().login_server(server).unwrap();
        Policy::new(rules.collect()).allows(namespace, &server)
    }

    #[test]
    fn both_halves_must_match_whole() {
        let contoso = "contoso.azurecr.io";
        assert!(allows(&[("demo", "*")], "demo", contoso));
        assert!(allows(
            &[("team-*", "contoso.azurecr.io")],
            "team-a",
            contoso
        ));
        assert!(allows(&[("x", "x"), ("*", "*.azurecr.io")], "any", contoso));
        assert!(!allows(&[], "demo", contoso));
        assert!(!allows(&[("demo", "*")], "demo2", contoso));
        assert!(!allows(&[("demo", "*")], "a-demo", contoso));
        assert!(!allows(&[("demo", "contoso")], "demo", contoso));
        assert!(!allows(&[("demo", "fabrikam.azurecr.io")], "demo", contoso));
        assert!(!allows(&[("", "")], "demo", contoso));
        assert!(!allows(&[("d?mo", "*")], "demo", contoso));
    }
}
