//! What a credential may be used for, and what a token says that it may be used for.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Token;
use super::lifetime::payload;
use super::mint_error::{Cause, Hop, MintError, Missing};

/// What a credential may be used for at its registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything that its identity may do there: a refresh token.
    Registry,
    /// Pulling these repositories and nothing else: an access token.
    Repositories(Repositories),
}

/// 1 to 64 repositories, each by its full name, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repositories(BTreeSet<String>);

/// Indicates why a list of repositories cannot limit a credential. Names none of them: they may be hostile.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RepositoriesError {
    /// An empty list, which must never stand for everything, or too long a one.
    #[error("must name 1 to 64 repositories")]
    Count,
    /// A wildcard, a tag, or what is no repository at all.
    #[error("must name each repository in full, such as team/app, without wildcard, tag or digest")]
    Name,
}

/// An entry of the `access` claim (distribution, `docs/content/spec/auth/jwt.md`).
#[derive(Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Option<Vec<String>>,
}

/// As many as a [`Missing`] has bits, and as the schema allows.
const MAX_REPOSITORIES: usize = 64;
/// The schema's limit of a name, in bytes.
const MAX_NAME: usize = 256;

// === impl Scope ===

impl Scope {
    /// Whether `token` may be used for nothing beyond this.
    pub fn covers(&self, token: &Token) -> bool {
        match self {
            Self::Registry => true,
            Self::Repositories(repositories) => repositories.covered(token).is_some(),
        }
    }

    /// The names that it is limited to; none where it is not limited.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Registry => None,
            Self::Repositories(repositories) => Some(repositories.0.iter()),
        };
        names.into_iter().flatten().map(String::as_str)
    }
}

// === impl Repositories ===

impl Repositories {
    /// Checks what the schema checks, too.
    pub fn new(names: &[String]) -> Result<Self, RepositoriesError> {
        let set: BTreeSet<String> = names.iter().cloned().collect();
        if !(1..=MAX_REPOSITORIES).contains(&set.len()) {
            return Err(RepositoriesError::Count);
        }
        if !set.iter().all(|name| is_repository(name)) {
            return Err(RepositoriesError::Name);
        }
        Ok(Self(set))
    }

    /// The `scope` that asks for `pull` on each: one parameter, its parts separated by spaces, since a
    /// parameter must not be repeated (RFC 6749, 3.2 and 3.3; containerd asks in the same way).
    pub fn scope(&self) -> String {
        let scopes: Vec<String> = self
            .0
            .iter()
            .map(|name| format!("repository:{name}:pull"))
            .collect();
        scopes.join(" ")
    }

    /// Whether `token` may be used for just what was asked for.
    pub fn check(&self, token: &Token) -> Result<(), MintError> {
        let excessive = MintError::new(Hop::Token, Cause::ExcessiveScope);
        let pulls = self.covered(token).ok_or(excessive)?;
        match self.missing(|name| !pulls.contains(name)) {
            Missing(0) => Ok(()),
            missing => Err(MintError {
                missing,
                ..MintError::new(Hop::Token, Cause::InsufficientScope)
            }),
        }
    }

    /// All of them, where nothing was granted.
    pub fn all_missing(&self) -> Missing {
        self.missing(|_| true)
    }

    /// The names of those that are missing.
    pub fn named(&self, missing: Missing) -> impl Iterator<Item = &str> {
        let is_missing = move |place: usize| missing.0 & (1 << place) != 0;
        let missing = self.0.iter().enumerate().filter(move |at| is_missing(at.0));
        missing.map(|(_, name)| name.as_str())
    }

    /// What `token` may pull, if it may be used for nothing beyond these.
    fn covered(&self, token: &Token) -> Option<BTreeSet<String>> {
        pulls_only(token).filter(|pulls| pulls.is_subset(&self.0))
    }

    fn missing(&self, is_missing: impl Fn(&str) -> bool) -> Missing {
        let missing = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, name)| is_missing(name));
        Missing(missing.fold(0, |bits, (place, _)| bits | (1 << place)))
    }
}

/// `^[a-z0-9]+([._/-]+[a-z0-9]+)*$`.
fn is_repository(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|b| is_end(Some(b)) || b"._/-".contains(b))
}

