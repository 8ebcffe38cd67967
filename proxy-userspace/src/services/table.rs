//! The services of one moment, found by what URLs call them.

use std::collections::HashMap;
use std::sync::Arc;

use super::Service;

/// All services; replaced as a whole when one comes or goes.
#[derive(Debug, Default)]
pub struct Table {
    prefix: Option<Box<str>>,
    services: Vec<Arc<Service>>,
    by_name: HashMap<Box<str>, Arc<Service>>,
}

impl Table {
    /// Where two are called the same, the first is meant.
    #[must_use]
    pub fn new(prefix: Option<Box<str>>, services: Vec<Arc<Service>>) -> Self {
        let mut by_name = HashMap::new();
        for service in &services {
            by_name.entry(service.name.clone()).or_insert_with(|| Arc::clone(service));
        }
        Self { prefix, services, by_name }
    }

    /// Below which path they are served; None: nowhere.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The one that URLs call so.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Arc<Service>> {
        self.by_name.get(key)
    }

    /// All.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }
}
