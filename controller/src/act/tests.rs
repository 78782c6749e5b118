//! What reaches the API server.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use axum::http::{Method, Request, Response, StatusCode};
use ferrolb_config_api::IPAddressPoolStatus;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::pool_status;

/// One request: what, where, and its body.
type Heard = Vec<(Method, String, Value)>;

/// An API server that lets these methods through, has this object, and returns what it is given.
fn server(allowed: &'static [Method], object: Value) -> (Client, Arc<Mutex<Heard>>) {
    let heard = Arc::new(Mutex::new(Heard::new()));
    let log = heard.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, object) = (log.clone(), object.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            log.lock().unwrap().push((
                parts.method.clone(),
                parts.uri.path().to_owned(),
                body.clone(),
            ));
            let (status, answer) = match parts.method {
                Method::GET => (StatusCode::OK, object),
                method if allowed.contains(&method) => (StatusCode::OK, written(&object, &body)),
                _ => (
                    StatusCode::FORBIDDEN,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "no", "reason": "Forbidden", "code": 403}),
                ),
            };
            let answer = serde_json::to_vec(&answer).unwrap();
            let response = Response::builder().status(status).body(Body::from(answer));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    (Client::new(service, "default"), heard)
}

/// The object after a write, as far as anyone here looks at it.
fn written(object: &Value, body: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!("8");
    object["status"] = body["status"].clone();
    object
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "default", "resourceVersion": "7",
            "annotations": {"own": "x", "metallb.io/ip-allocated-from-pool": "old"}},
        "spec": {"type": "LoadBalancer", "futureField": 1},
        "status": {"conditions": [], "loadBalancer": {}},
    })
}

fn write(ingress: &[&str], noted_pool: Option<&str>) -> Write {
    Write {
        id: 1,
        name: ObjectName::new("default", "s"),
        version: "7".to_owned(),
        ingress: ingress.iter().map(|text| text.parse().unwrap()).collect(),
        noted_pool: noted_pool.map(str::to_owned),
        due: None,
        failures: 0,
    }
}

const STATUS: &str = "/api/v1/namespaces/default/services/s/status";

#[tokio::test]
async fn one_patch_writes_addresses_and_note() {
    let (client, heard) = server(&[Method::PATCH], service());
    let put = AtomicBool::new(false);
    let write = write(&["10.0.0.1", "fc00::1"], Some("p"));
    let version = carry_out(&client, &write, None, &put).await.unwrap();
    assert_eq!(version, "8");
    let expected = json!({
        "metadata": {"resourceVersion": "7", "annotations": {"metallb.io/ip-allocated-from-pool": "p"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "fc00::1"}]}},
    });
    assert_eq!(
        *heard.lock().unwrap(),
        [(Method::PATCH, STATUS.to_owned(), expected)]
    );
}

#[tokio::test]
async fn clearing_removes_addresses_and_note() {
    let (client, heard) = server(&[Method::PATCH], service());
    let put = AtomicBool::new(false);
    carry_out(&client, &write(&[], None), None, &put)
        .await
        .unwrap();
    let expected = json!({
        "metadata": {"resourceVersion": "7", "annotations": {"metallb.io/ip-allocated-from-pool": null}},
        "status": {"loadBalancer": {"ingress": null}},
    });
    assert_eq!(heard.lock().unwrap()[0].2, expected);
}

#[tokio::test]
async fn conditions_are_written_with_the_addresses_by_patch_and_by_put() {
    for methods in [&[Method::PATCH], &[Method::PUT]] {
        let (client, heard) = server(methods, service());
        let put = AtomicBool::new(false);
        let condition = ferrolb_runtime::state::conflict_condition(true, "m".to_owned());
        let write = write(&["10.0.0.1"], None);
        carry_out(&client, &write, Some(&[condition]), &put)
            .await
            .unwrap();
        let heard = heard.lock().unwrap();
        let (_, _, body) = heard.last().unwrap();
        assert_eq!(
            body["status"]["conditions"][0]["type"],
            "ferrolb.io/AddressConflict"
        );
        assert_eq!(
            body["status"]["loadBalancer"]["ingress"][0]["ip"],
            "10.0.0.1"
        );
    }
}

