//! Names that Kubernetes, DNS and Entra have in common.

const MAX_LABEL: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// Whether `text` is a DNS label in lower case (RFC 1123): 1 to 63 letters, digits and inner hyphens.
pub fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `text` is a DNS subdomain in lower case (RFC 1123): labels with dots between them, at most 253
/// characters. Names of most Kubernetes objects are.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_label)
}

/// A host name of two labels or more that no client takes for an address.
pub fn is_domain(text: &str) -> bool {
    let is_punycode = text.split('.').any(|label| label.starts_with("xn--"));
    let top = text.rsplit_once('.').map(|(_, top)| top);
    let is_name = top.is_some_and(|top| top.starts_with(|c: char| c.is_ascii_lowercase()));
    is_subdomain(text) && is_name && !is_punycode
}

/// Whether `text` is a GUID with dashes, in either case.
pub fn is_guid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// The first 64 characters of a user's text, without control characters: enough to recognise it.
pub fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_are_those_of_rfc_1123() {
        for label in ["a", "0", "a-b", "x1"] {
            assert!(is_label(label) && is_subdomain(label), "{label}");
        }
        assert!(is_subdomain("a.b-c.d") && !is_label("a.b"));
        for text in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a/b",
            "../x",
            "\u{e9}",
            &"a".repeat(64),
        ] {
            assert!(!is_label(text) && !is_subdomain(text), "{text}");
        }
        for text in [".", "a.", ".a", "a..b", &"a.".repeat(127)] {
            assert!(!is_subdomain(text), "{text}");
        }
    }

    #[test]
    fn guids_have_dashes() {
        assert!(is_guid("22222222-0000-4000-8000-00000000000F"));
        for text in [
            "",
            "2222222200004000800000000000000f",
            "g2222222-0000-4000-8000-00000000000f",
        ] {
            assert!(!is_guid(text), "{text}");
        }
    }
}
