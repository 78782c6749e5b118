//! One resource, followed for ever: list, watch, list again when in doubt, and after each list the
//! names of what vanished meanwhile.
//!
//! Objects are translated at the edge, so that a daemon keeps only what it uses. One that cannot be read is reported and
//! passed over: what was known of it stays, and the others are told.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use ferrolb_config::ObjectName;
use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::object::Object;

/// The first pause after a failure; doubled each time up to [`SLOWEST`].
const QUICKEST: Duration = Duration::from_millis(100);
/// The longest pause while the API server is away: it bounds how late we notice its return.
const SLOWEST: Duration = Duration::from_secs(5);
/// The longest pause after refusals by RBAC or for want of the resource: only an operator changes that.
const REFUSED: Duration = Duration::from_secs(30);
/// Watches that end as too old follow on each other if they end within this.
const STREAK: Duration = Duration::from_mins(1);
/// Refusals by RBAC in a row that make a refusal: an API server that has just started refuses everything
/// until it has read its roles. With the pauses doubled, 3.1 s.
const REFUSALS: u32 = 6;
/// The same for what there is another way than, once the API server has granted anything, so that it knows its roles: 0.3 s.
const REFUSALS_AMONG_GRANTS: u32 = 3;
/// Some list has been granted to this process.
static GRANTED: AtomicBool = AtomicBool::new(false);
/// Answers in a row that a resource is unknown, to believe it: 0.3 s. An API server that has not read its
/// definitions yet says that it is not ready (HTTP 503), not that there are none.
const UNKNOWNS: u32 = 3;

/// What happened to the followed objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// An object is new or has changed.
    Applied(ObjectName, T),
    /// An object is gone.
    Deleted(ObjectName),
    /// Everything there was at the moment of the list has been told. Told again after each list.
    Synced,
    /// The resource cannot be had, and not just for a moment. Told once per change of the reason; asking
    /// goes on, at last every 30 s.
    Unavailable(Unavailable),
}

/// Why a resource cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// RBAC does not let us list or watch it (HTTP 403 or 401).
    Forbidden,
    /// The API server does not know the resource (HTTP 404).
    Unknown,
}

/// Follows what `api` and `filter` select until the receiver of `sink` is gone. `what` names the
/// resource in logs; `K` is what is read of an object, and `translate` keeps what is used of that; `wrap` makes the
/// daemon's own input of a change, so that one channel can carry several resources in one order.
pub async fn follow<K, T, M>(
    api: Api<Object>,
    filter: watcher::Config,
    what: &'static str,
    translate: impl Fn(K) -> T,
    wrap: impl Fn(Change<T>) -> M,
    sink: mpsc::Sender<M>,
) where
    K: DeserializeOwned,
{
    follow_with(api, filter, what, translate, wrap, sink, false).await;
}

/// The same for something there is another way than: a refusal is believed within 0.3 s where the API server has granted
/// anything else.
pub async fn try_to_follow<K, T, M>(
    api: Api<Object>,
    filter: watcher::Config,
    what: &'static str,
    translate: impl Fn(K) -> T,
    wrap: impl Fn(Change<T>) -> M,
    sink: mpsc::Sender<M>,
) where
    K: DeserializeOwned,
{
    follow_with(api, filter, what, translate, wrap, sink, true).await;
}

