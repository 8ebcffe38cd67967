//! The services of one moment, found by what URLs call them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{Origin, Service};

/// The shortest beginning of a container's id that stands for it, as engines print it.
const SHORT_ID: usize = 12;

/// All services; replaced as a whole when one comes or goes.
#[derive(Debug, Default)]
pub struct Table {
    prefix: Option<Box<str>>,
    services: Vec<Arc<Service>>,
    /// What the operator has named.
    named: HashMap<Box<str>, Arc<Service>>,
    /// Containers, by their full ids.
    by_id: BTreeMap<Box<str>, Arc<Service>>,
    /// Containers, by their names.
    by_name: HashMap<Box<str>, Arc<Service>>,
    /// None: several are called so.
    by_alias: HashMap<Box<str>, Option<Arc<Service>>>,
}

impl Table {
    /// Nobody can take the name of another: what the operator has named comes before ids, ids before names, names before
    /// what labels say, and a label that several have means none of them.
    #[must_use]
    pub fn new(prefix: Option<Box<str>>, services: Vec<Arc<Service>>) -> Self {
        let mut table = Self { prefix, ..Self::default() };
        for service in &services {
            let entry = || Arc::clone(service);
            if service.origin != Origin::Container {
                table.named.entry(service.name.clone()).or_insert_with(entry);
                continue;
            }
            table.by_name.entry(service.name.clone()).or_insert_with(entry);
            if let Some(id) = &service.full_id {
                table.by_id.insert(id.clone(), entry());
            }
            for alias in &service.aliases {
                table
                    .by_alias
                    .entry(alias.clone())
                    .and_modify(|other| *other = None)
                    .or_insert_with(|| Some(entry()));
            }
        }
        table.services = services;
        table
    }

    /// Below which path they are served; None: nowhere.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The one that URLs call so.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Arc<Service>> {
        let named = self.named.get(key).or_else(|| self.of_id(key)).or_else(|| self.by_name.get(key));
        named.or_else(|| self.by_alias.get(key)?.as_ref())
    }

    /// The only one whose id begins so.
    fn of_id(&self, start: &str) -> Option<&Arc<Service>> {
        if start.len() < SHORT_ID {
            return None;
        }
        let found = self.by_id.range::<str, _>((Bound::Included(start), Bound::Unbounded));
        let mut found = found.take_while(|(id, _)| id.starts_with(start));
        match (found.next(), found.next()) {
            (Some((_, service)), None) => Some(service),
            _ => None,
        }
    }

    /// All.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, Scheme};

    fn service(origin: Origin, id: &str, name: &str, aliases: &[&str]) -> Arc<Service> {
        let server = (Scheme::Http, Authority::parse("127.0.0.1:1", None).unwrap());
        let mut service = Service::at(name, origin, server, None);
        if origin == Origin::Container {
            service.id = id.chars().take(SHORT_ID).collect();
            service.full_id = Some(id.into());
        }
        service.aliases = aliases.iter().map(|alias| (*alias).into()).collect();
        Arc::new(service)
    }

    #[test]
    fn nobody_takes_the_name_of_another() {
        let (one, two) = ("aaaaaaaaaaaa0000", "aaaaaaaaaaaa1111");
        let squatter = "bbbbbbbbbbbb0000";
        let table = Table::new(
            None,
            vec![
                service(Origin::Container, one, "one", &["web", "mine"]),
                service(Origin::Container, two, "two", &["web", "one"]),
                // Called as another one's id begins, and as the operator calls its own.
                service(Origin::Container, squatter, "aaaaaaaaaaaa0", &["shop", "alone"]),
                service(Origin::Config, "", "shop", &[]),
            ],
        );
        let found =
            |key: &str| table.find(key).map(|found| found.full_id.as_deref().unwrap_or("config").to_owned());
        for (key, expected) in [
            ("one", Some(one)),
            ("two", Some(two)),
            (one, Some(one)),
            ("aaaaaaaaaaaa0", Some(one)),
            ("aaaaaaaaaaaa1", Some(two)),
            ("shop", Some("config")),
            ("mine", Some(one)),
            ("alone", Some(squatter)),
            ("bbbbbbbbbbbb", Some(squatter)),
            // Several are called so, or nobody.
            ("aaaaaaaaaaaa", None),
            ("web", None),
            ("bbbbbbbb", None),
            ("", None),
        ] {
            assert_eq!(found(key).as_deref(), expected, "{key}");
        }
    }
}