/// The roles of every MetalLB release grant `update` on `services/status` only.
#[tokio::test]
async fn where_only_put_is_allowed_the_whole_object_is_put() {
    let (client, heard) = server(&[Method::PUT], service());
    let put = AtomicBool::new(false);
    carry_out(&client, &write(&["10.0.0.1"], Some("p")), None, &put)
        .await
        .unwrap();
    assert!(put.load(Ordering::Relaxed), "and so from now on");
    carry_out(&client, &write(&[], None), None, &put)
        .await
        .unwrap();
    let heard = heard.lock().unwrap();
    let methods: Vec<_> = heard.iter().map(|(method, ..)| method.as_str()).collect();
    assert_eq!(methods, ["PATCH", "GET", "PUT", "GET", "PUT"]);
    let mut expected = service();
    expected["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"] = json!("p");
    expected["status"]["loadBalancer"] = json!({"ingress": [{"ip": "10.0.0.1"}]});
    assert_eq!(heard[2].2, expected, "nothing else is lost or changed");
    assert_eq!(heard[4].2["metadata"]["annotations"], json!({"own": "x"}));
    assert_eq!(
        heard[4].2["status"],
        json!({"conditions": [], "loadBalancer": {}})
    );
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_pool_is_put() {
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "p", "namespace": "metallb-system", "resourceVersion": "7"},
        "spec": {"addresses": ["10.0.0.0/30"], "futureField": 1},
    });
    let (client, heard) = server(&[Method::PUT], pool);
    let (done, mut ends) = mpsc::channel(1);
    let status = IPAddressPoolStatus {
        assigned_ipv4: 1,
        available_ipv4: 3,
        ..IPAddressPoolStatus::default()
    };
    let name = ObjectName::new("metallb-system", "p");
    Writer::new(client, done).start_pool(pool_status::Write {
        id: 5,
        name,
        status,
        failures: 0,
    });
    let Some(Input::PoolWritten(_, 5, pool_status::Written::Done(seen))) = ends.recv().await else {
        panic!("written")
    };
    let heard = heard.lock().unwrap();
    let (method, path, body) = &heard[1];
    assert_eq!(method, Method::PUT);
    assert_eq!(
        path,
        "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/p/status"
    );
    assert_eq!(body["spec"]["futureField"], 1);
    let expected =
        json!({"assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 3, "availableIPv6": 0});
    assert_eq!(body["status"], expected);
    let object = json!({"apiVersion": "v", "kind": "k", "metadata": {"resourceVersion": "8"}, "status": expected});
    assert_eq!(
        seen,
        pool_status::Seen::of(&serde_json::from_value(object).unwrap())
    );
}

/// An API server that lets a request through for each permit of the gate; and what reached it, in order: the path, and the address
/// that is to be written.
pub(crate) fn gated(gate: &Arc<Semaphore>) -> (Client, mpsc::UnboundedReceiver<(String, Value)>) {
    let (asked, arrived) = mpsc::unbounded_channel();
    let (opened, versions) = (gate.clone(), Arc::new(AtomicU64::new(1000)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (gate, asked, versions) = (opened.clone(), asked.clone(), versions.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let address = body["status"]["loadBalancer"]["ingress"][0]["ip"].clone();
            asked.send((parts.uri.path().to_owned(), address)).unwrap();
            gate.acquire().await.unwrap().forget();
            let version = versions.fetch_add(1, Ordering::Relaxed).to_string();
            let answer = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"resourceVersion": version}});
            let answer = Response::new(Body::from(serde_json::to_vec(&answer).unwrap()));
            Ok::<_, Infallible>(answer)
        }
    });
    (Client::new(service, "default"), arrived)
}

/// Everything that arrived so far.
pub(crate) fn arrivals(
    arrived: &mut mpsc::UnboundedReceiver<(String, Value)>,
) -> Vec<(String, Value)> {
    std::iter::from_fn(|| arrived.try_recv().ok()).collect()
}

/// The numbers of the next so many writes that stand.
async fn ended(ends: &mut mpsc::Receiver<Input>, count: u64) -> Vec<u64> {
    let mut ended = Vec::new();
    for _ in 0..count {
        let Some(Input::Written(_, id, Written::Done { .. })) = ends.recv().await else {
            panic!("written")
        };
        ended.push(id);
    }
    ended
}

