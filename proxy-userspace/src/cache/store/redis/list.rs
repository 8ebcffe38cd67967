//! What the server has, for operators. It is looked through in steps, and for a while: nothing waits for it but the operator.

use redis::cmd;

use super::commands::{SCAN_COUNT, Server, Trouble, escaped, off_thread};
use super::value::decode;
use crate::cache::key::Key;
use crate::cache::purge::Purge;
use crate::cache::store::Stored;

/// How many steps are taken, each of some thousand keys.
const MOST_STEPS: usize = 1000;

impl Server {
    /// Up to `most` of what is wanted.
    pub(super) async fn list(&self, most: usize, wanted: &Purge) -> Result<Vec<(Key, Stored)>, Trouble> {
        let mut connection = self.connection.clone();
        let limit = super::LIST_PATIENCE;
        let pattern = [&escaped(&self.shared.config.prefix)[..], b"*"].concat();
        let (mut cursor, mut found) = (0_u64, Vec::new());
        for _ in 0..MOST_STEPS {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, names): (u64, Vec<Vec<u8>>) =
                self.within(limit, scan.query_async(&mut connection)).await?;
            for name in self.unwanted(wanted, names).await? {
                let Some(key) = self.shared.key(&name) else { continue };
                let mut values = cmd("HVALS");
                values.arg(&name);
                let values: Vec<Vec<u8>> = match self.within(limit, values.query_async(&mut connection)).await
                {
                    Ok(values) => values,
                    // It is nothing of ours.
                    Err(Trouble::Refused(_)) => continue,
                    Err(gone) => return Err(gone),
                };
                found.extend(self.described(key, values).await);
                if found.len() >= most {
                    found.truncate(most);
                    return Ok(found);
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(found)
    }

    async fn described(&self, key: Key, values: Vec<Vec<u8>>) -> Vec<(Key, Stored)> {
        let most = self.shared.config.max_object;
        let described = off_thread(move || {
            let entries = values.iter().filter_map(|value| decode(value, &key, most));
            let described = entries.map(|entry| {
                let bytes = entry.body.len();
                (key.clone(), Stored { stored: entry.stored, bytes })
            });
            described.collect()
        });
        described.await.unwrap_or_default()
    }
}
