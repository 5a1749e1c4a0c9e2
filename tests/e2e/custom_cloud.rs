//! A cloud that is none of Azure's own, described by the file that `AZURE_ENVIRONMENT_FILEPATH` names. All on the
//! program itself, since it reads the file.

use std::path::PathBuf;

use anyhow::Result;
use azure_emulator::cloud::{Cloud, PUBLIC};
use azure_emulator::journal::Endpoint;
use azure_emulator::state::{Resource, ResourceStatus, Tenant};
use serde_json::{Value, json};

use crate::harness::{
    Objects, Program, Scene, TestRegistry, acrcred, condition, manifest, refuses, run,
};

const FILE: &str = "AZURE_ENVIRONMENT_FILEPATH";
const SUFFIX: &str = "azurecr.pr";

/// What a test has of its own cloud.
struct CustomCloud {
    authority: String,
    resource_manager: String,
}

impl CustomCloud {
    /// One that signs in at a host of its own, with the test's tenant in it.
    fn of(scene: &Scene) -> Result<Self> {
        let name = &scene.namespace;
        let custom = Self {
            authority: format!("login.{name}.private"),
            resource_manager: format!("https://management.{name}.private"),
        };
        let (authority, resource_manager) = (&custom.authority, &custom.resource_manager);
        let cloud = Cloud::custom(name, authority, resource_manager, SUFFIX);
        scene.emulator.add_cloud(cloud)?;
        scene.emulator.add_tenant(Tenant {
            tenant_id: scene.tenant_id.clone(),
            cloud: name.clone(),
            ..Tenant::default()
        })?;
        Ok(custom)
    }

    /// As an installer of Azure Stack writes it.
    fn document(&self) -> Value {
        json!({
            "name": "AzureStackCloud",
            "resourceManagerEndpoint": format!("{}/", self.resource_manager),
            "activeDirectoryEndpoint": format!("https://{}/", self.authority),
            "tokenAudience": "https://management.elsewhere.private/0c9b6c0e-0000-4000-8000-000000000000",
            "containerRegistryDNSSuffix": SUFFIX,
            "storageEndpointSuffix": "pr",
        })
    }
}

/// Writes a file for the program to read.
fn file(scene: &Scene, document: &Value) -> Result<PathBuf> {
    let path = scene.dir.path().join("environment.json");
    std::fs::write(&path, document.to_string())?;
    Ok(path)
}

async fn start(scene: &Scene, document: &Value, arguments: &[&str]) -> Result<Program> {
    let path = file(scene, document)?;
    Program::start_with(scene, |command| {
        command.env(FILE, path).args(arguments);
    })
    .await
}

/// Authority host and scope of every sign-in.
fn sign_ins(scene: &Scene) -> Vec<(String, String)> {
    let logins = scene.journal(Endpoint::Login).into_iter();
    logins
        .map(|login| (login.host, login.scope.unwrap_or_default()))
        .collect()
}

async fn pulls(
    scene: &Scene,
    objects: &Objects,
    name: &str,
    registry: &TestRegistry,
) -> Result<()> {
    let crane = scene.crane(&objects.docker_config(name).await?)?;
    crane
        .pull(&format!("{}/team/app:v1", registry.server))
        .await?;
    Ok(())
}

/// Waits until the registry is refused; returns why.
async fn not_allowed(objects: &Objects, name: &str, registry: &TestRegistry) -> Result<String> {
    objects.create(&manifest(name, &[registry])).await?;
    let object = objects
        .has(name, "Stalled", "True", "RegistryNotAllowed")
        .await?;
    Ok(condition(&object, "Ready")
        .expect("just seen")
        .message
        .clone())
}