async fn follow_with<K, T, M>(
    api: Api<Object>,
    filter: watcher::Config,
    what: &'static str,
    translate: impl Fn(K) -> T,
    wrap: impl Fn(Change<T>) -> M,
    sink: mpsc::Sender<M>,
    otherwise: bool,
) where
    K: DeserializeOwned,
{
    let mut follower = Follower {
        what,
        known: HashMap::new(),
        list: 0,
        refusals: 0,
        refused: None,
        expired: None,
        pause: QUICKEST,
        had: false,
        otherwise,
        granted: &GRANTED,
    };
    let mut stream = events(api.clone(), filter.clone());
    while let Some(event) = stream.next().await {
        let pause = match event {
            Ok(event) => {
                for change in follower.event(event, &translate) {
                    if sink.send(wrap(change)).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            Err(error) => {
                let (told, pause) = follower.failed(&error, Instant::now());
                if let Some(told) = told {
                    if sink.send(wrap(Change::Unavailable(told))).await.is_err() {
                        return;
                    }
                    // Who was told that nothing is known is to be told everything: a watch would go on where it was.
                    stream = events(api.clone(), filter.clone());
                }
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sink.closed() => return,
        }
    }
}

/// What the API server tells. Not generic, so that the program has it once.
fn events(
    api: Api<Object>,
    filter: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<Object>>> {
    watcher::watcher(api, filter).boxed()
}

struct Follower {
    what: &'static str,
    /// Names told as applied and not yet as deleted, each with the last list that had it or was over when it came.
    known: HashMap<ObjectName, u64>,
    /// The list under way, or the last one.
    list: u64,
    /// Refusals in a row.
    refusals: u32,
    /// The refusal that was told.
    refused: Option<Unavailable>,
    /// When a watch last ended as too old, and how many did so one after the other.
    expired: Option<(Instant, u32)>,
    pause: Duration,
    /// It was granted before: a refusal now comes from an API server that has just started, or from an operator who is
    /// still at work.
    had: bool,
    /// There is another way.
    otherwise: bool,
    /// Anything was granted to anybody.
    granted: &'static AtomicBool,
}

impl Follower {
    fn event<K: DeserializeOwned, T>(
        &mut self,
        event: Event<Object>,
        translate: &impl Fn(K) -> T,
    ) -> Vec<Change<T>> {
        match event {
            Event::Init => {
                self.list += 1;
                Vec::new()
            }
            Event::InitApply(object) => self.applied(&object, translate).into_iter().collect(),
            Event::InitDone => {
                self.recovered();
                self.had = true;
                self.granted.store(true, Ordering::Relaxed);
                let list = self.list;
                let vanished = self.known.extract_if(|_, had_by| *had_by != list);
                let vanished: Vec<_> = vanished.map(|(name, _)| name).collect();
                let deleted = vanished.into_iter().map(Change::Deleted);
                deleted.chain([Change::Synced]).collect()
            }
            Event::Apply(object) => {
                self.recovered();
                self.applied(&object, translate).into_iter().collect()
            }
            Event::Delete(object) => {
                self.recovered();
                let name = name_of(&object);
                self.known.remove(&name);
                vec![Change::Deleted(name)]
            }
        }
    }

    /// What to tell of an object that is there; nothing if it cannot be read.
    fn applied<K: DeserializeOwned, T>(
        &mut self,
        object: &Object,
        translate: &impl Fn(K) -> T,
    ) -> Option<Change<T>> {
        let name = name_of(object);
        let name = match self.known.get_key_value(&name) {
            // The copy that is kept in many places, for this one not to be another.
            Some((known, _)) => known.clone(),
            None => name,
        };
        self.known.insert(name.clone(), self.list);
        match object.read() {
            Ok(read) => Some(Change::Applied(name, translate(read))),
            Err(error) => {
                tracing::warn!(op = "watch", resource = self.what, object = %name, error = %error,
                    "cannot read an object, what was known of it stays");
                None
            }
        }
    }

    fn recovered(&mut self) {
        self.pause = QUICKEST;
        self.refusals = 0;
        self.refused = None;
    }

    /// What to tell of a failure, and how long to wait before asking again.
    fn failed(&mut self, error: &watcher::Error, now: Instant) -> (Option<Unavailable>, Duration) {
        let status = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => Some(status.code),
            _ => None,
        };
        let refused = match status {
            Some(401 | 403) => Unavailable::Forbidden,
            Some(404) => Unavailable::Unknown,
            // The ordinary end of an old watch: list again at once.
            Some(410) => return (None, self.expired(now)),
            _ => {
                tracing::warn!(op = "watch", resource = self.what, error = %error,
                    retry_ms = u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX),
                    "lost sight of the API server, asking again");
                self.refusals = 0;
                return (None, self.wait(SLOWEST));
            }
        };
        self.refusals = self.refusals.saturating_add(1);
        let enough = match refused {
            Unavailable::Forbidden => {
                let soon = self.otherwise && !self.had && self.granted.load(Ordering::Relaxed);
                if soon {
                    REFUSALS_AMONG_GRANTS
                } else {
                    REFUSALS
                }
            }
            Unavailable::Unknown => UNKNOWNS,
        };
        let told = (self.refusals >= enough && self.refused != Some(refused)).then_some(refused);
        self.refused = told.or(self.refused);
        (told, self.wait(REFUSED))
    }

    /// The pause before the list that follows on a watch the API server has no past for any more: none, but where one
    /// follows on the other.
    fn expired(&mut self, now: Instant) -> Duration {
        let (last, streak) = self.expired.unwrap_or((now, 0));
        let streak = if now < last + STREAK { streak } else { 0 };
        self.expired = Some((now, streak.saturating_add(1)));
        match streak {
            0 => Duration::ZERO,
            times => SLOWEST.min(QUICKEST * 2_u32.saturating_pow(times.min(16))),
        }
    }

    /// The pause to make now; the next one is twice as long.
    fn wait(&mut self, longest: Duration) -> Duration {
        let pause = self.pause.min(longest);
        self.pause = (self.pause * 2).min(longest);
        pause
    }
}

/// `namespace/name` of any object; the namespace of a cluster-wide one is empty.
pub fn name_of(object: &impl Resource) -> ObjectName {
    let meta = object.meta();
    ObjectName::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str) -> Object {
        holding(name, &json!({}))
    }

    fn holding(name: &str, data: &Value) -> Object {
        let metadata = json!({"namespace": "ns", "name": name});
        serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap()
    }

    /// Where nothing has been granted to anybody yet.
    fn follower() -> Follower {
        among(Box::leak(Box::new(AtomicBool::new(false))))
    }

    fn among(granted: &'static AtomicBool) -> Follower {
        Follower {
            what: "test",
            known: HashMap::new(),
            list: 0,
            refusals: 0,
            refused: None,
            expired: None,
            pause: QUICKEST,
            had: false,
            otherwise: true,
            granted,
        }
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    fn feed(follower: &mut Follower, events: Vec<Event<Object>>) -> Vec<Change<()>> {
        events
            .into_iter()
            .flat_map(|event| follower.event(event, &|_: ConfigMap| ()))
            .collect()
    }

    #[test]
    fn a_second_list_tells_what_vanished() {
        let mut follower = follower();
        let first = feed(
            &mut follower,
            vec![
                Event::Init,
                Event::InitApply(object("a")),
                Event::InitApply(object("b")),
                Event::InitDone,
                Event::Apply(object("c")),
            ],
        );
        assert_eq!(
            first,
            [
                Change::Applied(name("a"), ()),
                Change::Applied(name("b"), ()),
                Change::Synced,
                Change::Applied(name("c"), ()),
            ]
        );
        let second = feed(
            &mut follower,
            vec![Event::Init, Event::InitApply(object("b")), Event::InitDone],
        );
        assert_eq!(second.first(), Some(&Change::Applied(name("b"), ())));
        assert_eq!(second.last(), Some(&Change::Synced));
        assert!(second.contains(&Change::Deleted(name("a"))));
        assert!(second.contains(&Change::Deleted(name("c"))));
        assert_eq!(second.len(), 4);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_passed_over_and_not_taken_for_gone() {
        let mut follower = follower();
        let odd = || holding("odd", &json!(7));
        let events = |odd| {
            let sound = Event::InitApply(object("sound"));
            vec![Event::Init, Event::InitApply(odd), sound, Event::InitDone]
        };
        let told = feed(&mut follower, events(odd()));
        let sound = || Change::Applied(name("sound"), ());
        assert_eq!(told, [sound(), Change::Synced]);
        let told = feed(&mut follower, vec![Event::Apply(object("odd"))]);
        assert_eq!(told, [Change::Applied(name("odd"), ())]);
        assert_eq!(feed(&mut follower, vec![Event::Apply(odd())]), []);
        assert_eq!(
            feed(&mut follower, events(odd())),
            [sound(), Change::Synced]
        );
        let told = feed(&mut follower, vec![Event::Delete(odd())]);
        assert_eq!(told, [Change::Deleted(name("odd"))]);
    }

    #[test]
    fn an_interrupted_list_deletes_nothing() {
        let mut follower = follower();
        feed(
            &mut follower,
            vec![Event::Init, Event::InitApply(object("a")), Event::InitDone],
        );
        let again = feed(
            &mut follower,
            vec![
                Event::Init,
                Event::Init,
                Event::InitApply(object("a")),
                Event::InitDone,
            ],
        );
        assert_eq!(again, [Change::Applied(name("a"), ()), Change::Synced]);
    }

    #[test]
    fn a_watch_that_is_too_old_again_and_again_is_not_tried_without_a_pause() {
        let mut follower = follower();
        let expired = || {
            let status = kube::core::Status {
                code: 410,
                ..kube::core::Status::default()
            };
            watcher::Error::WatchError(Box::new(status))
        };
        let start = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            feed(&mut follower, vec![Event::Init, Event::InitDone]);
            pauses.push(follower.failed(&expired(), start).1);
        }
        assert_eq!(pauses.first(), Some(&Duration::ZERO));
        assert_eq!(pauses.get(1), Some(&(2 * QUICKEST)));
        assert_eq!(pauses.last(), Some(&SLOWEST));
        assert_eq!(
            follower.failed(&expired(), start + STREAK).1,
            Duration::ZERO
        );
    }

    fn refusal() -> watcher::Error {
        let status = kube::core::Status {
            code: 403,
            ..kube::core::Status::default()
        };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_lasting_refusal_is_told_once() {
        let mut follower = follower();
        let told: Vec<_> = (0..20)
            .map(|_| follower.failed(&refusal(), Instant::now()))
            .collect();
        let at: Vec<_> = (0..20).filter(|at| told[*at].0.is_some()).collect();
        assert_eq!(at, [5]);
        assert_eq!(told[5].0, Some(Unavailable::Forbidden));
        assert_eq!(told[0].1, QUICKEST);
        assert_eq!(told[19].1, REFUSED);
    }

    #[test]
    fn a_refusal_among_grants_is_believed_sooner() {
        static SOMETHING: AtomicBool = AtomicBool::new(true);
        let mut follower = among(&SOMETHING);
        let told: Vec<_> = (0..5)
            .map(|_| follower.failed(&refusal(), Instant::now()).0)
            .collect();
        let forbidden = Some(Unavailable::Forbidden);
        assert_eq!(told, [None, None, forbidden, None, None]);
        // What there is no other way than is not given up as easily.
        let mut needed = Follower {
            otherwise: false,
            ..among(&SOMETHING)
        };
        let told: Vec<_> = (0..6)
            .map(|_| needed.failed(&refusal(), Instant::now()).0)
            .collect();
        assert_eq!(told, [None, None, None, None, None, forbidden]);
        // Nor what was had.
        feed(&mut follower, vec![Event::Init, Event::InitDone]);
        let told: Vec<_> = (0..6)
            .map(|_| follower.failed(&refusal(), Instant::now()).0)
            .collect();
        assert_eq!(told, [None, None, None, None, None, forbidden]);
    }

    #[test]
    fn an_api_server_that_still_reads_its_roles_refuses_nothing() {
        let mut follower = follower();
        feed(&mut follower, vec![Event::Init, Event::InitDone]);
        for _ in 0..5 {
            assert_eq!(follower.failed(&refusal(), Instant::now()).0, None);
        }
        feed(&mut follower, vec![Event::Init, Event::InitDone]);
        assert_eq!(
            follower.failed(&refusal(), Instant::now()),
            (None, QUICKEST)
        );
    }
}
