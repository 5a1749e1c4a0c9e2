//! What a request to the API server asks for.

use std::time::Instant;

use http::{Method, Uri};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads a collection.
    List,
    /// Follows a collection.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH, of whatever kind.
    Patch,
    /// DELETE.
    Delete,
}

/// One request that came through the proxy.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it does.
    pub verb: Verb,
    /// The resource in plural, such as `secrets`; empty for what is not about one.
    pub resource: String,
    /// The subresource, such as `status`; else empty.
    pub subresource: String,
    /// The object's name; empty for a collection.
    pub name: String,
    /// The field manager; else empty.
    pub field_manager: String,
    /// Whether it asks for no effect.
    pub dry_run: bool,
    /// When it came.
    pub at: Instant,
}

// === impl Seen ===

impl Seen {
    /// Reads `/api/v1/namespaces/NS/secrets/NAME/SUB` and its like.
    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        let mut path = uri.path().trim_matches('/').split('/');
        // The group's place: `api/v1` or `apis/GROUP/VERSION`.
        let skipped = if path.next() == Some("apis") { 2 } else { 1 };
        let rest: Vec<&str> = path.skip(skipped).collect();
        let parts = match rest.as_slice() {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
        let parameter = |wanted: &str| {
            form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| value.into_owned())
        };
        let is_watch = parameter("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if is_watch => Verb::Watch,
            _ if part(1).is_empty() => Verb::List,
            _ => Verb::Get,
        };
        Self {
            verb,
            resource: part(0),
            name: part(1),
            subresource: part(2),
            field_manager: parameter("fieldManager").unwrap_or_default(),
            dry_run: parameter("dryRun").is_some(),
            at: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(method: &Method, uri: &str) -> (Verb, String) {
        let seen = Seen::of(method, &uri.parse().unwrap());
        (
            seen.verb,
            format!(
                "{} {} {} {}",
                seen.resource, seen.name, seen.subresource, seen.field_manager
            ),
        )
    }

    #[test]
    fn paths_are_told_apart() {
        let list = "/apis/acrcred.dev/v1alpha1/namespaces/a/acrcredentials?&limit=500";
        assert_eq!(
            seen(&Method::GET, list),
            (Verb::List, "acrcredentials   ".into())
        );
        let watch = "/apis/acrcred.dev/v1alpha1/acrcredentials?&watch=true&resourceVersion=1";
        assert_eq!(
            seen(&Method::GET, watch),
            (Verb::Watch, "acrcredentials   ".into())
        );
        let status =
            "/apis/acrcred.dev/v1alpha1/namespaces/a/acrcredentials/b/status?&fieldManager=acrcred";
        assert_eq!(
            seen(&Method::PATCH, status),
            (Verb::Patch, "acrcredentials b status acrcred".into())
        );
        let create = "/api/v1/namespaces/a/secrets?&fieldManager=acrcred";
        assert_eq!(
            seen(&Method::POST, create),
            (Verb::Create, "secrets   acrcred".into())
        );
        assert_eq!(
            seen(&Method::GET, "/api/v1/namespaces/a"),
            (Verb::Get, "namespaces a  ".into())
        );
    }
}
