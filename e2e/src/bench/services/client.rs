//! Many Services at once: a client of the API server with several requests under way, in the namespace of the control
//! plane.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{Lab, observe::prober::now};

/// The host the client is on: the API server is reachable from there.
const HOST: &str = "cp";
/// Where the Services are.
const NAMESPACE: &str = "default";
/// What all of them are labelled with.
const LABEL: &str = "ferrolb.io/bench=services";
/// The label by which Kubernetes gives a Service, and its EndpointSlices, to another proxy than kube-proxy
/// (`service.kubernetes.io/service-proxy-name`): to none here. What a proxy on each node writes for thousands of Services
/// takes more of one machine's processors than the whole of what is measured. No load balancer heeds it.
const PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Requests under way at once when objects are made: the API server's own limit is reached with fewer.
const AT_ONCE: usize = 32;
/// An API server that is busy is asked again so often.
const ATTEMPTS: u32 = 8;
/// How long it is left alone then.
const PAUSE: Duration = Duration::from_millis(250);

/// A connection to the lab's API server with every right.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
    nodes: Vec<String>,
}

/// When a Service was first seen with an address, as time since the epoch, and which.
pub type Addressed = HashMap<String, (Duration, Ipv4Addr)>;

/// What a watch of all the bench's Services has shown so far. The watch ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Addressed>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// The Services that have an address.
    pub fn addressed(&self) -> Addressed {
        lock(&self.seen).clone()
    }

    /// How many have one.
    pub fn count(&self) -> usize {
        lock(&self.seen).len()
    }

    /// When a Service was first seen with an address.
    pub fn of(&self, name: &str) -> Option<(Duration, Ipv4Addr)> {
        lock(&self.seen).get(name).copied()
    }
}

fn lock(seen: &Mutex<Addressed>) -> MutexGuard<'_, Addressed> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a Service by its number.
pub fn name(number: usize) -> String {
    format!("many-{number:05}")
}

impl Cluster {
    /// Connects to the lab's API server.
    ///
    /// # Errors
    /// The kubeconfig is unusable.
    pub fn connect(lab: &Lab) -> Result<Self> {
        let path = lab.kubeconfig();
        // Threads belong to the network namespace they were started in, and so do the sockets they open.
        let runtime = lab.within(HOST, || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .context("cannot start a runtime")
        })?;
        let client = run(&runtime, async move {
            let config = Kubeconfig::read_from(&path)?;
            let config =
                Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            Ok(Client::try_from(config)?)
        })?;
        Ok(Self {
            runtime,
            client,
            nodes: lab.nodes(),
        })
    }

    /// Makes an endpoint on one of the nodes for each of these Services, which need not be there yet: who announces
    /// waits for endpoints, and the cluster's own controller makes 20 a second.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn make_endpoints(&self, numbers: Range<usize>) -> Result<()> {
        let nodes = self.nodes.clone();
        self.make::<EndpointSlice>(numbers, move |number| {
            let node = nodes.get(number % nodes.len().max(1)).cloned();
            json!({
                "metadata": {"name": name(number), "labels": {
                    "kubernetes.io/service-name": name(number),
                    "endpointslice.kubernetes.io/managed-by": "bench",
                    "ferrolb.io/bench": "services",
                    PROXY: "none",
                }},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.244.1.200"], "nodeName": node,
                    "conditions": {"ready": true, "serving": true}}],
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            })
        })
    }

    /// Makes these Services; `wanted`: an address each is to ask for.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn make_services(&self, numbers: Range<usize>, wanted: Option<Ipv4Addr>) -> Result<()> {
        self.make::<Service>(numbers, move |number| service(number, wanted))
    }

    fn make<K>(
        &self,
        numbers: Range<usize>,
        object: impl Fn(usize) -> Value + Send + Sync + 'static,
    ) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), NAMESPACE);
        self.run(async move {
            let (api, object) = (&api, &object);
            stream::iter(numbers)
                .map(|number| async move {
                    let object: K = serde_json::from_value(object(number))?;
                    patiently(|| async { api.create(&PostParams::default(), &object).await }).await
                })
                .buffer_unordered(AT_ONCE)
                .try_for_each(|_| async { Ok(()) })
                .await
        })
    }

    /// Deletes every Service and endpoint of the bench, and waits until they are gone.
    ///
    /// # Errors
    /// The API server refuses.
    pub fn clear(&self) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), NAMESPACE);
        self.run(async move {
            delete_all(&services).await?;
            delete_all(&slices).await
        })
    }

    /// Deletes these Services and their endpoints, those that are there, and waits until they are gone.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn clear_some(&self, numbers: Range<usize>) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), NAMESPACE);
        self.run(async move {
            for number in numbers {
                let name = name(number);
                delete(&services, &name).await?;
                delete(&slices, &name).await?;
            }
            Ok(())
        })
    }

    /// Follows the bench's Services from now on.
    pub fn watch(&self) -> Watch {
        let services: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let seen = Arc::new(Mutex::new(Addressed::new()));
        let known = seen.clone();
        let task = self.runtime.spawn(async move {
            let events = watcher::watcher(services, watcher::Config::default().labels(LABEL));
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(service) | Event::InitApply(service)) => {
                        note(&known, &service);
                    }
                    Ok(Event::Delete(service)) => {
                        lock(&known).remove(&service.metadata.name.unwrap_or_default());
                    }
                    Ok(Event::Init | Event::InitDone) => {}
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        Watch { seen, task }
    }

    /// Takes from these Services what those who served them wrote: their addresses, and the pool's name.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn take_statuses(&self, numbers: Range<usize>) -> Result<()> {
        self.write_statuses(numbers, AT_ONCE, None).map(drop)
    }

    /// Writes a status into each of these Services, which nobody else serves, with so many requests under way: the bare
    /// loop that shows what the API server can do. Returns how long it took.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn write_statuses(
        &self,
        numbers: Range<usize>,
        at_once: usize,
        ip: Option<Ipv4Addr>,
    ) -> Result<Duration> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), NAMESPACE);
        let begun = Instant::now();
        self.run(async move {
            let api = &api;
            stream::iter(numbers)
                .map(|number| async move {
                    let ingress = ip.map(|ip| json!([{"ip": ip.to_string()}]));
                    let patch = json!({
                        "metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": null}},
                        "status": {"loadBalancer": {"ingress": ingress}, "conditions": null},
                    });
                    let (name, patch) = (name(number), Patch::Merge(patch));
                    let how = PatchParams::default();
                    patiently(|| async { api.patch_status(&name, &how, &patch).await }).await
                })
                .buffer_unordered(at_once)
                .try_for_each(|_| async { Ok(()) })
                .await
        })?;
        Ok(begun.elapsed())
    }

    /// How many requests of each verb and resource the API server has answered since it started, by its own metrics.
    ///
    /// # Errors
    /// It does not tell.
    pub fn requests(&self) -> Result<HashMap<String, f64>> {
        let client = self.client.clone();
        let text = self.run(async move {
            let request = http::Request::get("/metrics").body(Vec::new())?;
            Ok(client.request_text(request).await?)
        })?;
        let mut requests = HashMap::new();
        for line in text.lines() {
            let Some(labels) = line.strip_prefix("apiserver_request_total{") else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            let (Some(verb), Some(resource), Some((_, count))) =
                (label("verb"), label("resource"), line.rsplit_once(' '))
            else {
                continue;
            };
            let sub = label("subresource").unwrap_or_default();
            let code = label("code").unwrap_or_default();
            let key = format!("{verb} {resource}/{sub} {code}");
            *requests.entry(key).or_default() += count.parse::<f64>().unwrap_or_default();
        }
        Ok(requests)
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        run(&self.runtime, work)
    }
}

