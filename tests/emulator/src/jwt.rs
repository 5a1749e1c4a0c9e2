//! JSON Web Tokens, RS256 only: signing our own, reading and verifying everybody's.

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use rsa::pkcs8::EncodePrivateKey as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const BITS: usize = 2048;

/// The public half of a key, as a JWKS document lists it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Jwk {
    /// Key type; only `RSA` can verify anything here.
    pub kty: String,
    /// Key id, matched with the token's header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Algorithm the key is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// Use of the key: `sig`.
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// Modulus, base64url.
    #[serde(default)]
    pub n: String,
    /// Public exponent, base64url.
    #[serde(default)]
    pub e: String,
}

impl Jwk {
    /// Whether this key made the token's signature.
    pub fn verifies(&self, token: &Parsed) -> bool {
        let (Ok(n), Ok(e)) = (
            URL_SAFE_NO_PAD.decode(&self.n),
            URL_SAFE_NO_PAD.decode(&self.e),
        ) else {
            return false;
        };
        self.kty == "RSA"
            && token.algorithm == "RS256"
            && RsaPublicKeyComponents { n, e }
                .verify(
                    &RSA_PKCS1_2048_8192_SHA256,
                    token.signed.as_bytes(),
                    &token.signature,
                )
                .is_ok()
    }
}

/// A token taken apart; nothing about it has been verified.
#[derive(Debug)]
pub struct Parsed {
    /// Header `alg`.
    pub algorithm: String,
    /// Header `kid`.
    pub key_id: Option<String>,
    /// The claims.
    pub claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Parsed {
    /// Takes apart `header.claims.signature`.
    pub fn read(token: &str) -> anyhow::Result<Self> {
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("not three parts");
        };
        let head: Value = decode(header)?;
        let text = |name: &str| head.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            algorithm: text("alg").context("no alg")?,
            key_id: text("kid"),
            claims: decode(claims)?,
            signed: format!("{header}.{claims}"),
            signature: URL_SAFE_NO_PAD.decode(signature)?,
        })
    }

    /// A claim that is a text.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// A claim that is a number of seconds.
    pub fn seconds(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value.as_i64()
    }

    /// The audiences, whether one text or a list.
    pub fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

fn decode(part: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// An RSA key pair that signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    pair: RsaKeyPair,
    public: Jwk,
}

impl SigningKey {
    /// A new 2048 bit key; takes a good part of a second without optimisation.
    pub fn generate() -> anyhow::Result<Self> {
        let private = rsa::PrivateKey::new(&mut getrandom::SysRng, BITS)?;
        Self::from_pkcs8(private.to_pkcs8_der()?.as_bytes())
    }

    /// The key in a PKCS#8 document.
    pub fn from_pkcs8(der: &[u8]) -> anyhow::Result<Self> {
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|why| anyhow!("RSA key: {why}"))?;
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let public = Jwk {
            kty: "RSA".into(),
            kid: Some(sha256(&URL_SAFE_NO_PAD.encode(&public.n))[..32].to_owned()),
            alg: Some("RS256".into()),
            usage: Some("sig".into()),
            n: URL_SAFE_NO_PAD.encode(&public.n),
            e: URL_SAFE_NO_PAD.encode(&public.e),
        };
        Ok(Self { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// Signs the claims into a compact token.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.public.kid});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("a 2048 bit key signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Lower-case hexadecimal SHA-256: how the journal names a token without holding it.
pub fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signing_key_verifies_and_a_changed_claim_is_noticed() {
        let key = SigningKey::generate().unwrap();
        let other = SigningKey::generate().unwrap();
        let token = key.sign(&json!({"sub": "a"}));
        assert!(key.public().verifies(&Parsed::read(&token).unwrap()));
        assert!(!other.public().verifies(&Parsed::read(&token).unwrap()));

        let foreign = other.sign(&json!({"sub": "b"}));
        let claims = foreign.split('.').nth(1).unwrap();
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = claims;
        let forged = Parsed::read(&parts.join(".")).unwrap();
        assert!(!key.public().verifies(&forged));
    }
}
