//! Deterministic spread: the same inputs always give the same place in an interval.

use sha2::{Digest as _, Sha256};

/// A number in `[0, 1)` that depends on every part.
pub(super) fn fraction_of(parts: &[&str]) -> f64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize();
    let top = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    f64::from(top) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_stable_and_spread() {
        assert!((fraction_of(&["a"]) - fraction_of(&["a"])).abs() < f64::EPSILON);
        let all: Vec<f64> = (0..1_000).map(|i| fraction_of(&[&i.to_string()])).collect();
        assert!(all.iter().all(|f| (0.0..1.0).contains(f)));
        let mean = all.iter().sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
