//! What each source has answered so far, and what that makes together.

use std::collections::BTreeMap;

use ferrolb_config::{ObjectName, Words, check};

use super::{Objects, Seen, Source};
use crate::watch::{Change, Unavailable};

/// What one object says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// Its words.
    pub words: Words,
    /// Its uid, for events about it.
    pub uid: Option<String>,
}

/// Everything known of the three sources.
pub(super) struct Gathered {
    configmap: Kind,
    pools: Kind,
    advertisements: Kind,
    name: ObjectName,
    /// The ConfigMap counts beside custom resources, too.
    beside: bool,
    /// That it does not was said.
    said_ignored: bool,
    /// The ConfigMap's uid, kept when it is gone: what is in force may still be its document.
    uid: Option<String>,
    told: Option<Told>,
}

/// What was told last: the same again is no news.
#[derive(PartialEq)]
enum Told {
    Words(Words),
    Absent,
    Unavailable(Unavailable),
}

/// One source.
struct Kind {
    resource: &'static str,
    answer: Answer,
    /// It was listed at least once since it last was unknown to the API server.
    had: bool,
    /// It was listed at least once.
    ever: bool,
    objects: BTreeMap<ObjectName, Said>,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Pending,
    Listed,
    Refused(Unavailable),
}

impl Gathered {
    /// Nothing is known yet. `name` is the ConfigMap's; `beside`: it counts where custom resources can be read, too.
    pub fn new(name: ObjectName, beside: bool) -> Self {
        Self {
            configmap: Kind::new("configmaps"),
            pools: Kind::new("ipaddresspools"),
            advertisements: Kind::new("l2advertisements"),
            name,
            beside,
            said_ignored: false,
            uid: None,
            told: None,
        }
    }

    /// Takes in one change.
    pub fn take(&mut self, seen: Seen) {
        match seen {
            Seen::ConfigMap(change) => {
                if let Change::Applied(_, said) = &change {
                    self.uid.clone_from(&said.uid);
                }
                self.configmap.take(change);
            }
            Seen::Pool(change) => self.pools.take(change),
            Seen::Advertisement(change) => self.advertisements.take(change),
        }
    }

    /// What the sources say together, if that is new and all have answered.
    pub fn news(&mut self) -> Option<Source> {
        let kinds = [&self.configmap, &self.pools, &self.advertisements];
        if kinds.iter().any(|kind| kind.answer == Answer::Pending) {
            return None;
        }
        // Custom resources that were there, or are only forbidden, are what the cluster is configured by: a ConfigMap
        // somebody left behind years ago must not step in for them.
        let without = self.pools.answer == Answer::Refused(Unavailable::Unknown);
        let heeded = self.beside || (without && !self.pools.ever);
        let now = if (heeded && !self.configmap.objects.is_empty()) || self.pools.had {
            let mut words = Words::default();
            let kinds = kinds.iter().skip(usize::from(!heeded));
            for said in kinds.flat_map(|kind| kind.objects.values()) {
                words.append(said.words.clone());
            }
            Told::Words(words)
        } else if self.relevant(heeded).answer == Answer::Refused(Unavailable::Forbidden) {
            Told::Unavailable(Unavailable::Forbidden)
        } else {
            Told::Absent
        };
        if !heeded && !self.configmap.objects.is_empty() && !self.said_ignored {
            self.said_ignored = true;
            tracing::warn!(
                op = "watch",
                configmap = %self.name,
                "the ConfigMap is not heeded: there are custom resources, and --config was not given, which is how \
                 MetalLB has been started since it stopped reading ConfigMaps; give --config to use both"
            );
        }
        if self.told.as_ref() == Some(&now) {
            return None;
        }
        let source = match &now {
            Told::Words(words) => check(words.clone()).map_or_else(Source::Refused, Source::Read),
            Told::Absent => Source::Absent,
            Told::Unavailable(why) => Source::Unavailable(*why),
        };
        self.told = Some(now);
        Some(source)
    }

    /// The source without which there is no configuration.
    fn relevant(&self, heeded: bool) -> &Kind {
        if heeded { &self.configmap } else { &self.pools }
    }

    /// Pools were told last, and now there is none: somebody removed them, or replaces them one after the other.
    pub fn emptied(&self) -> bool {
        let pools = |words: &Words| !words.pools.is_empty();
        let before = matches!(&self.told, Some(Told::Words(words)) if pools(words));
        let kinds = [&self.configmap, &self.pools];
        let mut objects = kinds.iter().flat_map(|kind| kind.objects.values());
        before && !objects.any(|said| pools(&said.words))
    }

    /// The objects the sources consist of.
    pub fn objects(&self) -> Objects {
        let mut objects = Objects::new(self.name.clone());
        objects.set_uid(self.uid.clone());
        for (kind, of) in [
            ("IPAddressPool", &self.pools),
            ("L2Advertisement", &self.advertisements),
        ] {
            for (name, said) in &of.objects {
                objects.add(kind, name, said.uid.clone());
            }
        }
        objects
    }
}

impl Kind {
    fn new(resource: &'static str) -> Self {
        Self {
            resource,
            answer: Answer::Pending,
            had: false,
            ever: false,
            objects: BTreeMap::new(),
        }
    }

    fn take(&mut self, change: Change<Said>) {
        match change {
            Change::Applied(name, said) => drop(self.objects.insert(name, said)),
            Change::Deleted(name) => drop(self.objects.remove(&name)),
            Change::Synced => {
                if matches!(self.answer, Answer::Refused(_)) {
                    tracing::info!(
                        op = "watch",
                        resource = self.resource,
                        "can be read now, and counts as configuration"
                    );
                }
                self.answer = Answer::Listed;
                self.had = true;
                self.ever = true;
            }
            Change::Unavailable(why) => {
                self.refused(why);
                self.answer = Answer::Refused(why);
            }
        }
    }

    fn refused(&mut self, why: Unavailable) {
        match why {
            Unavailable::Unknown => {
                // With the definition all objects of it are gone.
                self.objects.clear();
                self.had = false;
                tracing::info!(
                    op = "watch",
                    resource = self.resource,
                    "the API server does not know this resource; asking again now and then"
                );
            }
            Unavailable::Forbidden => {
                if !self.had {
                    // Half a list is no answer.
                    self.objects.clear();
                }
                tracing::warn!(
                    op = "watch",
                    resource = self.resource,
                    kept = self.objects.len(),
                    "not allowed to read this part of the configuration; grant get, list and watch on it in this \
                     namespace"
                );
            }
        }
    }
}
