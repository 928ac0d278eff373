//! Which workloads of the namespaces that ask for injection have pods without a sidecar, or with an old one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Cluster, REGISTRATIONS};
use crate::diagnosis::asks;
use crate::injection::{Injector, of_namespace};
use crate::installation::{self, Names, tags_of};
use crate::sidecars::{self, Workload};

/// Asks: all namespaces, or those of `only` where it names any. The pods of one namespace at a time are read.
///
/// # Errors
/// What cannot be read, or settings that are refused, as a message for people.
pub async fn wanting(
    cluster: &Cluster,
    names: &Names,
    only: &BTreeSet<&str>,
) -> Result<Vec<Workload>, String> {
    let Names { name, namespace, .. } = names;
    let map = cluster.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await;
    let map = map.map_err(|e| format!("the settings of the installation: {e}"))?;
    let injector = Injector::new(installation::settings(&map)?)
        .map_err(|e| e.within(&installation::settings_place(&map)))?;
    let list = async |path: &str| cluster.list(path).await.map_err(|e| e.to_string());
    let registrations = list(REGISTRATIONS).await?;
    let tags = tags_of(&registrations, names);
    let mut found = Vec::new();
    for around in list("/api/v1/namespaces").await?.iter().filter(|around| asks(around, names, &tags)) {
        let metadata: &Value = &around["metadata"];
        let namespace = metadata["name"].as_str().unwrap_or_default();
        if only.is_empty() || only.contains(namespace) {
            let pods = list(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
            let facts = of_namespace(metadata);
            found.extend(sidecars::wanting(&pods, &injector, |_| Some(&facts)));
        }
    }
    Ok(found)
}