/// The repositories that a token says it may pull, unverified: the registry judges the signature. `None` where it
/// may be used for anything else, or says of itself no limit that we understand.
fn pulls_only(token: &Token) -> Option<BTreeSet<String>> {
    let claims = payload(token.expose())?;
    // Some encoders write null for a list without entries.
    let list: Option<Vec<Access>> = Deserialize::deserialize(claims.get("access")?).ok()?;
    let mut pulls = BTreeSet::new();
    for access in list.unwrap_or_default() {
        for action in access.actions.unwrap_or_default() {
            if access.kind != "repository" || action != "pull" {
                return None;
            }
            pulls.insert(access.name.clone());
        }
    }
    (claims["grant_type"] != "refresh_token").then_some(pulls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::signed;

    fn repositories(names: &[&str]) -> Result<Repositories, RepositoriesError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Repositories::new(&names)
    }

    fn token(claims: &str) -> Token {
        Token::new(signed(claims))
    }

    #[test]
    fn each_repository_is_named_in_full() {
        let many: Vec<String> = (0..65).map(|n| format!("r{n}")).collect();
        assert!(Repositories::new(&many[..64]).is_ok());
        assert_eq!(Repositories::new(&many), Err(RepositoriesError::Count));
        assert_eq!(repositories(&[]), Err(RepositoriesError::Count));
        assert!(repositories(&["a", "team/app", "a.b_c--d/e"]).is_ok());
        for name in [
            "",
            "*",
            "team/*",
            "a:v1",
            "a@b",
            "A",
            "a b",
            "/a",
            "a/",
            "-a",
            "a\n",
            "\u{e4}",
            ".",
            &"a".repeat(257),
        ] {
            let list = ["fine", name];
            assert_eq!(repositories(&list), Err(RepositoriesError::Name), "{name}");
        }
    }

    #[test]
    fn pull_is_asked_for_on_each() {
        let scope = repositories(&["team/b", "a", "a"]).unwrap().scope();
        assert_eq!(scope, "repository:a:pull repository:team/b:pull");
    }

    #[test]
    fn less_is_named_and_more_is_refused() {
        let asked = repositories(&["c", "a", "b"]).unwrap();
        let entry = |kind: &str, name: &str, actions: &str| {
            format!(r#"{{"type":"{kind}","name":"{name}","actions":{actions}}}"#)
        };
        let pull = |name| entry("repository", name, r#"["pull"]"#);
        let check = |entries: &[String]| {
            let claims = format!(r#"{{"access":[{}]}}"#, entries.join(","));
            asked.check(&token(&claims))
        };
        let names = |result: Result<(), MintError>| {
            let error = result.unwrap_err();
            assert_eq!(error.cause, Cause::InsufficientScope);
            asked.named(error.missing).collect::<Vec<_>>()
        };
        assert_eq!(check(&[pull("b"), pull("a"), pull("c")]), Ok(()));
        assert_eq!(names(check(&[pull("a"), pull("c")])), ["b"]);
        assert_eq!(names(check(&[])), ["a", "b", "c"]);
        let idle = [pull("a"), pull("b"), entry("repository", "c", "[]")];
        assert_eq!(names(check(&idle)), ["c"]);
        for more in [
            pull("d"),
            pull("*"),
            entry("repository", "a", r#"["pull","push"]"#),
            entry("repository", "a", r#"["*"]"#),
            entry("repository(plugin)", "a", r#"["pull"]"#),
            entry("registry", "catalog", r#"["*"]"#),
            r#"{"type":"repository","name":"a","actions":"pull"}"#.to_owned(),
            "7".to_owned(),
        ] {
            let entries = [pull("a"), pull("b"), pull("c"), more];
            let error = check(&entries).unwrap_err();
            assert_eq!(error.cause, Cause::ExcessiveScope, "{entries:?}");
        }
    }

    #[test]
    fn what_has_no_list_is_unlimited() {
        let asked = Scope::Repositories(repositories(&["a"]).unwrap());
        for claims in [
            r#"{"permissions":{"actions":["read"]}}"#,
            r#"{"grant_type":"refresh_token","access":[]}"#,
            r#"{"grant_type":"refresh_token","access":null}"#,
            r#"{"access":{}}"#,
            "[]",
        ] {
            assert!(!asked.covers(&token(claims)), "{claims}");
            assert!(Scope::Registry.covers(&token(claims)), "{claims}");
        }
        assert!(!asked.covers(&Token::new("opaque".to_owned())));
        for claims in [r#"{"access":[]}"#, r#"{"access":null}"#] {
            assert!(asked.covers(&token(claims)), "{claims}");
        }
    }
}
