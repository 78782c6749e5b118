//! What each source says while RBAC and the API server have their moods. Time is tokio's, paused: it leaps.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

use super::fake_api::{Answer, client, list};
use super::*;

/// Longer than any pause: what has not come by then does not come.
const LONG: Duration = Duration::from_hours(1);

fn slice() -> Value {
    json!({
        "metadata": {"name": "web-x", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [],
    })
}

fn whole() -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}})
}

fn pod(node: &str) -> Value {
    json!({
        "metadata": {"name": format!("speaker-{node}"), "namespace": "metallb-system"},
        "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

async fn next(inputs: &mut Receiver<Input>) -> Option<Input> {
    timeout(LONG, inputs.recv()).await.ok().flatten()
}

/// The next input about endpoints, as a word.
async fn endpoint_word(inputs: &mut Receiver<Input>) -> String {
    match next(inputs).await {
        Some(Input::Endpoints(Change::Applied(name, _))) => name.name.clone(),
        Some(Input::Endpoints(change)) => format!("{change:?}"),
        other => format!("{other:?}"),
    }
}

/// The nodes of the next word about speakers; none if they are unknown.
async fn speaker_nodes(inputs: &mut Receiver<Input>) -> Option<Vec<String>> {
    match next(inputs).await {
        Some(Input::Speakers(pods)) => {
            pods.map(|pods| pods.into_iter().map(|pod| pod.node).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// The speaker of node a.
fn a() -> [String; 1] {
    ["a".to_owned()]
}

#[tokio::test(start_paused = true)]
async fn a_moment_without_rights_leaves_no_speaker_without_endpoints() {
    let began = Instant::now();
    // No right to Endpoints, as in our own RBAC, and none to anything while the API server reads its roles.
    let api = client(move |_, uri, _| match uri {
        uri if uri.contains("watch=") => Answer::Silence,
        uri if uri.contains("/endpointslices") && began.elapsed() > Duration::from_secs(20) => {
            list(&[slice()])
        }
        _ => Answer::No(403),
    });
    let (sink, mut inputs) = mpsc::channel(16);
    let following = tokio::spawn(endpoints(api, false, sink));
    // Told once, however often both are tried.
    assert_eq!(endpoint_word(&mut inputs).await, "Unavailable(Forbidden)");
    assert_eq!(endpoint_word(&mut inputs).await, "web-x");
    assert_eq!(endpoint_word(&mut inputs).await, "Synced");
    following.abort();
}

#[tokio::test(start_paused = true)]
async fn endpoints_serve_where_slices_are_unknown_or_unwanted() {
    for (disable_slices, slices) in [(false, 404), (true, 200)] {
        let api = client(move |_, uri, _| match uri {
            uri if uri.contains("watch=") => Answer::Silence,
            uri if uri.contains("/endpointslices") && slices == 200 => list(&[slice()]),
            uri if uri.contains("/endpointslices") => Answer::No(slices),
            _ => list(&[whole()]),
        });
        let (sink, mut inputs) = mpsc::channel(16);
        let following = tokio::spawn(endpoints(api, disable_slices, sink));
        assert_eq!(endpoint_word(&mut inputs).await, "web");
        assert_eq!(endpoint_word(&mut inputs).await, "Synced");
        following.abort();
    }
}

#[tokio::test]
async fn half_a_list_is_not_passed_on_and_a_whole_one_settles_the_choice() {
    let name = |name: &str| ObjectName::new("default", name);
    let forbidden = || Change::Unavailable(Unavailable::Forbidden);
    for whole in [false, true] {
        let (changes, seen) = mpsc::channel(16);
        let (sink, mut inputs) = mpsc::channel(16);
        changes
            .send(Change::Applied(name("x"), None))
            .await
            .unwrap();
        changes
            .send(Change::Applied(name("y"), None))
            .await
            .unwrap();
        changes.send(Change::Deleted(name("x"))).await.unwrap();
        if whole {
            changes.send(Change::Synced).await.unwrap();
        }
        changes.send(forbidden()).await.unwrap();
        drop(changes);
        let refused = pass_on_once_listed(seen, &sink).await;
        drop(sink);
        let mut told = Vec::new();
        while let Some(input) = inputs.recv().await {
            let Input::Endpoints(change) = input else {
                panic!("{input:?}");
            };
            told.push(change);
        }
        if whole {
            assert_eq!(refused, None);
            assert_eq!(
                told,
                [
                    Change::Applied(name("y"), None),
                    Change::Synced,
                    forbidden()
                ]
            );
        } else {
            assert_eq!(refused, Some(Unavailable::Forbidden));
            assert_eq!(told, []);
        }
    }
}

/// The speakers' pods from an API server with this mood, which a test may change.
fn pods_of(mood: &Arc<Mutex<Mood>>) -> Receiver<Input> {
    let mood = mood.clone();
    let api = client(move |_, uri, _| {
        assert!(uri.contains("/namespaces/metallb-system/pods?"), "{uri}");
        assert!(uri.contains("labelSelector=app%3Dmetallb"), "{uri}");
        let mut mood = mood.lock().unwrap();
        let watch = uri.contains("watch=");
        if watch {
            mood.watches += 1;
        } else if uri.contains("resourceVersion=0") {
            mood.polls.push(Instant::now());
        }
        match mood.grants {
            Grants::Nothing => Answer::No(403),
            Grants::List if watch => Answer::No(403),
            Grants::Watch if watch => Answer::Silence,
            Grants::Hanging => Answer::Silence,
            Grants::List | Grants::Watch => list(&[pod("a")]),
        }
    });
    let (sink, inputs) = mpsc::channel(16);
    let (namespace, labels) = ("metallb-system".to_owned(), "app=metallb".to_owned());
    let (peers, _) = tokio::sync::watch::channel(Vec::new());
    tokio::spawn(speakers(api, namespace, labels, peers, sink));
    inputs
}

#[derive(Clone, Copy, Debug)]
enum Grants {
    Nothing,
    List,
    Watch,
    Hanging,
}

#[derive(Debug)]
struct Mood {
    grants: Grants,
    watches: usize,
    /// Lists that may come from the API server's cache.
    polls: Vec<Instant>,
}

impl Mood {
    fn new(grants: Grants) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            grants,
            watches: 0,
            polls: Vec::new(),
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn pods_never_had_are_unknown_at_once_and_once() {
    let mood = Mood::new(Grants::Nothing);
    let mut inputs = pods_of(&mood);
    assert_eq!(speaker_nodes(&mut inputs).await, None);
    assert!(next(&mut inputs).await.is_none(), "said once in an hour");
    mood.lock().unwrap().grants = Grants::Watch;
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
}

#[tokio::test(start_paused = true)]
async fn pods_that_were_had_are_given_up_only_after_minutes() {
    let mood = Mood::new(Grants::List);
    let mut inputs = pods_of(&mood);
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
    // The watch was refused, polling goes on.
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
    mood.lock().unwrap().grants = Grants::Nothing;
    let quiet = timeout(Duration::from_secs(100), inputs.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    // An API server that hangs is no refusal: the count begins again.
    mood.lock().unwrap().grants = Grants::Hanging;
    let quiet = timeout(Duration::from_mins(1), inputs.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    mood.lock().unwrap().grants = Grants::Nothing;
    let quiet = timeout(Duration::from_secs(100), inputs.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(speaker_nodes(&mut inputs).await, None);
    mood.lock().unwrap().grants = Grants::List;
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
}

#[tokio::test(start_paused = true)]
async fn pods_that_may_only_be_listed_are_listed_every_second_and_the_watch_is_tried_again() {
    let mood = Mood::new(Grants::List);
    let mut inputs = pods_of(&mood);
    let until = Instant::now() + Duration::from_secs(250);
    while Instant::now() < until {
        assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
    }
    let (polls, watches) = {
        let mut mood = mood.lock().unwrap();
        mood.grants = Grants::Watch;
        (std::mem::take(&mut mood.polls), mood.watches)
    };
    assert!(polls.len() > 200, "{}", polls.len());
    for pair in polls.windows(2) {
        assert!(pair[1] - pair[0] <= Duration::from_secs(2), "{pair:?}");
    }
    // The watch is granted now: it is found, and polling ends.
    while timeout(Duration::from_mins(1), inputs.recv()).await.is_ok() {}
    let mood = mood.lock().unwrap();
    assert_eq!(mood.watches, watches + 1);
    assert!(mood.polls.len() < 60, "{}", mood.polls.len());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hangs_does_not_end_polling() {
    let mood = Mood::new(Grants::List);
    let mut inputs = pods_of(&mood);
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
    // Long enough for polling to end and the watch to hang.
    mood.lock().unwrap().grants = Grants::Hanging;
    let quiet = timeout(Duration::from_secs(400), inputs.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    mood.lock().unwrap().grants = Grants::List;
    assert_eq!(speaker_nodes(&mut inputs).await.unwrap(), a());
}

#[tokio::test(start_paused = true)]
async fn interfaces_are_told_once_they_have_been_listed_and_when_they_change() {
    let (tell, names) = latest::channel(None);
    let (sink, mut inputs) = mpsc::channel(4);
    tokio::spawn(interfaces(names, sink));
    assert!(next(&mut inputs).await.is_none());
    for told in [&["eth0"][..], &["eth0", "eth1"], &[]] {
        let told: Names = told.iter().map(|name| (*name).to_owned()).collect();
        tell.send(Some(told.clone())).unwrap();
        match next(&mut inputs).await {
            Some(Input::Interfaces(names)) => assert_eq!(names, told),
            other => panic!("{other:?}"),
        }
    }
}