#[test]
fn it_signs_in_where_the_file_says_for_its_resource_manager_and_pulls() {
    run(async {
        let scene = Scene::new("custom").await?;
        let custom = CustomCloud::of(&scene)?;
        let foo = scene.registry_in(SUFFIX, "foo", |_| {}).await?;
        let regional = scene
            .registry_in(&format!("north.geo.{SUFFIX}"), "foo", |_| {})
            .await?;
        let _program = start(&scene, &custom.document(), &[]).await?;
        let objects = scene.objects();
        let object = objects
            .create_ready(&manifest("acr", &[&foo, &regional]))
            .await?;
        // One slash, and not the tokenAudience.
        let scope = format!("{}/.default", custom.resource_manager);
        assert_eq!(sign_ins(&scene), [(custom.authority, scope)]);
        let status = object.status.expect("a status");
        let audience = Some(custom.resource_manager.as_str());
        assert_eq!(status.registries[0].audience.as_deref(), audience);
        for registry in [&foo, &regional] {
            pulls(&scene, &objects, "acr", registry).await?;
        }
        Ok(())
    });
}

#[test]
fn its_suffix_ends_at_a_dot() {
    run(async {
        let scene = Scene::new("boundary").await?;
        let custom = CustomCloud::of(&scene)?;
        let _program = start(&scene, &custom.document(), &[]).await?;
        let objects = scene.objects();
        for (number, suffix) in [
            "azurecr.private",
            "xazurecr.pr",
            "azurecr.pr.private",
            "a.b.azurecr.pr",
        ]
        .into_iter()
        .enumerate()
        {
            // It exists, and would take the token.
            let outside = scene.empty_registry(suffix, "foo", |_| {})?;
            let told = not_allowed(&objects, &format!("outside-{number}"), &outside).await?;
            assert!(told.contains(SUFFIX), "{suffix}: {told}");
            assert!(!told.contains("foo"), "{told}");
            assert_eq!(scene.connects_to(&outside.server), 0, "{suffix}");
        }
        assert_eq!(scene.upstream_calls(), (0, 0));
        let inside = scene.registry_in(SUFFIX, "foo", |_| {}).await?;
        objects
            .create_ready(&manifest("inside", &[&inside]))
            .await?;
        assert_eq!(scene.upstream_calls(), (1, 1));
        Ok(())
    });
}

#[test]
fn azures_own_registries_count_beside_it_only_if_their_cloud_is_listed() {
    run(async {
        let scene = Scene::new("beside").await?;
        // As Azure Stack that signs in with Entra itself: its tenants know one resource more.
        let custom = CustomCloud {
            authority: "login.microsoftonline.com".to_owned(),
            resource_manager: format!("https://management.{}.private", scene.namespace),
        };
        scene.emulator.add_tenant(Tenant {
            tenant_id: scene.tenant_id.clone(),
            cloud: PUBLIC.to_owned(),
            resources: vec![Resource {
                id: custom.resource_manager.clone(),
                status: ResourceStatus::Enabled,
            }],
            ..Tenant::default()
        })?;
        // The emulator's registries take any Resource Manager that is some cloud's.
        let name = &scene.namespace;
        scene.emulator.add_cloud(Cloud::custom(
            name,
            format!("login.{name}.private"),
            &custom.resource_manager,
            SUFFIX,
        ))?;
        let foo = scene.registry_in(SUFFIX, "foo", |_| {}).await?;
        let contoso = scene.empty_registry("azurecr.io", "contoso", |_| {})?;
        let objects = scene.objects();

        let alone = start(&scene, &custom.document(), &[]).await?;
        objects.create_ready(&manifest("foo", &[&foo])).await?;
        let told = not_allowed(&objects, "contoso", &contoso).await?;
        for word in [&contoso.server, PUBLIC, "--clouds"] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(scene.connects_to(&contoso.server), 0);
        alone.terminate().await?;

        scene.assign_role(&contoso)?;
        let _both = start(&scene, &custom.document(), &["--clouds", PUBLIC]).await?;
        objects.ready("contoso").await?;
        let of_stack = format!("{}/.default", custom.resource_manager);
        let of_azure = "https://containerregistry.azure.net/.default";
        let scopes: Vec<String> = sign_ins(&scene).into_iter().map(|login| login.1).collect();
        assert_eq!(scopes, [of_stack.as_str(), of_azure]);
        Ok(())
    });
}

