//! `explain`, and the warnings of `inject`: why a pod is injected or not.

use super::*;

#[test]
fn a_request_for_injection_that_is_not_met_is_a_warning() {
    let asks = pod("p", ", namespace: kube-system, labels: {sidecar.istio.io/inject: 'true'}");
    let run = outrigger_reads(&["inject", "-f", "-"], &asks);
    assert_eq!((run.code, &run.out), (0, &asks));
    assert!(run.err.contains("\nwarning: Pod kube-system/p: no sidecar was injected although sidecar.istio.io/inject is \"true\""), "{}", run.err);
    let run =
        outrigger_reads(&["inject", "-f", "-"], &pod("p", ", labels: {sidecar.istio.io/inject: 'yes'}"));
    assert!(
        run.err.contains("\nwarning: Pod default/p: the pod's label sidecar.istio.io/inject is \"yes\""),
        "{}",
        run.err
    );
}

#[test]
fn explain_says_which_rule_decides_and_what_it_overrules() {
    let text = pod("p", ", namespace: kube-system, labels: {app: p, sidecar.istio.io/inject: 'true'}");
    let run = outrigger_reads(
        &["explain", "-f", "-", "-o", "json"],
        &format!("{}---\n{text}", pod("q", ", labels: {app: q}")),
    );
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let rows = run.json();
    assert_eq!(rows[0]["adds"]["initContainers"], json!(["istio-init", "istio-proxy"]));
    assert_eq!(rows[0]["templates"], json!(["sidecar"]));
    assert_eq!(rows[0]["warnings"], json!([]));
    let row = &rows[1];
    assert_eq!(
        (&row["kind"], &row["namespace"], &row["name"], &row["inject"], &row["reason"], &row["line"]),
        (
            &json!("Pod"),
            &json!("kube-system"),
            &json!("p"),
            &json!(false),
            &json!("namespace_exempt"),
            &json!(6)
        )
    );
    assert_eq!(row["adds"], Value::Null);
    let rules = row["rules"].as_array().unwrap();
    let with = |field: &str, value: Value| -> Vec<&str> {
        rules.iter().filter(|r| r[field] == value).map(|r| r["rule"].as_str().unwrap()).collect()
    };
    assert_eq!(with("decides", json!(true)), ["exempt namespaces"]);
    assert_eq!(with("outcome", json!("inject")), ["pod's sidecar.istio.io/inject", "mesh policy"]);
    assert_eq!(rules.len(), 11);

    let run = outrigger_reads(&["explain", "-f", "-"], &text);
    assert!(
        run.out.starts_with(
            "Pod kube-system/p: not injected because namespace \"kube-system\" belongs to the cluster"
        ),
        "{}",
        run.out
    );
    assert!(run.out.contains("\n  => exempt namespaces  "), "{}", run.out);
    assert!(!run.out.contains('\u{1b}'), "no colours where nobody sees them");
}

#[test]
fn explain_points_out_the_classic_mistakes() {
    let run = outrigger_reads(
        &["explain", "-f", "-", "-o", "json"],
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {sidecar.istio.io/inject: 'false'}
spec:
  template:
    metadata:
      labels: {tier: front, istio-injection: enabled}
      annotations: {sidecar.istio.io/inject: 'no'}
    spec: {containers: [{name: app, image: 'app:1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {selector: {tier: front}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {selector: {tier: front}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: other}
spec: {selector: {tier: front}, ports: [{port: 80}]}
",
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let rows = run.json();
    let warnings: Vec<&str> =
        rows[0]["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let parts = [
        "the pod's annotation sidecar.istio.io/inject is \"no\", which is neither",
        "istio-injection stands in metadata.labels of the pod template",
        "the pod has no label app",
        "2 Services select the pod (one, two)",
        "port 80 of Service one has no name",
    ];
    assert_eq!(warnings.len(), parts.len(), "{warnings:#?}");
    for (warning, part) in warnings.iter().zip(parts) {
        assert!(warning.contains(part), "{warning} does not say {part}");
    }
}

#[test]
fn explain_reports_what_it_cannot_read_and_explains_the_rest() {
    let run = outrigger(&["explain", "-f", &fixture("bad.yaml"), "-o", "json"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.json().as_array().unwrap().len(), 1);
    assert_eq!(run.json()[0]["name"], "after");
    assert_eq!(run.err.matches("error: ").count(), 7, "{}", run.err);
}

#[test]
fn explain_says_where_every_field_comes_from() {
    let arguments = ["explain", "-f", "-", "--fields", "--set", "images.proxy=mine:1"];
    let run = outrigger_reads(&[&arguments[..], &["-o", "json"]].concat(), &pod("p", ", labels: {app: p}"));
    assert_eq!(run.code, 0, "{}", run.err);
    let fields = run.json()[0]["fields"].clone();
    let of = |name: &str| fields.as_array().unwrap().iter().find(|f| f["field"] == name).unwrap().clone();
    assert_eq!(
        of("spec.initContainers[istio-proxy].image"),
        json!({"field": "spec.initContainers[istio-proxy].image", "value": "mine:1", "before": null, "from": ["value images.proxy"]})
    );
    // With the CNI plugin there is no such container.
    assert_eq!(
        of("spec.initContainers[istio-init].image")["from"],
        json!(["default images.init", "default pilot.cni.enabled"])
    );
    let run = outrigger_reads(&arguments, &pod("p", ", labels: {app: p}"));
    assert!(
        run.out.contains(
            "\n     spec.initContainers[istio-proxy].image = \"mine:1\"  from value images.proxy\n"
        ),
        "{}",
        run.out
    );
}
