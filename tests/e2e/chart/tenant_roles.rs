//! What the roles for teams add to the cluster's own `view` and `edit`.

use anyhow::Result;
use controlplane::{ControlPlane, Tool};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::harness::{Helm, control_plane, run, soon};

/// Whether a user may do this with objects of a namespace.
async fn may(
    control_plane: &ControlPlane,
    (namespace, user): (&str, &str),
    (verb, resource): (&str, &str),
) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                group: Some("acrcred.dev".into()),
                resource: Some(resource.into()),
                subresource: Some(subresource.into()),
                namespace: Some(namespace.into()),
                verb: Some(verb.into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(control_plane.admin());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[test]
fn a_team_reads_and_writes_its_objects_and_nobody_writes_a_status() {
    run(async {
        let control_plane = control_plane().await?;
        let namespace = control_plane.create_namespace("tenants").await?;
        for role in ["view", "edit"] {
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
                },
                "subjects": [{
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": role,
                }],
            });
            let binding = binding.to_string();
            control_plane.apply_in(&namespace, binding).await?;
        }
        let (viewer, editor) = ((&*namespace, "view"), (&*namespace, "edit"));
        let create = ("create", "acrcredentials");
        // The positive control: by themselves, the roles know nothing of our objects.
        assert!(!may(control_plane, editor, create).await?);

        let helm = Helm::new(Tool::Helm)?;
        let values = json!({"rbac": {"aggregateToView": true, "aggregateToEdit": true}});
        let only = ["--show-only", "templates/tenant_roles.yaml"];
        let roles = helm
            .template_with(&namespace, "default", &values, &only)
            .await?;
        control_plane.apply(roles).await?;
        soon("the roles are aggregated", async || {
            let told = async |who, what| {
                let answer = may(control_plane, who, what).await;
                answer.map_err(|error| format!("{error:#}"))
            };
            match (
                told(editor, create).await?,
                told(viewer, ("get", "acrcredentials")).await?,
            ) {
                (true, true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;

        for (who, verb, resource, allowed) in [
            (viewer, "watch", "acrcredentials", true),
            (viewer, "create", "acrcredentials", false),
            (viewer, "delete", "acrcredentials", false),
            (editor, "get", "acrcredentials", true),
            (editor, "patch", "acrcredentials", true),
            (editor, "delete", "acrcredentials", true),
            (editor, "patch", "acrcredentials/status", false),
            (editor, "update", "acrcredentials/status", false),
        ] {
            let answer = may(control_plane, who, (verb, resource)).await?;
            assert_eq!(answer, allowed, "{who:?} {verb} {resource}");
        }
        Ok(())
    });
}
