//! What is told while sources come, go and are refused. Time is tokio's, paused: it leaps.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::http::{Request, Response};
use ferrolb_config::{Origin, Pool};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::*;

/// Longer than any pause: what has not come by then does not come.
const LONG: Duration = Duration::from_hours(1);

fn name(name: &str) -> ObjectName {
    ObjectName::new("metallb-system", name)
}

fn configmap(document: &str) -> Seen {
    let said = Said {
        words: ferrolb_config::words(document),
        uid: None,
    };
    Seen::ConfigMap(Change::Applied(name("config"), said))
}

fn object(name: &str, spec: Value) -> DynamicObject {
    let object = json!({"metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn pool(called: &str, addresses: &str) -> Seen {
    let object = object(called, json!({"addresses": [addresses]}));
    Seen::Pool(Change::Applied(
        name(called),
        said(&object, pool_words(&object)),
    ))
}

fn everyone() -> Seen {
    let object = object("all", json!({}));
    Seen::Advertisement(Change::Applied(
        name("all"),
        said(&object, advertisement_words(&object)),
    ))
}

const DOCUMENT: &str = "address-pools: [{name: old, protocol: layer2, addresses: [10.0.0.0/24]}]";

/// The news as a line: the pools with their sources, or the word.
fn news(gathered: &mut Gathered) -> Option<String> {
    Some(line(&gathered.news()?))
}

fn line(source: &Source) -> String {
    let pool = |pool: &Pool| match pool.origin() {
        Origin::ConfigMap => format!("{}({})", pool.name(), pool.advertisements().count()),
        Origin::Resource => format!("{}[{}]", pool.name(), pool.advertisements().count()),
    };
    match source {
        Source::Read(config) => {
            let pools: Vec<_> = config.pools().iter().map(pool).collect();
            format!("read {}", pools.join(" "))
        }
        Source::Refused(problems) => format!("refused {problems}"),
        other => format!("{other:?}"),
    }
}

/// Takes these in and says what is new then.
fn after(gathered: &mut Gathered, changes: impl IntoIterator<Item = Seen>) -> Option<String> {
    for change in changes {
        gathered.take(change);
    }
    news(gathered)
}

fn refused(why: Unavailable) -> [Seen; 2] {
    [
        Seen::Pool(Change::Unavailable(why)),
        Seen::Advertisement(Change::Unavailable(why)),
    ]
}

fn listed() -> [Seen; 3] {
    [
        Seen::ConfigMap(Change::Synced),
        Seen::Pool(Change::Synced),
        Seen::Advertisement(Change::Synced),
    ]
}

fn gathered() -> Gathered {
    Gathered::new(name("config"), true)
}

#[test]
fn nothing_is_told_before_every_source_has_answered() {
    let orders: [[usize; 3]; 3] = [[0, 1, 2], [2, 0, 1], [1, 2, 0]];
    for order in orders {
        let mut gathered = gathered();
        gathered.take(configmap(DOCUMENT));
        gathered.take(pool("new", "10.0.1.0/24"));
        gathered.take(everyone());
        let mut answers = listed().map(Some);
        let told: Vec<_> = order
            .iter()
            .map(|index| after(&mut gathered, answers[*index].take()))
            .collect();
        let all = Some("read old(1) new[1]".to_owned());
        assert_eq!(told, [None, None, all], "{order:?}");
    }
}

#[test]
fn a_configmap_that_was_left_behind_counts_only_where_it_is_asked_for() {
    let start = || {
        let same = [configmap(DOCUMENT), pool("new", "10.0.1.0/24")];
        same.into_iter().chain([everyone()]).chain(listed())
    };
    let told = after(&mut Gathered::new(name("config"), true), start());
    assert_eq!(told.unwrap(), "read old(1) new[1]");
    let mut gathered = Gathered::new(name("config"), false);
    assert_eq!(after(&mut gathered, start()).unwrap(), "read new[1]");
    // Not even when the definitions go, as on a reinstallation: what is in force stays.
    let told = after(&mut gathered, refused(Unavailable::Unknown));
    assert_eq!(told.unwrap(), "Absent");
    // Nor where they may not be read; where there are none it is all there is.
    for (why, expected) in [
        (Unavailable::Forbidden, "Unavailable(Forbidden)"),
        (Unavailable::Unknown, "read old(1)"),
    ] {
        let mut gathered = Gathered::new(name("config"), false);
        let start = [configmap(DOCUMENT), Seen::ConfigMap(Change::Synced)];
        assert_eq!(after(&mut gathered, start), None);
        assert_eq!(after(&mut gathered, refused(why)).unwrap(), expected);
    }
}

#[test]
fn the_loss_of_every_pool_is_noticed_before_it_is_told() {
    let mut gathered = gathered();
    assert!(!gathered.emptied());
    let start = [
        pool("a", "10.0.0.0/24"),
        pool("b", "10.0.1.0/24"),
        everyone(),
    ];
    after(&mut gathered, start.into_iter().chain(listed())).unwrap();
    assert!(!gathered.emptied());
    let gone = |of: &str| Seen::Pool(Change::Deleted(name(of)));
    gathered.take(gone("a"));
    assert!(!gathered.emptied());
    gathered.take(gone("b"));
    assert!(gathered.emptied());
    gathered.take(pool("b", "10.0.1.0/24"));
    assert!(!gathered.emptied());
}

#[test]
fn without_definitions_the_configmap_alone_counts() {
    let mut gathered = gathered();
    let start = [configmap(DOCUMENT), Seen::ConfigMap(Change::Synced)];
    assert_eq!(after(&mut gathered, start), None);
    let told = after(&mut gathered, refused(Unavailable::Unknown));
    assert_eq!(told.unwrap(), "read old(1)");
    // They are applied, and nothing is in them yet: nothing new.
    let [_, pools, advertisements] = listed();
    assert_eq!(after(&mut gathered, [pools, advertisements]), None);
    let told = after(&mut gathered, [pool("new", "10.0.1.0/24")]);
    assert_eq!(told.unwrap(), "read old(1) new[0]");
    assert_eq!(
        after(&mut gathered, [everyone()]).unwrap(),
        "read old(1) new[1]"
    );
    // They go with all that was in them.
    let told = after(&mut gathered, refused(Unavailable::Unknown));
    assert_eq!(told.unwrap(), "read old(1)");
}

#[test]
fn rights_that_are_taken_away_take_no_pool() {
    let mut gathered = gathered();
    gathered.take(pool("new", "10.0.1.0/24"));
    gathered.take(everyone());
    assert_eq!(after(&mut gathered, listed()).unwrap(), "read new[1]");
    assert_eq!(after(&mut gathered, refused(Unavailable::Forbidden)), None);
    let gone = Seen::ConfigMap(Change::Unavailable(Unavailable::Forbidden));
    assert_eq!(after(&mut gathered, [gone]), None);
}

#[test]
fn half_a_list_that_ends_in_a_refusal_counts_for_nothing() {
    let mut gathered = gathered();
    gathered.take(Seen::ConfigMap(Change::Synced));
    gathered.take(pool("new", "10.0.1.0/24"));
    let told = after(&mut gathered, refused(Unavailable::Forbidden));
    assert_eq!(told.unwrap(), "Absent");
}

#[test]
fn no_pools_and_no_configmap_is_the_empty_configuration_where_pools_could_be() {
    let mut gathered = gathered();
    assert_eq!(after(&mut gathered, listed()).unwrap(), "read ");
    assert_eq!(after(&mut gathered, [configmap("")]), None);
}

#[test]
fn nothing_to_read_is_absent_and_nothing_readable_is_unavailable() {
    for (configmap, expected) in [
        (Seen::ConfigMap(Change::Synced), "Absent"),
        (
            Seen::ConfigMap(Change::Unavailable(Unavailable::Forbidden)),
            "Unavailable(Forbidden)",
        ),
    ] {
        let mut gathered = gathered();
        gathered.take(configmap);
        let told = after(&mut gathered, refused(Unavailable::Unknown));
        assert_eq!(told.unwrap(), expected);
        // The same refusal in other words is nothing new.
        assert_eq!(after(&mut gathered, refused(Unavailable::Forbidden)), None);
    }
}

#[test]
fn a_deleted_configmap_is_told_and_its_return_too() {
    let mut gathered = gathered();
    gathered.take(configmap(DOCUMENT));
    gathered.take(Seen::ConfigMap(Change::Synced));
    let told = after(&mut gathered, refused(Unavailable::Unknown));
    assert_eq!(told.unwrap(), "read old(1)");
    let deleted = Seen::ConfigMap(Change::Deleted(name("config")));
    assert_eq!(after(&mut gathered, [deleted]).unwrap(), "Absent");
    let told = after(&mut gathered, [configmap(DOCUMENT)]);
    assert_eq!(told.unwrap(), "read old(1)");
}

#[test]
fn a_clash_between_the_sources_names_both_places() {
    let mut gathered = gathered();
    gathered.take(configmap(DOCUMENT));
    gathered.take(pool("old", "10.0.0.128/25"));
    let told = after(&mut gathered, listed()).unwrap();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    for line in lines {
        assert!(line.contains("IPAddressPool metallb-system/old"), "{line}");
        assert!(line.contains("address-pools[0]"), "{line}");
    }
    // Mending either place mends it.
    let told = after(&mut gathered, [pool("old", "10.0.9.0/24")]).unwrap();
    assert!(told.contains("duplicate definition"), "{told}");
    let deleted = Seen::Pool(Change::Deleted(name("old")));
    assert_eq!(after(&mut gathered, [deleted]).unwrap(), "read old(1)");
}

#[test]
fn what_means_the_same_is_no_news() {
    let mut gathered = gathered();
    gathered.take(pool("new", "10.0.1.0/24"));
    assert!(after(&mut gathered, listed()).is_some());
    let mut object = object("new", json!({"addresses": ["10.0.1.0/24"]}));
    object.metadata.resource_version = Some("2".to_owned());
    object.data["status"] = json!({"assignedIPv4": 1});
    let status = Change::Applied(name("new"), said(&object, pool_words(&object)));
    assert_eq!(after(&mut gathered, [Seen::Pool(status)]), None);
    // Labels are what advertisements select by.
    object.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let labels = Change::Applied(name("new"), said(&object, pool_words(&object)));
    assert!(after(&mut gathered, [Seen::Pool(labels)]).is_some());
}

#[test]
fn objects_that_do_not_fit_are_problems_of_their_own() {
    let mut gathered = gathered();
    let bad = object("bad", json!({"addresses": "10.0.0.0/24"}));
    let worse = object("worse", json!({"nodeSelectors": 7}));
    gathered.take(Seen::Pool(Change::Applied(
        name("bad"),
        said(&bad, pool_words(&bad)),
    )));
    gathered.take(Seen::Advertisement(Change::Applied(
        name("worse"),
        said(&worse, advertisement_words(&worse)),
    )));
    for change in listed() {
        gathered.take(change);
    }
    let Some(Source::Refused(problems)) = gathered.news() else {
        panic!("taken up");
    };
    let told = problems.to_string();
    assert!(told.contains("IPAddressPool metallb-system/bad: the spec cannot be read"));
    assert!(told.contains("L2Advertisement metallb-system/worse: the spec cannot be read"));
    let blamed = gathered.objects().refused(&problems).into_iter();
    let blamed: Vec<_> = blamed.map(|notice| notice.about.kind).collect();
    assert_eq!(blamed, ["L2Advertisement", "IPAddressPool"]);
}

/// What the fake API server has.
struct Cluster {
    /// The documents of the ConfigMap `config`.
    configmap: Option<&'static str>,
    /// The pools; none where there is no definition.
    pools: Option<Vec<Value>>,
}

/// What the API server says it has.
fn definitions() -> Value {
    let resource = |name: &str, kind: &str| json!({"name": name, "singularName": "", "kind": kind, "namespaced": true, "verbs": ["list", "watch"]});
    json!({
        "groupVersion": "metallb.io/v1beta1",
        "resources": [
            resource("ipaddresspools", "IPAddressPool"),
            resource("l2advertisements", "L2Advertisement"),
        ],
    })
}

/// An API server without watches: what changes is seen when a list is asked for again.
fn follow_cluster(cluster: &Arc<Mutex<Cluster>>) -> Receiver<Source> {
    let cluster = cluster.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let cluster = cluster.clone();
        async move {
            let uri = request.uri().to_string();
            if uri.contains("watch=") {
                std::future::pending::<()>().await;
            }
            let meta = |name: &str| json!({"name": name, "namespace": "metallb-system"});
            let cluster = cluster.lock().unwrap();
            let defined = uri.ends_with("/apis/metallb.io/v1beta1");
            let items: Option<Vec<Value>> = if defined {
                cluster.pools.as_ref().map(|_| Vec::new())
            } else if uri.contains("/configmaps") {
                assert!(uri.contains("/api/v1/namespaces/metallb-system/"), "{uri}");
                let text = cluster.configmap;
                let object = |text| json!({"metadata": meta("config"), "data": {"config": text}});
                Some(text.map(object).into_iter().collect())
            } else if uri.contains("/ipaddresspools") {
                assert!(uri.contains("/apis/metallb.io/v1beta1/namespaces/metallb-system/"));
                cluster.pools.clone()
            } else {
                assert!(uri.contains("/l2advertisements"), "{uri}");
                let all = json!({"metadata": meta("all")});
                cluster.pools.as_ref().map(|_| vec![all])
            };
            let (status, body) = match items {
                Some(_) if defined => (200, definitions()),
                Some(items) => (
                    200,
                    json!({"metadata": {"resourceVersion": "1"}, "items": items}),
                ),
                None => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "message": "", "reason": "NotFound", "code": 404}),
                ),
            };
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let (sink, sources) = mpsc::channel(4);
    tokio::spawn(follow(
        client,
        name("config"),
        true,
        |source, _| source,
        sink,
    ));
    sources
}

#[tokio::test(start_paused = true)]
async fn definitions_that_come_later_are_found() {
    let cluster = Arc::new(Mutex::new(Cluster {
        configmap: Some(DOCUMENT),
        pools: None,
    }));
    let began = Instant::now();
    let mut sources = follow_cluster(&cluster);
    let first = timeout(LONG, sources.recv()).await.unwrap().unwrap();
    assert_eq!(line(&first), "read old(1)");
    // An older cluster is not made to wait for what it does not have.
    assert!(began.elapsed() < Duration::from_secs(1));
    let quiet = timeout(Duration::from_mins(10), sources.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    cluster.lock().unwrap().pools = Some(vec![json!({
        "metadata": {"name": "new", "namespace": "metallb-system"},
        "spec": {"addresses": ["10.0.1.0/24"]},
    })]);
    let began = Instant::now();
    let mut told = line(&timeout(LONG, sources.recv()).await.unwrap().unwrap());
    if told != "read old(1) new[1]" {
        // The two kinds are asked for on their own.
        told = line(&timeout(LONG, sources.recv()).await.unwrap().unwrap());
    }
    assert_eq!(told, "read old(1) new[1]");
    assert!(began.elapsed() < Duration::from_mins(1));
}
