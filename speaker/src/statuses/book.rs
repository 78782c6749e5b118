//! What the `ServiceL2Status` objects should say, what they say, and what is to be done about the difference, when. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use ferrolb_config::ObjectName;
use ferrolb_speaker_core::Few;

/// How long a Service's statuses are left alone after they were put right.
const REST: Duration = Duration::from_secs(1);

/// The longest pause after failures or quarrels in a row; the first is [`REST`], each following one twice as long.
///
/// A quarrel: ours had been put right, and was gone. Two speakers that both announce a Service, each on a segment of its own,
/// delete each other's, and neither can know how it is for the other. So both do it ever more rarely, and the last word
/// stands for a while; where one of them was wrong, it gives in before that.
const LONGEST: Duration = Duration::from_mins(1);

/// Remembered pauses beyond which those that are over are forgotten.
const REMEMBERED: usize = 1024;

/// An object, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The Service it is about, by its labels.
    pub service: ObjectName,
    /// The node it is about is this one.
    pub mine: bool,
    /// What its status says.
    pub content: Content,
}

/// What the status of an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing yet.
    Empty,
    /// What its labels say, with these interfaces, in this order.
    Sound(Vec<String>),
    /// Another node or Service than its labels say, which cannot be changed.
    Contradictory,
}

/// What is to be done about one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The Service.
    pub service: ObjectName,
    /// Objects to be deleted.
    pub delete: Vec<String>,
    /// What to write then.
    pub write: Option<Write>,
}

/// A status to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The object; none where one must be made first.
    pub object: Option<String>,
    /// Its `interfaces`, in order; empty for all.
    pub interfaces: Vec<String>,
}

/// Everything known of statuses. Services about which there may be something to do wait in order of time; one is looked
/// at by one at a time.
#[derive(Debug, Default)]
pub struct Book {
    /// The announced Services and the interfaces to be shown.
    wanted: HashMap<ObjectName, Vec<String>>,
    /// The wanted are all there are: whatever else says to be ours is left over from before.
    settled: bool,
    objects: HashMap<String, Shown>,
    by_service: HashMap<ObjectName, Few<String>>,
    waiting: BTreeSet<(Instant, ObjectName)>,
    due: BTreeMap<ObjectName, Instant>,
    busy: HashSet<ObjectName>,
    /// Services whose status was put right since they are announced here.
    righted: HashSet<ObjectName>,
    /// Those of them whose status is to be made anew.
    quarrels: HashSet<ObjectName>,
    /// Until when a Service is left alone, and after how many failures or quarrels in a row.
    rests: HashMap<ObjectName, (Instant, u32)>,
}

impl Book {
    /// Knows nothing and wants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The Service is announced here on these interfaces (empty for all), or is not.
    pub fn want(&mut self, service: ObjectName, interfaces: Option<Vec<String>>, now: Instant) {
        if let Some(interfaces) = interfaces {
            self.wanted.insert(service.clone(), interfaces);
        } else {
            self.wanted.remove(&service);
            self.righted.remove(&service);
        }
        self.look_at(service, now);
    }

    /// Every announced Service has been told.
    pub fn settle(&mut self, now: Instant) {
        if !self.settled {
            self.settled = true;
            let about: Vec<_> = self.by_service.keys().cloned().collect();
            for service in about {
                self.look_at(service, now);
            }
        }
    }

    /// An object is there, and says this.
    pub fn see(&mut self, object: String, mut shown: Shown, now: Instant) {
        self.lose(&object, now);
        // One text for all that know the name.
        if let Some((known, _)) = self.wanted.get_key_value(&shown.service) {
            shown.service = known.clone();
        }
        let service = shown.service.clone();
        let of_service = self.by_service.entry(service.clone()).or_default();
        of_service.insert(object.clone());
        self.objects.insert(object, shown);
        self.look_at(service, now);
    }

