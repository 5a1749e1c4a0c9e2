//! A watch that falls silent, expires or is cut hides nothing for long.
//!
//! The API server ends a watch at `--watch-timeout`. kube waits 5 s longer for the end (for each event, but
//! there is none in a silent watch), and then opens another. The wait for a watch's beginning, and for a
//! list, kube does not limit: `controller::connect` does, 2 s later still.

use std::time::{Duration, Instant};

use controlplane::fault_proxy::{Fault, Match, Rule, Verb};

use super::{Behind, PROMPT};
use crate::changes::Changes;
use crate::harness::{manifest, run, soon};

/// The least that the limit may be.
const WATCH_TIMEOUT: Duration = Duration::from_secs(1);
/// With what kube adds, and a moment for the work.
const SILENT: Duration = Duration::from_secs(1 + 5 + 3);
/// With what acrcred adds, the pause after a failure, and a moment for the work.
const MUTE: Duration = Duration::from_secs(1 + 7 + 4);
const LONG: Duration = Duration::from_secs(200);

#[test]
fn a_silent_watch_is_replaced_within_its_limit() {
    run(async {
        let behind = Behind::start("silent", WATCH_TIMEOUT).await?;
        let Behind {
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        objects
            .create_ready(&manifest("before", &[contoso]))
            .await?;
        behind.watches().await?;
        let begun = proxy.count(&Match::of(Verb::Watch));
        proxy.silence_watches();
        let silenced = Instant::now();
        objects.create(&manifest("unheard", &[contoso])).await?;
        objects.ready("unheard").await?;
        let took = silenced.elapsed();
        assert!(took < SILENT, "{took:?}");
        // The watch was open, and really silent: it outlasted the limit, and one more was opened.
        assert!(took > WATCH_TIMEOUT, "{took:?}");
        assert_eq!(proxy.count(&Match::of(Verb::Watch)), begun + 1);
        Ok(())
    });
}

#[test]
fn a_watch_that_never_begins_is_given_up() {
    run(async {
        let behind = Behind::start("mute-watch", WATCH_TIMEOUT).await?;
        let Behind {
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        let mute = proxy.add(Rule::new(Match::of(Verb::Watch), Fault::Hang).times(1));
        proxy.close_watches();
        soon("a watch hangs", async || match proxy.hits(mute) {
            0 => Err("not yet".into()),
            _ => Ok(()),
        })
        .await?;
        let hung = Instant::now();
        objects
            .create_ready(&manifest("unheard", &[contoso]))
            .await?;
        assert!(hung.elapsed() < MUTE, "{:?}", hung.elapsed());
        Ok(())
    });
}

#[test]
fn a_list_that_is_never_answered_is_given_up() {
    run(async {
        let behind = Behind::start("mute-list", WATCH_TIMEOUT).await?;
        let Behind {
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        let mute = proxy.add(Rule::new(Match::of(Verb::List), Fault::Hang).times(1));
        proxy.expire_watches();
        soon("a list hangs", async || match proxy.hits(mute) {
            0 => Err("not yet".into()),
            _ => Ok(()),
        })
        .await?;
        let hung = Instant::now();
        objects
            .create_ready(&manifest("unheard", &[contoso]))
            .await?;
        assert!(hung.elapsed() < MUTE, "{:?}", hung.elapsed());
        Ok(())
    });
}

#[test]
fn an_expired_watch_lists_anew_and_misses_neither_birth_nor_death() {
    run(async {
        let behind = Behind::start("gone", LONG).await?;
        let Behind {
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        objects.create_ready(&manifest("kept", &[contoso])).await?;
        objects.create_ready(&manifest("dies", &[contoso])).await?;
        behind.watches().await?;
        let lists = Match::of(Verb::List).on("acrcredentials");
        let before = proxy.count(&lists);
        // Between the silence and the new list, nobody tells acrcred anything.
        let closed = proxy.add(Rule::new(Match::of(Verb::List), Fault::Answer(410)).times(1));
        let shut = proxy.add(Rule::new(Match::of(Verb::Watch), Fault::Answer(503)));
        proxy.expire_watches();
        objects.delete("dies").await?;
        objects.create(&manifest("born", &[contoso])).await?;
        objects
            .change("kept", serde_json::json!({"spec": {"suspend": true}}))
            .await?;
        soon("watches are refused", async || match proxy.hits(shut) {
            0 => Err("not yet".into()),
            _ => Ok(()),
        })
        .await?;
        proxy.remove(shut);
        objects.ready("born").await?;
        objects
            .status("kept", "its new generation is seen", |object| {
                let seen = object
                    .status
                    .as_ref()
                    .and_then(|status| status.observed_generation);
                seen == object.metadata.generation
            })
            .await?;
        assert_eq!((proxy.hits(closed), proxy.count(&lists)), (1, before + 2));
        behind.leaves_alone("dies").await?;
        Ok(())
    });
}

#[test]
fn a_watch_that_is_cut_a_hundred_times_is_there_again_at_once() {
    run(async {
        let behind = Behind::start("cut", LONG).await?;
        let Behind {
            scene,
            proxy,
            acrcred,
            objects,
            contoso,
        } = &behind;
        objects.create_ready(&manifest("acr", &[contoso])).await?;
        let before = scene.calls().await?.writes().len();
        for cut in 0..100 {
            behind.watches().await?;
            if cut % 2 == 0 {
                proxy.close_watches();
            } else {
                proxy.break_watches();
            }
            soon("the watch is cut", async || {
                let begun = proxy.count(&Match::of(Verb::Watch));
                if begun > cut + 1 {
                    Ok(())
                } else {
                    Err(format!("{begun} after {cut} cuts"))
                }
            })
            .await?;
        }
        assert!(acrcred.oldest_due() < PROMPT);
        assert_eq!(
            scene.calls().await?.writes().len(),
            before,
            "cuts cause no writes"
        );
        let heard = Instant::now();
        objects.create_ready(&manifest("after", &[contoso])).await?;
        assert!(heard.elapsed() < PROMPT, "{:?}", heard.elapsed());
        Ok(())
    });
}

#[test]
fn a_watch_that_is_told_to_come_back_in_an_hour_comes_back_sooner() {
    run(async {
        let behind = Behind::start("hour", LONG).await?;
        let Behind {
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        let rules = [Verb::List, Verb::Watch]
            .map(|verb| proxy.add(Rule::new(Match::of(verb), Fault::Throttle(3600)).times(1)));
        proxy.expire_watches();
        objects.create_ready(&manifest("acr", &[contoso])).await?;
        soon("both were turned down once", async || {
            match rules.map(|rule| proxy.hits(rule)) {
                [1, 1] => Ok(()),
                hits => Err(format!("{hits:?}")),
            }
        })
        .await?;
        behind.watches().await?;
        objects
            .create_ready(&manifest("control", &[contoso]))
            .await?;
        Ok(())
    });
}

#[test]
fn an_older_view_of_an_object_causes_no_write() {
    run(async {
        let behind = Behind::start("older", WATCH_TIMEOUT).await?;
        let Behind {
            scene,
            proxy,
            objects,
            contoso,
            ..
        } = &behind;
        objects.create_ready(&manifest("acr", &[contoso])).await?;
        let token = objects.token("acr", contoso).await?.unwrap_or_default();
        behind.watches().await?;
        let begun = proxy.count(&Match::of(Verb::Watch));
        let changes = Changes::from_now(scene).await?;
        proxy.silence_watches();
        // acrcred hears of this only after it has written a status on top of it.
        objects
            .change(
                "acr",
                serde_json::json!({"metadata": {"labels": {"a": "b"}}}),
            )
            .await?;
        scene.advance(super::REFRESH);
        objects.another_token("acr", contoso, &token).await?;
        soon("the watch is replaced", async || {
            let now = proxy.count(&Match::of(Verb::Watch));
            if now > begun {
                Ok(())
            } else {
                Err(format!("{now}"))
            }
        })
        .await?;
        // Its birth comes after what the watch has to catch up with.
        objects
            .create_ready(&manifest("control", &[contoso]))
            .await?;
        let statuses = scene.calls().await?.writes().on("acrcredentials/status");
        let of = |name: &str| statuses.count(|call| call.name == name);
        assert_eq!((of("acr"), of("control")), (2, 1), "{statuses}");
        let secrets = changes.of_secrets().await?;
        assert_eq!(
            (secrets["acr"], secrets["control"]),
            (1, 1),
            "a rotation, and a birth"
        );
        Ok(())
    });
}
