//! `deploy/kustomize/chosen`, which says what an overlay has chosen.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::kustomize::{ANY, DOCUMENT, OTHERS, Overlay, minimal};
use super::{file, run};
use crate::neighbour::tool;

/// Returns the output of deploy/kustomize/chosen for an overlay.
fn chosen(overlay: &Path) -> Result<String, String> {
    let kubectl = tool("kubectl");
    let folder = kubectl.parent().expect("a folder").to_str().expect("a plain path");
    let mut chosen = Command::new(file("deploy/kustomize/chosen"));
    chosen.arg(overlay).env("PATH", format!("{folder}:/usr/bin:/bin"));
    run(&mut chosen, "")
}

#[test]
fn chosen_says_what_gets_the_sidecar_and_what_does_not() {
    let second = ANY.replace("{name: grpc, port: 81}", "{name: metrics, port: 8080}");
    let expected = "\
        Deployment/redis: left alone\n\
        Service/mail: left alone, has no ports\n\
        Service/peers: left alone, has no ports\n\
        Service/postgres: port sql 5432 -> 5432\n\
        Service/shop: port http 80 -> 8080, velt-sidecar\n\
        Service/shop: port metrics 8080 -> 8080\n\
        StatefulSet/postgres: left alone\n\
        StatefulSet/shop: velt-sidecar, in front of web\n";
    for component in ["component", "component-before-1.29"] {
        let overlay = Overlay::of(&format!("{second}{OTHERS}"), &minimal(component));
        assert_eq!(chosen(&overlay.path()).as_deref(), Ok(expected), "{component}");
    }
    chosen(&file("deploy/kustomize/example/overlay")).unwrap_or_else(|error| panic!("{error}"));
    // Fails without labels, so that a pipeline can use it as a check.
    let none = chosen(&file("deploy/kustomize/example/app")).expect_err("nothing is chosen");
    assert!(none.contains("Nothing is chosen") && none.contains("left alone"), "{none}");
}

#[test]
fn chosen_refuses_settings_outside_the_workloads_namespace() {
    let named = ANY
        .replace("metadata: {name: shop, labels", "metadata: {namespace: team, name: shop, labels");
    for component in ["component", "component-before-1.29"] {
        // Kustomize renames the ConfigMaps, and the workload goes on naming the former ones.
        let apart =
            chosen(&Overlay::of(&named, &minimal(component)).path()).expect_err("two namespaces");
        assert!(apart.contains("StatefulSet/shop is in the namespace team"), "{apart}");
        assert!(apart.contains("\"namespace: team\" into the overlay"), "{apart}");
        let together = format!("namespace: team\n{}", minimal(component));
        let shown = chosen(&Overlay::of(&named, &together).path());
        assert!(shown.as_ref().is_ok_and(|shown| !shown.contains(['?', '!'])), "{shown:?}");
        // With names that stay as they are, the API server looks in the workload's namespace.
        let kept = format!("generatorOptions: {{disableNameSuffixHash: true}}\n{together}");
        chosen(&Overlay::of(&named, &kept).path()).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn transcript_of_chosen_is_what_it_prints() {
    let (_, mail) = OTHERS.split_once("{name: mail}").expect("a Service without ports");
    let (mail, _) = mail.split_once("---").expect("an end");
    let objects = ANY.replace("{name: grpc, port: 81}", "{name: metrics, port: 9090}");
    let mail = format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: mail}}{mail}");
    let overlay = Overlay::of(&format!("{objects}{mail}"), &minimal("component"));
    let document = fs::read_to_string(file(DOCUMENT)).expect("the document");
    let (_, rest) = document.split_once("$ deploy/kustomize/chosen your-overlay\n").expect("it");
    let (shown, _) = rest.split_once("```").expect("an end");
    assert_eq!(chosen(&overlay.path()).as_deref(), Ok(shown));
}
