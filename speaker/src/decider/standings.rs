//! What the arbiters are told: who may answer for which address in what order, who else there is, and what the operator
//! wants moved.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ferrolb_config::ObjectName;
use ferrolb_speaker_arbiter::{Candidates, NodeId, PeerFacts, Wish};
use ferrolb_speaker_core::{Peer, Service, View, ranking};

use crate::act::Names;
use crate::arbitration::{Standing, Word, Words};

/// What they were told last.
pub(super) struct Standings {
    node: String,
    words: Words,
    /// None before the first word, which is told in any case: the arbiters wait for it.
    told: Option<HashMap<IpAddr, Standing>>,
    /// The addresses each Service had when it was last looked at.
    addresses: HashMap<ObjectName, Vec<IpAddr>>,
    peers: Vec<Peer>,
    /// At which of the view's changes the peers were looked at.
    looked_at: Option<u64>,
    names: Names,
    /// What frames call the nodes: a digest, not worked out for every address anew.
    ids: HashMap<String, NodeId>,
    /// The wishes of the operator that were heeded, by the Service they stand on.
    wishes: HashMap<ObjectName, String>,
}

impl Standings {
    pub(super) fn new(node: String, words: Words) -> Self {
        Self {
            node,
            words,
            told: None,
            addresses: HashMap::new(),
            peers: Vec::new(),
            looked_at: None,
            names: Names::default(),
            ids: HashMap::new(),
            wishes: HashMap::new(),
        }
    }

    /// Nodes by what frames call them.
    pub(super) const fn names(&self) -> &Names {
        &self.names
    }

    /// Tells who there is, if that has changed.
    pub(super) fn tell_peers(&mut self, view: &View) {
        // Most of what happens is no change of theirs, and a thousand are not looked at for nothing.
        let changes = view.changes_of_nodes();
        if self.looked_at.replace(changes) == Some(changes) {
            return;
        }
        let peers = view.peers();
        if peers == self.peers {
            return;
        }
        let nodes = |peers: &[Peer]| -> Vec<String> {
            peers.iter().map(|peer| peer.node.clone()).collect()
        };
        if nodes(&peers) != nodes(&self.peers) {
            self.names = Names::of(peers.iter().map(|peer| peer.node.as_str()));
            let ids = peers.iter();
            let ids = ids.map(|peer| (peer.node.clone(), NodeId::of(&peer.node)));
            self.ids = ids.collect();
        }
        let others = peers.iter().filter(|peer| peer.node != self.node);
        let facts = others.map(|peer| PeerFacts {
            node: NodeId::of(&peer.node),
            address: peer.address,
            believed: Some(peer.live),
            legacy: peer.legacy,
        });
        self.words.tell(Word::Peers(facts.collect()));
        self.peers = peers;
    }

    /// Tells who may answer for the addresses these Services have and had, where that has changed.
    /// The arbiters start at the first word, so it waits until it `may` be said.
    pub(super) fn tell_standings(&mut self, view: &View, services: &[ObjectName], may: bool) {
        let mut touched = BTreeSet::new();
        for name in services {
            let now: Vec<IpAddr> = view
                .service(name)
                .filter(|service| service.load_balancer)
                .map(|service| service.addresses().collect())
                .unwrap_or_default();
            touched.extend(&now);
            let before = if now.is_empty() {
                self.addresses.remove(name)
            } else {
                self.addresses.insert(name.clone(), now)
            };
            touched.extend(before.into_iter().flatten());
        }
        if self.told.is_none() && !may {
            return;
        }
        let first = self.told.is_none();
        let told = self.told.get_or_insert_default();
        let mut news = Vec::new();
        let ids = &self.ids;
        let id = |node: &&str| ids.get(*node).copied();
        for address in touched {
            let now = ranking(view, &self.node, address).map(|ranking| Standing {
                candidates: Candidates {
                    order: ranking.order.iter().filter_map(id).collect(),
                    willing: ranking.willing,
                },
                reach: ranking.reach,
            });
            if told.get(&address) == now.as_ref() {
                continue;
            }
            match &now {
                Some(standing) => told.insert(address, standing.clone()),
                None => told.remove(&address),
            };
            news.push((address, now));
        }
        if first || !news.is_empty() {
            self.words.tell(Word::Standings(news));
        }
    }

    /// Heeds the wish on a Service (`ferrolb.io/move`) once, when it appears, changes or goes: the name of the node its
    /// addresses are to be at, or anything else to have them moved to the best of the others. What stood there before this
    /// speaker started is past, but for the order of nodes, in which one that is named comes first.
    pub(super) fn wish(
        &mut self,
        name: &ObjectName,
        service: &Service,
        wish: Option<String>,
        past: bool,
    ) {
        if self.wishes.get(name) == wish.as_ref() {
            return;
        }
        let heeded = wish.as_deref().map(|wish| {
            let named = self.peers.iter().find(|peer| peer.node == wish);
            named.map_or(Wish::Away, |peer| Wish::To(NodeId::of(&peer.node)))
        });
        match wish {
            Some(wish) => self.wishes.insert(name.clone(), wish),
            None => self.wishes.remove(name),
        };
        if !past {
            for address in service.addresses() {
                self.words.tell(Word::Wish(address, heeded));
            }
        }
    }

    /// Forgets a Service that is gone, with its wish: another may go on to have its addresses.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        if self.wishes.remove(name).is_some() {
            for address in self.addresses.get(name).into_iter().flatten() {
                self.words.tell(Word::Wish(*address, None));
            }
        }
    }
}