    /// An object is gone.
    pub fn lose(&mut self, object: &str, now: Instant) {
        let Some(shown) = self.objects.remove(object) else {
            return;
        };
        if let Some(of_service) = self.by_service.get_mut(&shown.service) {
            of_service.remove(object);
            if of_service.is_empty() {
                self.by_service.remove(&shown.service);
            }
        }
        self.look_at(shown.service, now);
    }

    /// The next thing to do now, if there is any; [`done`](Self::done) is to follow.
    pub fn next(&mut self, now: Instant) -> Option<Plan> {
        while let Some((at, service)) = self.waiting.first().cloned() {
            if at > now {
                return None;
            }
            self.waiting.pop_first();
            self.due.remove(&service);
            if let Some(plan) = self.plan(&service) {
                let anew = plan
                    .write
                    .as_ref()
                    .is_some_and(|write| write.object.is_none());
                if anew && self.righted.contains(&service) {
                    self.quarrels.insert(service.clone());
                }
                self.busy.insert(service);
                return Some(plan);
            }
        }
        None
    }

    /// When [`next`](Self::next) has something again; none while nothing waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// A plan was carried out, or failed. What it changed was told before.
    pub fn done(&mut self, service: ObjectName, success: bool, now: Instant) {
        self.busy.remove(&service);
        let quarrel = self.quarrels.remove(&service);
        if success && self.wanted.contains_key(&service) {
            self.righted.insert(service.clone());
        }
        let row = match self.rests.get(&service) {
            _ if success && !quarrel => 0,
            // What is long past is forgotten.
            Some((until, row)) if now < *until + LONGEST => row.saturating_add(1),
            _ => 1,
        };
        let factor = 1 << row.saturating_sub(1).min(6);
        let until = now + (REST * factor).min(LONGEST);
        self.rests.insert(service.clone(), (until, row));
        if self.rests.len() > REMEMBERED {
            self.rests.retain(|_, (until, _)| *until > now);
        }
        self.look_at(service, now);
    }

    fn look_at(&mut self, service: ObjectName, now: Instant) {
        // One at which somebody works is looked at again when that is done.
        if self.busy.contains(&service) || self.due.contains_key(&service) {
            return;
        }
        let rest = self.rests.get(&service).map_or(now, |(until, _)| *until);
        let at = rest.max(now);
        self.due.insert(service.clone(), at);
        self.waiting.insert((at, service));
    }

