//! What is known of the cluster's namespaces, in memory: no request waits for an API server.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

/// The metadata of Namespaces that injection may ask for (`injection::of_namespace`), by name. Empty where no
/// cluster is followed.
#[derive(Debug, Default)]
pub struct Namespaces(RwLock<HashMap<String, Arc<Value>>>);

impl Namespaces {
    /// Of the namespace with this name, where it is known.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Value>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Changes what is known.
    pub(crate) fn change(&self, change: impl FnOnce(&mut HashMap<String, Arc<Value>>)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}
