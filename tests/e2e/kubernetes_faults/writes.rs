//! Every write fails, in every way: it is done in the end, and done once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use controlplane::fault_proxy::{Fault, Match, Rule, Verb};
use futures::future::try_join_all;
use jiff::SignedDuration;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::{Behind, REFRESH};
use crate::harness::{Scene, condition, manifest, run, soon};
use crate::history::{History, Version};

const WATCH_TIMEOUT: Duration = Duration::from_secs(200);

fn creations() -> Match {
    Match::of(Verb::Create).on("secrets")
}

fn replacements() -> Match {
    Match::of(Verb::Update).on("secrets")
}

fn statuses() -> Match {
    Match::of(Verb::Patch).on("acrcredentials/status")
}

impl Behind {
    /// Passes the time that acrcred waits between its attempts, until the object is ready with a later
    /// expiry than `before`, or with any.
    async fn refreshed(&self, before: Option<&String>) -> Result<Option<String>> {
        let mut blamed = false;
        let expiry = soon("the status tells the new expiry", async || {
            let object = self
                .objects
                .credentials
                .get("acr")
                .await
                .map_err(|e| e.to_string())?;
            let expiry = object
                .status
                .as_ref()
                .and_then(|status| status.expires_at.clone());
            let expiry = expiry.map(|time| time.0.to_string());
            let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
            blamed |= conditions.any(|condition| condition.reason == "Forbidden");
            let ready = condition(&object, "Ready").is_some_and(|ready| ready.status == "True");
            if ready && expiry.as_ref() != before && condition(&object, "RefreshFailing").is_none()
            {
                return Ok(expiry);
            }
            self.scene.advance(SignedDuration::from_secs(10));
            Err(format!("{:?}", object.status))
        })
        .await?;
        ensure!(
            !blamed,
            "the message asks the user to correct what is not their fault"
        );
        Ok(expiry)
    }

    /// How many Secrets the API server has created.
    async fn created(&self) -> Result<usize> {
        let writes = self.scene.calls().await?.writes().on("secrets");
        Ok(writes.count(|call| call.verb == "create" && call.code < 300))
    }
}

/// Whether these are at most so many versions of a Secret, and all with the same tokens.
fn is_one_content(versions: &[Version], at_most: usize) -> bool {
    let mut tokens = versions.iter().map(|version| &version.tokens);
    let first = tokens.next();
    first.is_some_and(|first| tokens.all(|tokens| tokens == first)) && versions.len() <= at_most
}

/// A first issue and a rotation, each of whose writes meets `fault` so many times.
async fn done_once((fault, times): (Fault, usize)) -> Result<()> {
    let name = format!("{fault:?}, {times} times");
    let behind = Behind::start("writes", WATCH_TIMEOUT).await?;
    let Behind {
        proxy,
        objects,
        contoso,
        ..
    } = &behind;
    let fail = |matching| proxy.add(Rule::new(matching, fault.clone()).times(times));
    // The watch reports a status that was written, and a look at the Secret that it was created: neither is written again.
    let is_done = matches!(fault, Fault::AnswerAfterCommit(_) | Fault::DropAfter);
    let met = |expected: usize, [secret, status]: [usize; 2]| {
        secret == expected && (status == times || is_done && (1..times).contains(&status))
    };

    // What became of a write without an answer is not known: the same content is written again, as another version, so that the first
    // one cannot win later.
    let versions = if is_done { 1 + times } else { 1 };
    let history = History::from_now(&behind.scene).await?;
    let rules = [fail(creations()), fail(statuses())];
    objects.create(&manifest("acr", &[contoso])).await?;
    let expiry = behind.refreshed(None).await.context(name.clone())?;
    let hits = rules.map(|rule| proxy.hits(rule));
    let posts = if is_done { 1 } else { times };
    ensure!(met(posts, hits), "{name}: it was met {hits:?} times");
    let secrets = objects.secrets.list(&ListParams::default()).await?.items;
    ensure!(secrets.len() == 1, "{name}: {} Secrets", secrets.len());
    let (created, written) = (behind.created().await?, history.versions().await?);
    ensure!(
        created == 1 && is_one_content(&written, versions) && behind.exchanges() == 1,
        "{name}: {created} POSTs, {written:?}, {} mints",
        behind.exchanges()
    );

    for rule in rules {
        proxy.remove(rule);
    }
    let rules = [fail(replacements()), fail(statuses())];
    let token = objects.token("acr", contoso).await?;
    let history = History::from_now(&behind.scene).await?;
    behind.scene.advance(REFRESH);
    behind
        .refreshed(expiry.as_ref())
        .await
        .context(name.clone())?;
    let hits = rules.map(|rule| proxy.hits(rule));
    ensure!(met(times, hits), "{name}: it was met {hits:?} times");
    ensure!(
        objects.token("acr", contoso).await? != token,
        "{name}: the old token"
    );
    let uid = objects.secret("acr").await?.metadata.uid;
    ensure!(uid == secrets[0].metadata.uid, "{name}: another Secret");
    let (created, mut written) = (behind.created().await?, history.versions().await?);
    ensure!(written.len() <= versions, "{name}: {written:?}");
    // The fault may have met the regular write of what was there.
    written.retain(|version| version.tokens.get(&contoso.server) != token.as_ref());
    ensure!(
        created == 1 && is_one_content(&written, versions) && behind.exchanges() == 2,
        "{name}: {created} POSTs, {written:?}, {} mints",
        behind.exchanges()
    );
    Ok(())
}