    fn plan(&self, service: &ObjectName) -> Option<Plan> {
        let names = self.by_service.get(service).into_iter().flatten();
        let shown = names.filter_map(|name| Some((name, self.objects.get(name)?)));
        let (mine, foreign): (Vec<_>, Vec<_>) = shown.partition(|(_, shown)| shown.mine);
        let Some(interfaces) = self.wanted.get(service) else {
            let mine = mine.into_iter().map(|(name, _)| name.clone());
            let delete: Vec<_> = mine.filter(|_| self.settled).collect();
            return (!delete.is_empty()).then(|| Plan {
                service: service.clone(),
                delete,
                write: None,
            });
        };
        let right = Content::Sound(interfaces.clone());
        let usable = || {
            let usable = mine.iter();
            usable.filter(|(_, shown)| shown.content != Content::Contradictory)
        };
        let kept = usable()
            .find(|(_, shown)| shown.content == right)
            .or_else(|| usable().next());
        let kept_name = kept.map(|(name, _)| (*name).clone());
        let write = kept.is_none_or(|(_, shown)| shown.content != right);
        let surplus = mine.iter().chain(&foreign).map(|(name, _)| (*name).clone());
        let plan = Plan {
            service: service.clone(),
            delete: surplus
                .filter(|name| Some(name) != kept_name.as_ref())
                .collect(),
            write: write.then(|| Write {
                object: kept_name.clone(),
                interfaces: interfaces.clone(),
            }),
        };
        (!plan.delete.is_empty() || plan.write.is_some()).then_some(plan)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn web() -> ObjectName {
        ObjectName::new("default", "web")
    }

    fn sound(mine: bool, interfaces: &[&str]) -> Shown {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        Shown {
            service: web(),
            mine,
            content: Content::Sound(interfaces),
        }
    }

    fn plan(delete: &[&str], write: Option<(Option<&str>, &[&str])>) -> Plan {
        Plan {
            service: web(),
            delete: delete.iter().map(|name| (*name).to_owned()).collect(),
            write: write.map(|(object, interfaces)| Write {
                object: object.map(str::to_owned),
                interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            }),
        }
    }

    #[test]
    fn the_announcer_writes_its_own_and_deletes_all_others() {
        let now = Instant::now();
        let mut book = Book::new();
        book.see("l2-other".to_owned(), sound(false, &[]), now);
        assert_eq!(book.next(now), None);
        book.want(web(), Some(vec!["eth1".to_owned()]), now);
        assert_eq!(
            book.next(now),
            Some(plan(&["l2-other"], Some((None, &["eth1"]))))
        );
        // While somebody works at it, nobody else does.
        book.want(web(), Some(vec!["eth2".to_owned()]), now);
        assert_eq!(book.next(now), None);
        book.lose("l2-other", now);
        book.see("l2-mine".to_owned(), sound(true, &["eth1"]), now);
        book.done(web(), true, now);
        assert_eq!(book.next(now), None);
        let later = book.next_deadline().unwrap();
        assert_eq!(later, now + REST);
        let again = plan(&[], Some((Some("l2-mine"), &["eth2"])));
        assert_eq!(book.next(later), Some(again));
        book.see("l2-mine".to_owned(), sound(true, &["eth2"]), later);
        book.done(web(), true, later);
        assert_eq!(book.next(later + REST), None);
    }

    #[test]
    fn of_several_of_our_own_the_right_one_stays() {
        let now = Instant::now();
        let mut book = Book::new();
        let mut empty = sound(true, &[]);
        empty.content = Content::Empty;
        book.see("l2-a".to_owned(), empty, now);
        book.see("l2-b".to_owned(), sound(true, &["eth1"]), now);
        let mut strange = sound(true, &[]);
        strange.content = Content::Contradictory;
        book.see("l2-c".to_owned(), strange.clone(), now);
        book.want(web(), Some(vec!["eth1".to_owned()]), now);
        assert_eq!(book.next(now), Some(plan(&["l2-a", "l2-c"], None)));
        // One that cannot be put right is replaced.
        let mut book = Book::new();
        book.see("l2-c".to_owned(), strange, now);
        book.want(web(), Some(vec![]), now);
        assert_eq!(book.next(now), Some(plan(&["l2-c"], Some((None, &[])))));
    }

    #[test]
    fn what_is_left_over_goes_once_all_announced_are_known_and_others_never() {
        let now = Instant::now();
        let mut book = Book::new();
        book.see("l2-mine".to_owned(), sound(true, &[]), now);
        book.see("l2-other".to_owned(), sound(false, &[]), now);
        assert_eq!(book.next(now), None);
        book.settle(now);
        assert_eq!(book.next(now), Some(plan(&["l2-mine"], None)));
        book.lose("l2-mine", now);
        book.done(web(), true, now);
        assert_eq!(book.next(now + REST), None);
        // A withdrawn Service is the same.
        book.see("l2-mine".to_owned(), sound(true, &[]), now + REST);
        book.want(web(), None, now + REST);
        assert_eq!(book.next(now + REST), Some(plan(&["l2-mine"], None)));
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly() {
        let mut now = Instant::now();
        let mut book = Book::new();
        book.want(web(), Some(vec![]), now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(book.next(now).is_some());
            book.done(web(), false, now);
            let next = book.next_deadline().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    /// Input: two speakers that believe themselves the announcer, each deleting the other's; then one that is no more.
    /// Output: they do it ever more rarely; who announces anew, and whose status was left in peace, is quick again.
    #[test]
    fn a_quarrel_dies_down() {
        let mut now = Instant::now();
        let mut book = Book::new();
        let round = |book: &mut Book, now: Instant| {
            let plan = book.next(now).unwrap();
            assert!(plan.write.is_some());
            book.see("l2-mine".to_owned(), sound(true, &[]), now);
            book.done(web(), true, now);
            book.lose("l2-mine", now);
            book.next_deadline().unwrap()
        };
        book.want(web(), Some(vec![]), now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let next = round(&mut book, now);
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);

        book.want(web(), None, now);
        assert_eq!(book.next(now), None);
        book.want(web(), Some(vec![]), now);
        assert_eq!(round(&mut book, now), now + REST);
        now += REST;
        assert_eq!(round(&mut book, now), now + REST);
        now += LONGEST + REST;
        assert_eq!(round(&mut book, now), now + REST);
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Want(Option<bool>),
        See(u8, bool, u8),
        Lose(u8),
        Settle,
        Work(bool),
        Wait,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => prop::option::of(any::<bool>()).prop_map(Happening::Want),
            3 => (0_u8..4, any::<bool>(), 0_u8..4).prop_map(|(o, m, c)| Happening::See(o, m, c)),
            1 => (0_u8..4).prop_map(Happening::Lose),
            1 => Just(Happening::Settle),
            4 => any::<bool>().prop_map(Happening::Work),
            2 => Just(Happening::Wait),
        ]
    }

    fn interfaces(some: bool) -> Vec<String> {
        some.then(|| "eth0".to_owned()).into_iter().collect()
    }

    proptest! {
        /// Whatever happens to the objects: when everything that was planned has been done, there is one status of ours
        /// and no other if the Service is announced, and none of ours if it is not; and then nothing is left to do.
        #[test]
        fn it_ends_with_one_right_status(happenings in prop::collection::vec(happening(), 0..40)) {
            let mut now = Instant::now();
            let mut book = Book::new();
            let mut there: BTreeMap<String, Shown> = BTreeMap::new();
            let mut wanted = None;
            let mut made = 0;
            let mut work = |book: &mut Book, there: &mut BTreeMap<String, Shown>, now: Instant, works: bool| {
                let Some(plan) = book.next(now) else {
                    return false;
                };
                if works {
                    for object in &plan.delete {
                        there.remove(object);
                        book.lose(object, now);
                    }
                    if let Some(write) = plan.write {
                        made += 1;
                        let object = write.object.unwrap_or_else(|| format!("made-{made}"));
                        let shown = Shown { service: web(), mine: true, content: Content::Sound(write.interfaces) };
                        there.insert(object.clone(), shown.clone());
                        book.see(object, shown, now);
                    }
                }
                book.done(plan.service, works, now);
                true
            };
            for happening in happenings {
                match happening {
                    Happening::Want(some) => {
                        wanted = some.map(interfaces);
                        book.want(web(), wanted.clone(), now);
                    }
                    Happening::See(object, mine, content) => {
                        let content = match content {
                            0 => Content::Empty,
                            1 => Content::Contradictory,
                            some => Content::Sound(interfaces(some == 2)),
                        };
                        let shown = Shown { service: web(), mine, content };
                        there.insert(format!("seen-{object}"), shown.clone());
                        book.see(format!("seen-{object}"), shown, now);
                    }
                    Happening::Lose(object) => {
                        there.remove(&format!("seen-{object}"));
                        book.lose(&format!("seen-{object}"), now);
                    }
                    Happening::Settle => book.settle(now),
                    Happening::Work(works) => drop(work(&mut book, &mut there, now, works)),
                    Happening::Wait => now += REST,
                }
            }
            book.settle(now);
            let mut steps = 0;
            while let Some(at) = book.next_deadline() {
                now = now.max(at);
                work(&mut book, &mut there, now, true);
                steps += 1;
                prop_assert!(steps < 20, "it does not come to rest");
            }
            let mine: Vec<_> = there.values().filter(|shown| shown.mine).collect();
            match wanted {
                Some(interfaces) => {
                    prop_assert_eq!(there.len(), 1);
                    prop_assert_eq!(&mine[0].content, &Content::Sound(interfaces));
                }
                None => prop_assert!(mine.is_empty()),
            }
        }
    }
}
