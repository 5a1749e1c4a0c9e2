//! Does an identity accept an assertion? Matching federated credentials, then the signature, then time.

use jiff::Timestamp;

use crate::core::Core;
use crate::entra_error::EntraError;
use crate::jwt::Parsed;
use crate::state::{FederatedCredential, Identity, Settings};

/// Everything that Entra checks about an assertion, in its order.
pub async fn check(core: &Core, identity: &Identity, assertion: &str) -> Result<(), EntraError> {
    let invalid = |why: &str| {
        EntraError::new(
            700_027,
            format!(
                "The certificate with identifier used to sign the client assertion is not registered on application. {why}"
            ),
        )
    };
    let assertion = Parsed::read(assertion)
        .map_err(|_| EntraError::new(50_027, "JWT token is invalid or malformed."))?;
    if assertion.algorithm != "RS256" {
        return Err(invalid("Only RS256 is supported."));
    }
    let settings = core.state.read().unwrap().settings.clone();
    match_credential(core, &settings, identity, &assertion)?;
    let issuer = assertion.text("iss").unwrap_or_default();
    let cluster = {
        let state = core.state.read().unwrap();
        state.clusters.iter().find(|c| c.issuer == issuer).cloned()
    };
    let unreachable = || EntraError::new(90_061, "Request to External OIDC endpoint failed.");
    let cluster = cluster.ok_or_else(unreachable)?;
    match core.jwks.verifies(&cluster, &assertion).await {
        Ok(true) => check_time(&settings, &assertion),
        Ok(false) => Err(invalid("The key was not found.")),
        Err(error) => {
            tracing::warn!(issuer, "the cluster's keys cannot be had: {error:#}");
            Err(unreachable())
        }
    }
}

/// Looks for a credential in force; of several mismatches the deepest one answers: issuer, audience, subject.
fn match_credential(
    core: &Core,
    settings: &Settings,
    identity: &Identity,
    assertion: &Parsed,
) -> Result<(), EntraError> {
    let presented = Presented::of(settings, assertion);
    let effective: Vec<&FederatedCredential> = identity
        .federated_credentials
        .iter()
        .filter(|fic| core.clock.has_come(fic.effective_after))
        .collect();
    let same_issuer: Vec<_> = effective
        .iter()
        .filter(|f| f.issuer == presented.issuer)
        .collect();
    let same_audience: Vec<_> = same_issuer
        .iter()
        .filter(|f| presented.has(&f.audience))
        .collect();
    if let Some(fic) = same_audience
        .iter()
        .find(|f| f.subject == presented.subject)
    {
        return flap(core, identity, fic, &presented);
    }
    let but_for_case = |mut fields: Box<dyn Iterator<Item = (&str, &str)> + '_>| {
        fields.any(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let number = if !same_audience.is_empty() {
        let subjects = same_audience
            .iter()
            .map(|f| (f.subject.as_str(), presented.subject));
        if but_for_case(Box::new(subjects)) {
            7_002_138
        } else {
            700_213
        }
    } else if !same_issuer.is_empty() {
        700_212
    } else {
        let issuers = effective
            .iter()
            .map(|f| (f.issuer.as_str(), presented.issuer));
        match but_for_case(Box::new(issuers)) {
            _ if effective.is_empty() => 70_021,
            true => 7_002_138,
            false => 700_211,
        }
    };
    Err(presented.mismatch(number))
}

struct Presented<'a> {
    issuer: &'a str,
    subject: &'a str,
    audiences: Vec<&'a str>,
    strict: bool,
}

impl<'a> Presented<'a> {
    fn of(settings: &Settings, assertion: &'a Parsed) -> Self {
        Self {
            issuer: assertion.text("iss").unwrap_or_default(),
            subject: assertion.text("sub").unwrap_or_default(),
            audiences: assertion.audiences(),
            strict: settings.strict_single_aud,
        }
    }

    fn has(&self, audience: &str) -> bool {
        self.audiences.contains(&audience) && !(self.strict && self.audiences.len() > 1)
    }

    fn mismatch(&self, number: u32) -> EntraError {
        let what = match number {
            700_211 => format!("issuer '{}'", self.issuer),
            700_212 => format!("audience '{}'", self.audiences.join(",")),
            700_213 => format!("subject '{}'", self.subject),
            7_002_138 => format!(
                "values, which differ in case only from subject '{}'",
                self.subject
            ),
            _ => "values".to_owned(),
        };
        EntraError::new(
            number,
            format!("No matching federated identity record found for presented assertion {what}."),
        )
    }
}

/// A credential that flaps fails its first, third, fifth … use, until it has failed often enough.
fn flap(
    core: &Core,
    identity: &Identity,
    fic: &FederatedCredential,
    presented: &Presented<'_>,
) -> Result<(), EntraError> {
    if fic.flap == 0 {
        return Ok(());
    }
    let key = (
        identity.client_id.clone(),
        fic.issuer.clone(),
        fic.subject.clone(),
    );
    let mut uses = core.flaps.lock().unwrap();
    let count = uses.entry(key).or_insert(0);
    *count += 1;
    let fails = *count % 2 == 1 && count.div_ceil(2) <= fic.flap;
    if fails {
        Err(presented.mismatch(700_211))
    } else {
        Ok(())
    }
}

/// In real time, since a real API server wrote these claims.
fn check_time(settings: &Settings, assertion: &Parsed) -> Result<(), EntraError> {
    let (now, skew) = (Timestamp::now().as_second(), settings.assertion_skew_s);
    let ended = assertion.seconds("exp").is_none_or(|exp| exp + skew < now);
    let early = ["nbf", "iat"]
        .into_iter()
        .filter_map(|claim| assertion.seconds(claim))
        .any(|from| from - skew > now);
    if ended || early {
        return Err(EntraError::new(
            700_024,
            "Client assertion is not within its valid time range.",
        ));
    }
    Ok(())
}