fn all_done_once(cases: Vec<(Fault, usize)>) {
    run(async {
        try_join_all(cases.into_iter().map(done_once)).await?;
        Ok(())
    });
}

#[test]
fn conflicts_are_looked_into_and_overcome() {
    // More in a row than acrcred looks into at once, too.
    all_done_once(vec![(Fault::Answer(409), 2), (Fault::Answer(409), 7)]);
}

#[test]
fn a_write_that_is_turned_down_is_tried_again() {
    all_done_once(vec![
        (Fault::Throttle(1), 2),
        (Fault::Answer(500), 2),
        (Fault::Answer(503), 2),
        (Fault::DropBefore, 2),
    ]);
}

#[test]
fn a_write_whose_answer_is_lost_costs_no_second_credential() {
    all_done_once(vec![
        (Fault::AnswerAfterCommit(504), 1),
        (Fault::AnswerAfterCommit(504), 2),
        (Fault::DropAfter, 1),
    ]);
}

#[test]
fn the_api_server_is_left_alone_for_as_long_as_it_asks() {
    run(async {
        let behind = Behind::start("retry-after", WATCH_TIMEOUT).await?;
        let Behind {
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        proxy.add(Rule::new(creations(), Fault::Throttle(3)).times(1));
        objects.create_ready(&manifest("acr", &[contoso])).await?;
        let secrets = Match::any().on("secrets");
        let asked: Vec<_> = proxy
            .seen()
            .into_iter()
            .filter(|seen| secrets.fits(seen))
            .collect();
        let posts: Vec<_> = asked.iter().filter(|seen| creations().fits(seen)).collect();
        assert_eq!(posts.len(), 2);
        // Nor is it asked what became of the first one.
        let next = asked.iter().find(|seen| seen.at > posts[0].at);
        let waited = next.context("another request")?.at - posts[0].at;
        assert!(waited >= Duration::from_secs(3), "{waited:?}");
        Ok(())
    });
}

#[test]
fn a_status_that_is_lost_or_forged_is_put_right_with_one_write() {
    run(async {
        let scene = Scene::new("status").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        let object = objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let right = object.status.context("a status")?;
        let far = "2099-01-01T00:00:00Z";
        let forged = json!({"status": {
            "secret": {"name": "victim", "uid": "x", "resourceVersion": "1"}, "expiresAt": far, "refreshAt": far,
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "Forged", "message": "",
                "lastTransitionTime": far,
            }],
        }});
        for (number, wrong) in [json!({"status": null}), forged].into_iter().enumerate() {
            let patch = Patch::Merge(wrong);
            let changed = objects
                .credentials
                .patch_status("acr", &PatchParams::default(), &patch)
                .await?;
            assert_ne!(
                changed.status.as_ref(),
                Some(&right),
                "the patch changes nothing"
            );
            let object = objects.ready("acr").await?;
            let status = object.status.context("a status")?;
            assert_eq!(
                (&status.secret, &status.expires_at),
                (&right.secret, &right.expires_at)
            );
            assert_eq!(status.refresh_at, right.refresh_at);
            assert_eq!(scene.calls().await?.writes().len(), 3 + number);
        }
        assert_eq!(scene.upstream_calls(), (1, 1), "nothing was minted for it");
        Ok(())
    });
}