#[test]
fn a_file_that_describes_an_azure_suffix_beats_azure() {
    run(async {
        let scene = Scene::new("beats").await?;
        let custom = CustomCloud::of(&scene)?;
        let contoso = scene.registry_in("azurecr.io", "contoso", |_| {}).await?;
        let mut document = custom.document();
        document["containerRegistryDNSSuffix"] = "azurecr.io".into();
        let _program = start(&scene, &document, &["--clouds", PUBLIC]).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let scope = format!("{}/.default", custom.resource_manager);
        assert_eq!(sign_ins(&scene), [(custom.authority, scope)]);
        pulls(&scene, &objects, "acr", &contoso).await
    });
}

#[test]
fn e16_an_audience_that_the_cloud_does_not_know_is_told_with_the_flag_that_helps() {
    run(async {
        let scene = Scene::new("e16").await?;
        let custom = CustomCloud::of(&scene)?;
        let foo = scene.registry_in(SUFFIX, "foo", |_| {}).await?;
        let audience = ["--registry-audience", "https://containerregistry.azure.net"];
        let program = start(&scene, &custom.document(), &audience).await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&foo])).await?;
        let object = objects
            .has("acr", "Stalled", "True", "EntraRefused")
            .await?;
        let message = &condition(&object, "Ready").expect("just seen").message;
        for word in ["50001", "--registry-audience"] {
            assert!(message.contains(word), "{message}");
        }
        program.terminate().await?;
        let _program = start(&scene, &custom.document(), &[]).await?;
        objects.ready("acr").await?;
        Ok(())
    });
}

#[test]
fn the_program_does_not_start_with_a_file_that_it_cannot_use() {
    run(async {
        let scene = Scene::new("bad-file").await?;
        let good = CustomCloud::of(&scene)?.document();
        let without = |field: &str| {
            let mut document = good.clone();
            document.as_object_mut().expect("an object").remove(field);
            document.to_string()
        };
        let with = |field: &str, value: &str| {
            let mut document = good.clone();
            document[field] = value.into();
            document.to_string()
        };
        for (text, named) in [
            (
                without("resourceManagerEndpoint"),
                "resourceManagerEndpoint",
            ),
            (
                without("activeDirectoryEndpoint"),
                "activeDirectoryEndpoint",
            ),
            (
                without("containerRegistryDNSSuffix"),
                "containerRegistryDNSSuffix",
            ),
            (
                with("resourceManagerEndpoint", "management.canary.private"),
                "resourceManagerEndpoint",
            ),
            (
                with(
                    "activeDirectoryEndpoint",
                    "https://adfs.canary.private/adfs",
                ),
                "AD FS",
            ),
            (
                with("activeDirectoryEndpoint", "http://login.canary.private/"),
                "activeDirectoryEndpoint",
            ),
            (
                with("containerRegistryDNSSuffix", "canary"),
                "containerRegistryDNSSuffix",
            ),
            (good.to_string().replace(':', " canary "), "not JSON"),
            ("[]".to_owned(), "no JSON object"),
        ] {
            let path = scene.dir.path().join("bad.json");
            std::fs::write(&path, &text)?;
            let mut command = acrcred();
            let told = refuses(
                command
                    .args(["--admin-listen", "127.0.0.1:0"])
                    .env(FILE, path),
            )
            .await?;
            assert!(
                told.contains(FILE) && told.contains(named),
                "{text}: {told}"
            );
            assert!(!told.contains("canary"), "{told}");
            assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        }
        for path in ["/no/such/file", "/"] {
            let mut command = acrcred();
            let told = refuses(command.env(FILE, path)).await?;
            assert!(
                told.contains(FILE) && told.contains("cannot be read"),
                "{told}"
            );
        }
        // With a good file it comes further: to the cluster, of which it was told nothing.
        let path = file(&scene, &good)?;
        let mut command = acrcred();
        let told = refuses(
            command
                .args(["--admin-listen", "127.0.0.1:0"])
                .env(FILE, path),
        )
        .await?;
        assert!(
            told.contains("KUBECONFIG") && !told.contains(FILE),
            "{told}"
        );
        Ok(())
    });
}