fn numbered(id: u64, address: &str) -> Write {
    Write {
        id,
        name: ObjectName::new("default", format!("s{id}")),
        ..write(&[address], None)
    }
}

pub(crate) fn asked_for(number: u64, address: &str) -> (String, Value) {
    (
        format!("/api/v1/namespaces/default/services/s{number}/status"),
        json!(address),
    )
}

/// Input: a thousand writes at once, to an API server that lets none of them through at first.
/// Output: only so many reach it as there are slots; each that ends lets the next through, in their order, and all are
/// reported.
#[tokio::test(start_paused = true)]
async fn of_many_writes_a_few_are_under_way_and_the_others_keep_their_order() {
    const ALL: u64 = 1000;
    let gate = Arc::new(Semaphore::new(0));
    let (client, mut arrived) = gated(&gate);
    let (done, mut ends) = mpsc::channel(1);
    let writer = Writer::new(client, done);
    for id in 0..ALL {
        writer.start(numbered(id, "10.0.0.1"));
    }
    // Time stands still until nothing else can be done.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut order = arrivals(&mut arrived);
    assert_eq!(order.len(), CONCURRENT);
    gate.add_permits(usize::try_from(ALL).unwrap());
    ended(&mut ends, ALL).await;
    order.extend(arrivals(&mut arrived));
    let expected = (0..ALL).map(|id| asked_for(id, "10.0.0.1"));
    assert!(order.iter().eq(expected.collect::<Vec<_>>().iter()));
}

/// Input: writes that wait; one that is under way, one that waits and one of a Service that is gone are taken back, and the
/// second is replaced.
/// Output: the first goes on; the second reaches the API server as it was replaced, when it would have; the third never does.
#[tokio::test(start_paused = true)]
async fn a_write_that_waits_is_replaced_where_it_stands() {
    const ALL: u64 = CONCURRENT as u64 + 4;
    let [begun, replaced, gone] = [3, ALL - 3, ALL - 2];
    let gate = Arc::new(Semaphore::new(0));
    let (client, mut arrived) = gated(&gate);
    let (done, mut ends) = mpsc::channel(1);
    let writer = Writer::new(client, done);
    for id in 0..ALL {
        writer.start(numbered(id, "10.0.0.1"));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let name = |number| ObjectName::new("default", format!("s{number}"));
    assert!(!writer.withdraw(&name(begun), begun));
    assert!(!writer.withdraw(&name(replaced), begun));
    assert!(writer.withdraw(&name(replaced), replaced));
    assert!(!writer.withdraw(&name(replaced), replaced));
    assert!(writer.withdraw(&name(gone), gone));
    writer.start(Write {
        id: ALL,
        name: name(replaced),
        ..numbered(replaced, "10.0.0.2")
    });
    gate.add_permits(usize::try_from(ALL).unwrap());
    let reported = ended(&mut ends, ALL - 1).await;
    assert!(!reported.contains(&replaced) && reported.contains(&ALL));
    let expected = (0..ALL).filter(|id| *id != gone).map(|id| {
        let address = if id == replaced {
            "10.0.0.2"
        } else {
            "10.0.0.1"
        };
        asked_for(id, address)
    });
    assert_eq!(arrivals(&mut arrived), expected.collect::<Vec<_>>());
}

/// Input: the statuses of a hundred pools to an API server that lets none through, then a Service's.
/// Output: some pools' wait there; the Service's is there with them.
#[tokio::test(start_paused = true)]
async fn pools_do_not_stand_in_line_with_services() {
    let gate = Arc::new(Semaphore::new(0));
    let (client, mut arrived) = gated(&gate);
    let (done, _ends) = mpsc::channel(1);
    let writer = Writer::new(client, done);
    for id in 0..100 {
        writer.start_pool(pool_status::Write {
            id,
            name: ObjectName::new("metallb-system", format!("p{id}")),
            status: IPAddressPoolStatus::default(),
            failures: 0,
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(arrivals(&mut arrived).len(), POOLS);
    writer.start(numbered(0, "10.0.0.1"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(arrivals(&mut arrived), [asked_for(0, "10.0.0.1")]);
}
