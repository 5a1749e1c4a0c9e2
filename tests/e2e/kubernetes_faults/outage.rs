//! The API server is away, or the namespace is.

use anyhow::Context as _;
use controlplane::eventually;
use controlplane::fault_proxy::{Fault, Match, Rule, Verb};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use std::time::{Duration, Instant};

use super::{Behind, PROMPT, REFRESH};
use crate::harness::{Scene, Tuning, manifest, run, soon};

/// Longer than every backoff of acrcred, so that all of them have reached their caps.
const OUTAGE: Duration = Duration::from_mins(1);
/// The longest backoff of a watch, and some.
const WATCH_BACKOFF: Duration = Duration::from_mins(1);

/// How often time for another try passes while a namespace is going.
const PAUSES: usize = 10;

const WATCH_TIMEOUT: Duration = Duration::from_secs(200);

#[test]
fn nothing_is_lost_while_the_api_server_is_away() {
    run(async {
        let behind = Behind::start("away", WATCH_TIMEOUT).await?;
        let Behind {
            scene,
            proxy,
            acrcred,
            objects,
            contoso,
        } = &behind;
        objects.create_ready(&manifest("due", &[contoso])).await?;
        objects
            .create_ready(&manifest("leaves", &[contoso]))
            .await?;
        let token = objects.token("due", contoso).await?.context("a token")?;
        let uid = objects.secret("due").await?.metadata.uid;

        let began = Instant::now();
        proxy.refuse_everything();
        objects.create(&manifest("meanwhile", &[contoso])).await?;
        objects.delete("leaves").await?;
        scene.advance(REFRESH);
        soon("acrcred tries again and again", async || {
            match proxy.refused() {
                refused if refused > 4 => Ok(()),
                refused => Err(format!("{refused} connections refused")),
            }
        })
        .await?;
        eventually(2 * OUTAGE, "a minute has passed", async || {
            let late = acrcred.oldest_due();
            match began.elapsed() {
                passed if passed >= OUTAGE && late < PROMPT => Ok(()),
                passed => Err(format!("{passed:?} have passed; work is {late:?} late")),
            }
        })
        .await?;
        assert_eq!(objects.token("due", contoso).await?.as_ref(), Some(&token));
        assert!(
            objects.secrets.get_opt("meanwhile").await?.is_none(),
            "the proxy lets something through"
        );

        proxy.serve_again();
        // Past the backoff of objects; that of watches is in real time.
        scene.advance(SignedDuration::from_secs(61));
        objects.another_token("due", contoso, &token).await?;
        eventually(WATCH_BACKOFF, "the watch is back", async || {
            let secret = objects.secrets.get_opt("meanwhile").await;
            secret
                .map_err(|error| error.to_string())?
                .map(drop)
                .ok_or_else(|| "no Secret".to_owned())
        })
        .await?;
        objects.ready("meanwhile").await?;
        assert_eq!(objects.secret("due").await?.metadata.uid, uid);
        assert_eq!(
            behind.exchanges(),
            2,
            "what was minted while it was away is still good"
        );
        assert!(acrcred.oldest_due() < PROMPT, "{:?}", acrcred.oldest_due());
        behind.leaves_alone("leaves").await?;
        Ok(())
    });
}

#[test]
fn a_call_without_an_answer_holds_up_nobody_else() {
    run(async {
        let behind = Behind::start("mute", WATCH_TIMEOUT).await?;
        let Behind {
            proxy,
            acrcred,
            objects,
            contoso,
            ..
        } = &behind;
        let hang = Match::of(Verb::Patch)
            .on("acrcredentials/status")
            .named("mute");
        let mute = proxy.add(Rule::new(hang, Fault::Hang));
        objects.create(&manifest("mute", &[contoso])).await?;
        soon("its status is being written", async || {
            match proxy.hits(mute) {
                0 => Err("not yet".into()),
                _ => Ok(()),
            }
        })
        .await?;
        objects.create_ready(&manifest("other", &[contoso])).await?;
        assert!(acrcred.oldest_due() < PROMPT, "{:?}", acrcred.oldest_due());
        proxy.remove(mute);
        objects.ready("mute").await?;
        assert_eq!(
            proxy.hits(mute),
            1,
            "the call ended only with the connection"
        );
        Ok(())
    });
}

#[test]
fn a_namespace_that_is_going_is_left_in_peace() {
    run(async {
        let scene = Scene::with_own_time("going").await?;
        let contoso = scene.registry("contoso").await?;
        let stays = scene.control_plane.create_namespace("stays").await?;
        let proxy = scene.fault_proxy().await?;
        let mut tuning = Tuning::of(&scene);
        tuning.api_server = Some(proxy.url());
        tuning.watch_namespaces.push(stays.clone());
        tuning.policy.push((stays.clone(), "*".into()));
        let acrcred = scene.start_tuned(tuning).await?;
        let objects = scene.objects();
        let others = crate::harness::Objects::new(scene.control_plane.admin(), &stays);
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        others.create_ready(&manifest("acr", &[&contoso])).await?;

        // Something keeps the namespace from going, and acrcred is not told that its object went.
        let client = scene.control_plane.admin();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &scene.namespace);
        let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/held"]}});
        maps.create(&PostParams::default(), &serde_json::from_value(held)?)
            .await?;
        proxy.silence_watches();
        let namespaces: Api<Namespace> = Api::all(client);
        namespaces
            .delete(&scene.namespace, &DeleteParams::default())
            .await?;
        objects.collected("acr").await?;

        let before = scene.calls().await?.on("secrets").writes().len();
        let token = others.token("acr", &contoso).await?.context("a token")?;
        scene.advance(REFRESH);
        let token = others.another_token("acr", &contoso, &token).await?;
        soon("acrcred has met the end of the namespace", async || {
            let calls = scene.calls().await.map_err(|error| error.to_string())?;
            if calls.forbidden().is_empty() {
                Err(calls.to_string())
            } else {
                Ok(())
            }
        })
        .await?;
        for _ in 0..PAUSES {
            scene.advance(SignedDuration::from_mins(11));
        }
        // The positive control: it is awake, and refreshes elsewhere.
        others.another_token("acr", &contoso, &token).await?;
        let calls = scene.calls().await?;
        // The end of the Secret is met by the first; each of the others waited for longer, at last for 10 minutes.
        let tries = calls.on("secrets").writes().len() - before;
        assert!(tries <= 1 + PAUSES, "{calls}");
        assert!(objects.secrets.get_opt("acr").await?.is_none());
        assert!(acrcred.oldest_due() < PROMPT);
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        maps.patch("held", &PatchParams::default(), &free).await?;
        Ok(())
    });
}
