//! The manifests: kustomize builds them, Kubernetes and the Prometheus operator would take them, and they say what we promise.

use serde_json::Value;

use super::tools::{Folder, python, right, said, tool};
use super::{root, text};

const COMPONENTS: [&str; 5] = ["dashboard", "pod-monitor", "rules", "sample-projection", "token"];
const OVERLAYS: [&str; 2] = ["dev", "production"];

/// What kustomize makes of a folder.
fn kustomized(folder: &str) -> Option<String> {
    let output = tool("kubectl", &["kustomize", folder], &root())?;
    right(&output);
    Some(String::from_utf8(output.stdout).expect("YAML is text"))
}

/// The base with one component, as an overlay of somebody else's would have it.
fn with_component(component: &str) -> Option<String> {
    let folder = Folder::new("kustomize");
    folder.copy("deploy");
    let overlay = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../base]\n\
         components: [../components/{component}]\n"
    );
    folder.write("deploy/try/kustomization.yaml", &overlay);
    let output = tool("kubectl", &["kustomize", "deploy/try"], folder.path())?;
    right(&output);
    Some(String::from_utf8(output.stdout).expect("YAML is text"))
}

/// Manifests as values. With schemas, those of the Prometheus operator are held to its own first, which takes seconds.
fn read(manifests: &str, schemas: bool) -> Option<Result<Vec<Value>, String>> {
    let args: &[&str] = if schemas { &["schemas"] } else { &[] };
    let output = python(include_str!("manifests.py"), args, manifests)?;
    Some(match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("it prints JSON")),
        false => Err(said(&output)),
    })
}

