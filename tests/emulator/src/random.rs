//! Identifiers and numbers that differ on every answer, so that no client may rely on them.

use ring::rand::{SecureRandom, SystemRandom};

fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SystemRandom::new()
        .fill(&mut out)
        .expect("the operating system gives random bytes");
    out
}

/// A version 4 GUID in the usual lower-case form.
pub fn guid() -> String {
    let mut raw = bytes::<16>();
    raw[6] = raw[6] & 0x0f | 0x40;
    raw[8] = raw[8] & 0x3f | 0x80;
    guid_of(raw)
}

/// The GUID form of sixteen given bytes.
pub fn guid_of(raw: [u8; 16]) -> String {
    let n = u128::from_be_bytes(raw);
    let hex = format!("{n:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A number in `low..=high`.
pub fn between(low: i64, high: i64) -> i64 {
    let span = u64::try_from(high - low).unwrap_or(0) + 1;
    low + i64::try_from(u64::from_be_bytes(bytes()) % span).unwrap_or(0)
}

/// True in about half of all calls.
pub fn coin() -> bool {
    between(0, 1) == 1
}