/// Runs on the runtime's own thread, which is the one in the namespace.
fn run<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let task = runtime.spawn(work);
    runtime
        .block_on(task)
        .map_err(|fault| anyhow!("the client stopped: {fault}"))?
}

/// A Service without a selector: its endpoint is made apart.
fn service(number: usize, wanted: Option<Ipv4Addr>) -> Value {
    let annotations = wanted.map(|ip| json!({"metallb.io/loadBalancerIPs": ip.to_string()}));
    json!({
        "metadata": {"name": name(number), "labels": {"ferrolb.io/bench": "services", PROXY: "none"}, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            // There are but 2768 of them.
            "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    })
}

fn note(seen: &Mutex<Addressed>, service: &Service) {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let first = balancer.and_then(|balancer| balancer.ingress.as_ref()?.first());
    let address = first.and_then(|first| first.ip.as_ref()?.parse().ok());
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut seen = lock(seen);
    match address {
        Some(address) => {
            seen.entry(name).or_insert_with(|| (now(), address));
        }
        None => {
            seen.remove(&name);
        }
    }
}

async fn delete_all<K>(api: &Api<K>) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let these = ListParams::default().labels(LABEL);
    // It may give up after a minute with some of them left.
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let deleted = api
            .delete_collection(&DeleteParams::default(), &these)
            .await;
        let left = api.list_metadata(&these.clone().limit(1)).await?;
        match deleted {
            _ if left.items.is_empty() => return Ok(()),
            Err(error) => said = error.to_string(),
            Ok(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("the bench's objects do not go: {said}")
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let how = DeleteParams::default();
    let there = patiently(|| async { api.get_metadata_opt(name).await }).await?;
    if there.is_some() {
        patiently(|| async { api.delete(name, &how).await }).await?;
    }
    Ok(())
}

/// Tries again where the API server is only busy.
async fn patiently<T, F>(request: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    for _ in 1..ATTEMPTS {
        match request().await {
            Err(kube::Error::Api(status)) if status.code == 429 || status.code >= 500 => {
                tokio::time::sleep(PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
    Ok(request().await?)
}
