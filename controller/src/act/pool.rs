//! Writing the status of an `IPAddressPool`.
//!
//! A PUT of the whole object: MetalLB's manifests grant `update` on `ipaddresspools/status` and no `patch`.

use std::time::Duration;

use ferrolb_config_api::IPAddressPool;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::json;

use crate::{
    pool_status::{Seen, Write, Written},
    reconcile::Input,
};

use super::Writer;

/// The pause after a write, in which further changes gather: a thousand assignments at once then cost each pool one
/// write a second.
const GATHERING: Duration = Duration::from_secs(1);
/// The longest pause after a failed write; only an operator changes what RBAC allows.
const LONGEST: Duration = Duration::from_mins(5);

impl Writer {
    /// Starts `write`. The caller starts no other one for the same pool before this one's end is reported.
    pub fn start_pool(&self, write: Write) {
        let (client, done, slots) = (self.client.clone(), self.done.clone(), self.pools.clone());
        tokio::spawn(async move {
            let result = {
                let _slot = slots.acquire().await;
                carry_out(client, &write).await
            };
            let (written, pause) = match result {
                Ok(seen) => (Written::Done(seen), GATHERING),
                Err(error) => {
                    let pause =
                        LONGEST.min(GATHERING * 2_u32.saturating_pow(write.failures.min(16)));
                    // Said once in a row; a conflict is an operator's edit at the same moment.
                    let conflict =
                        matches!(&error, kube::Error::Api(status) if status.is_conflict());
                    if write.failures == 0 && !conflict {
                        tracing::warn!(op = "updatePoolStatus", pool = %write.name, error = %error,
                            "cannot write how full the pool is, trying again; grant update on ipaddresspools/status");
                    }
                    (Written::Failed, pause)
                }
            };
            tokio::time::sleep(pause).await;
            // The reconciler ends only with the process.
            let _ = done
                .send(Input::PoolWritten(write.name, write.id, written))
                .await;
        });
    }
}

/// The pools of a namespace, with whatever their definition in this cluster says.
fn pools(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<IPAddressPool>(&()))
}

async fn carry_out(client: Client, write: &Write) -> Result<Seen, kube::Error> {
    let api = pools(client, &write.name.namespace);
    let mut object = api.get(&write.name.name).await?;
    if let Some(object) = object.data.as_object_mut() {
        object.insert("status".to_owned(), json!(write.status));
    }
    let written = api
        .replace_status(&write.name.name, &PostParams::default(), &object)
        .await?;
    Ok(Seen::of(&written))
}
