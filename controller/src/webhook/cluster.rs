//! The objects a decision looks at, read from the API server when it is asked for: nothing here depends on what the
//! allocator has taken up.

use std::collections::BTreeMap;

use ferrolb_config_api::{BGPAdvertisement, BGPPeer, Community, IPAddressPool};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde::de::DeserializeOwned;

use super::admission::{Needs, Objects, with_spec};

/// Where the objects are.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// The objects of `namespace`.
    pub fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// What is there now.
    ///
    /// # Errors
    /// The API server did not give a list. A kind it does not know has no objects; nodes we may not see are taken for
    /// unknown.
    pub async fn objects(&self, needs: Needs) -> Result<Objects, kube::Error> {
        let (pools, bgp_advertisements, communities, peers, nodes) = tokio::try_join!(
            self.list::<IPAddressPool>(needs.pools),
            self.list::<BGPAdvertisement>(needs.bgp_advertisements),
            self.list::<Community>(needs.communities),
            self.list::<BGPPeer>(needs.peers),
            self.nodes(needs.nodes),
        )?;
        Ok(Objects {
            pools,
            bgp_advertisements: readable(bgp_advertisements),
            communities: readable(communities),
            peers: readable(peers),
            nodes,
        })
    }

    async fn list<K: Resource<DynamicType = ()>>(
        &self,
        needed: bool,
    ) -> Result<Vec<DynamicObject>, kube::Error> {
        if !needed {
            return Ok(Vec::new());
        }
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        match api.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
            listed => listed.map(|list| list.items),
        }
    }

    async fn nodes(&self, needed: bool) -> Result<Vec<BTreeMap<String, String>>, kube::Error> {
        if !needed {
            return Ok(Vec::new());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        match api.list_metadata(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Vec::new()),
            listed => Ok(listed?
                .items
                .into_iter()
                .map(|node| node.metadata.labels.unwrap_or_default())
                .collect()),
        }
    }
}

/// Objects that were stored before their schema was as it is may not be readable: nothing is compared with those.
fn readable<K>(objects: Vec<DynamicObject>) -> Vec<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    objects
        .into_iter()
        .map(|object| DynamicObject {
            data: with_spec(object.data),
            ..object
        })
        .filter_map(|object| object.try_parse().ok())
        .collect()
}