fn overlay(name: &str) -> Option<Vec<Value>> {
    let manifests = kustomized(&format!("deploy/overlays/{name}"))?;
    Some(read(&manifests, false)?.unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Holds manifests to the schemas of Kubernetes and of the Prometheus operator, no unknown field allowed.
fn validated(manifests: &str) -> Option<Result<(), String>> {
    let documents = match read(manifests, true)? {
        Ok(documents) => documents,
        Err(error) => return Some(Err(error)),
    };
    let folder = Folder::new("schemas");
    let built_in = documents.iter().filter(|document| document["apiVersion"] != "monitoring.coreos.com/v1");
    // JSON is YAML.
    let built_in: String = built_in.map(|document| format!("---\n{document}\n")).collect();
    folder.write("manifests.yaml", &built_in);
    let output = tool("kubernetes-validate", &["--strict", "manifests.yaml"], folder.path())?;
    // A kind without a schema is only warned of.
    let taken = output.status.success() && !said(&output).contains("WARN");
    Some(if taken { Ok(()) } else { Err(said(&output)) })
}

#[test]
fn kubernetes_and_the_prometheus_operator_take_every_overlay_and_component() {
    let folders = std::fs::read_dir(root().join("deploy/components")).expect("the folder is there");
    assert_eq!(folders.count(), COMPONENTS.len(), "no component is left out here");
    let overlays = OVERLAYS.iter().map(|name| kustomized(&format!("deploy/overlays/{name}")));
    let components = COMPONENTS.iter().map(|name| with_component(name));
    let Some(all) = overlays.chain(components).collect::<Option<Vec<String>>>() else { return };
    if let Some(result) = validated(&all.join("\n---\n")) {
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn a_misspelt_field_would_be_seen() {
    let Some(manifests) = kustomized("deploy/overlays/production") else { return };
    for (right, wrong) in [
        (" terminationGracePeriodSeconds: 45", " terminationGracePeriod: 45"),
        ("scrapeTimeout:", "scrapingTimeout:"),
        ("for: 5m", "for: five minutes"),
    ] {
        assert!(manifests.contains(right), "{right}");
        let Some(result) = validated(&manifests.replacen(right, wrong, 1)) else { return };
        assert!(result.is_err(), "{wrong} was taken");
    }
}

/// The documents of a kind.
fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// What is in a list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn pods_may_do_nothing_that_they_need_not() {
    for name in OVERLAYS {
        let Some(documents) = overlay(name) else { return };
        for deployment in of_kind(&documents, "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{pod}");
            // For a Service named foldd the cluster would set FOLDD_* variables.
            assert_eq!(pod["enableServiceLinks"], false, "{pod}");
            let ours = deployment["metadata"]["name"] == "foldd";
            for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
                assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{container}");
                assert!(context["readOnlyRootFilesystem"] == true || !ours, "{container}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{container}");
            }
        }
    }
}

#[test]
fn whatever_selects_the_pods_finds_them_and_their_port() {
    for name in OVERLAYS {
        let Some(documents) = overlay(name) else { return };
        let deployments = of_kind(&documents, "Deployment");
        let foldd = deployments.iter().find(|one| one["metadata"]["name"] == "foldd").expect("it is there");
        let template = &foldd["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(&foldd["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(&template["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"], labels);
        assert_eq!(foldd["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
        for (kind, selector) in [
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ] {
            let all = of_kind(&documents, kind);
            assert!(
                all.iter().any(|one| one.pointer(selector) == Some(labels)),
                "{name}: no {kind} finds the pods"
            );
        }
        let port = &template["spec"]["containers"][0]["ports"][0];
        assert_eq!(port["name"], "http");
        let annotations = &template["metadata"]["annotations"];
        match of_kind(&documents, "PodMonitor").first() {
            Some(monitor) => {
                assert_eq!(&monitor["spec"]["selector"]["matchLabels"], labels);
                assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"]);
                assert!(annotations.is_null(), "it would be scraped twice");
            }
            None => assert_eq!(annotations["prometheus.io/port"], port["containerPort"].to_string()),
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &template["spec"]["containers"][0][probe]["httpGet"];
            let path = if probe == "readinessProbe" { "/readyz" } else { "/livez" };
            assert_eq!((&get["path"], &get["port"]), (&Value::from(path), &port["name"]), "{probe}");
        }
    }
}

/// The ConfigMaps and Secrets that a volume cannot do without.
fn sources(volume: &Value) -> Vec<&Value> {
    if let Some(source) = volume.pointer("/configMap/name").or(volume.pointer("/secret/secretName")) {
        return vec![source];
    }
    let secrets = list(&volume["projected"]["sources"]).iter().map(|source| &source["secret"]);
    let secrets: Vec<&Value> =
        secrets.filter(|secret| secret["optional"] != true).map(|one| &one["name"]).collect();
    assert!(!secrets.is_empty(), "what is in {volume}?");
    secrets
}

#[test]
fn what_is_mounted_is_there_whole_and_only_the_init_container_may_migrate() {
    for name in OVERLAYS {
        let Some(documents) = overlay(name) else { return };
        let made: Vec<&Value> = ["ConfigMap", "Secret"]
            .iter()
            .flat_map(|kind| of_kind(&documents, kind))
            .map(|document| &document["metadata"]["name"])
            .collect();
        let deployments = of_kind(&documents, "Deployment");
        let foldd = deployments.iter().find(|one| one["metadata"]["name"] == "foldd").expect("it is there");
        let pod = &foldd["spec"]["template"]["spec"];
        for source in list(&pod["volumes"]).iter().flat_map(sources) {
            // Whatever keeps the secrets of production makes this one.
            let elsewhere = name == "production" && source == "foldd-database";
            assert!(elsewhere || made.contains(&source), "{name}: nobody makes {source}");
        }
        let migrate = &pod["initContainers"][0];
        assert_eq!(migrate["args"].as_array().and_then(|args| args.last()), Some(&Value::from("migrate")));
        for (container, allowed) in [(migrate, true), (&pod["containers"][0], false)] {
            let mounts = list(&container["volumeMounts"]);
            assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{container}");
            // A mounted file never changes; a mounted folder follows a rotated secret.
            assert!(mounts.iter().all(|mount| mount["subPath"].is_null()), "{container}");
            assert_eq!(mounts.iter().any(|mount| mount["name"] == "owner"), allowed, "{container}");
        }
        let projections = of_kind(&documents, "ConfigMap").into_iter().find(|map| {
            map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("foldd-projections-"))
        });
        let keys = projections.and_then(|map| map["data"].as_object()).expect("it has projections");
        assert!(!keys.is_empty() && keys.keys().all(|key| key.ends_with(".sql")), "{keys:?}");
    }
}

/// The value of a key of a file of lines, behind `:` or `=`.
pub(crate) fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
    Some(line.trim_start_matches([' ', ':', '=']).trim_matches('"'))
}

#[test]
fn a_pod_is_given_longer_than_the_drain_and_the_drain_longer_than_a_batch() {
    let configuration = text("deploy/base/foldd.toml");
    let seconds = |text: &str| humantime::parse_duration(text).expect("it is a duration").as_secs();
    let drain = seconds(value_of(&configuration, "drain_timeout").expect("it is said"));
    let batch = seconds(value_of(&configuration, "batch_timeout").expect("it is said"));
    let deployment = text("deploy/base/deployment.yaml");
    let grace = value_of(&deployment, "terminationGracePeriodSeconds").expect("it is said");
    let grace: u64 = grace.parse().expect("it is a number");
    // After the drain there is the goodbye to the database, and before it the time until the signal comes.
    assert!(grace >= drain + 10, "grace {grace}, drain {drain}");
    assert!(drain > batch, "drain {drain}, batch {batch}");
    let compose = text("deploy/compose.yaml");
    let stop = seconds(value_of(&compose, "stop_grace_period").expect("it is said"));
    assert!(stop >= 30, "the compose file has the defaults, and so a drain of 20 s: {stop}");
}

#[test]
fn the_yaml_is_tidy_and_the_compose_file_is_one() {
    if let Some(output) = tool("yamllint", &["--strict", "."], &root().join("deploy")) {
        right(&output);
    }
    let args = ["--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"];
    if let Some(output) = tool("check-jsonschema", &args, &root()) {
        right(&output);
    }
}

#[test]
fn the_configurations_that_are_shipped_are_what_the_schema_says() {
    let schema = std::process::Command::new(env!("CARGO_BIN_EXE_foldd")).args(["config", "schema"]).output();
    let folder = Folder::new("configuration");
    folder.write("schema.json", &String::from_utf8_lossy(&schema.expect("foldd runs").stdout));
    folder.write("shipped.toml", &text("deploy/base/foldd.toml"));
    folder.write("sample.toml", &text("config/foldd.toml"));
    folder.write("wrong.toml", &text("deploy/base/foldd.toml").replace("drain_timeout", "draining_timeout"));
    for (name, is_right) in [("shipped.toml", true), ("sample.toml", true), ("wrong.toml", false)] {
        let Some(output) = tool("check-jsonschema", &["--schemafile", "schema.json", name], folder.path())
        else {
            return;
        };
        assert_eq!(output.status.success(), is_right, "{name}: {}", said(&output));
    }
}
