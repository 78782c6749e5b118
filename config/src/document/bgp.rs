//! The parts of the dialect that speak of BGP.

use super::{Form, Node, Walk};
use crate::words::{
    BfdProfileWords, BgpAdvertisementWords, BgpWords, PeerWords, SelectorWords, Word,
};

/// Keys of `address-pools[].bgp-advertisements[]`.
pub(super) const ADVERTISEMENT: &[(&str, Form)] = &[
    ("aggregation-length", Form::Scalar),
    ("aggregation-length-v6", Form::Scalar),
    ("localpref", Form::Scalar),
    ("communities", Form::List(&Form::Scalar)),
];

/// Keys of `peers[]`.
pub(super) const PEER: &[(&str, Form)] = &[
    ("my-asn", Form::Scalar),
    ("peer-asn", Form::Scalar),
    ("peer-address", Form::Scalar),
    ("peer-port", Form::Scalar),
    ("source-address", Form::Scalar),
    ("hold-time", Form::Scalar),
    ("keepalive-time", Form::Scalar),
    ("router-id", Form::Scalar),
    ("node-selectors", Form::List(&Form::Section(NODE_SELECTOR))),
    ("password", Form::Scalar),
    ("bfd-profile", Form::Scalar),
    ("ebgp-multihop", Form::Bool),
];

/// Keys of `peers[].node-selectors[]`.
const NODE_SELECTOR: &[(&str, Form)] = &[
    ("match-labels", Form::Table),
    ("match-expressions", Form::List(&Form::Section(EXPRESSION))),
];

/// Keys of `peers[].node-selectors[].match-expressions[]`.
const EXPRESSION: &[(&str, Form)] = &[
    ("key", Form::Scalar),
    ("operator", Form::Scalar),
    ("values", Form::List(&Form::Scalar)),
];

/// Keys of `bfd-profiles[]`.
pub(super) const BFD_PROFILE: &[(&str, Form)] = &[
    ("name", Form::Scalar),
    ("receive-interval", Form::Scalar),
    ("transmit-interval", Form::Scalar),
    ("detect-multiplier", Form::Scalar),
    ("echo-interval", Form::Scalar),
    ("echo-mode", Form::Bool),
    ("passive-mode", Form::Bool),
    ("minimum-ttl", Form::Scalar),
];

/// These functions are used after [`Walk::expect`] has reported what does not fit, by a walk whose problems are thrown
/// away.
impl Walk<'_> {
    /// A walk over the same document that reports nothing.
    pub(super) fn quiet(&self) -> Self {
        Walk {
            document: self.document,
            problems: Vec::new(),
        }
    }

    /// One of the sections at the top that are not `address-pools`.
    pub(super) fn bgp(&mut self, key: &str, node: &Node, words: &mut BgpWords) {
        match key {
            "peers" => words.peers = self.each(node, key, Self::peer),
            "bfd-profiles" => words.profiles = self.each(node, key, Self::profile),
            "bgp-communities" => {
                for (name, path, value) in self.table(node, key) {
                    let value = self.text(value, &path);
                    words.communities.push((name, path, value));
                }
            }
            _ => {}
        }
    }

    /// `bgp-advertisements` of a pool.
    pub(super) fn advertisements(
        &mut self,
        node: &Node,
        place: &str,
    ) -> Vec<BgpAdvertisementWords> {
        self.each(node, place, |walk, node, place| {
            let mut words = BgpAdvertisementWords::default();
            for (key, path, value) in walk.section(node, &place, ADVERTISEMENT) {
                match key {
                    "aggregation-length" => words.aggregation_length = walk.text(value, &path),
                    "aggregation-length-v6" => {
                        words.aggregation_length_v6 = walk.text(value, &path);
                    }
                    "localpref" => words.local_pref = walk.text(value, &path),
                    "communities" => words.communities = walk.texts(value, &path),
                    _ => {}
                }
            }
            words.place = place;
            words
        })
    }

    fn peer(&mut self, node: &Node, place: String) -> PeerWords {
        let mut words = PeerWords::default();
        for (key, path, value) in self.section(node, &place, PEER) {
            match key {
                "my-asn" => words.my_asn = self.text(value, &path),
                "peer-asn" => words.peer_asn = self.text(value, &path),
                "peer-address" => words.peer_address = self.text(value, &path),
                "peer-port" => words.peer_port = self.text(value, &path),
                "source-address" => words.source_address = self.text(value, &path),
                "hold-time" => words.hold_time = self.text(value, &path),
                "keepalive-time" => words.keepalive_time = self.text(value, &path),
                "router-id" => words.router_id = self.text(value, &path),
                "node-selectors" => {
                    words.node_selectors = self.each(value, &path, Self::node_selector);
                }
                "password" => words.password = self.text(value, &path),
                "bfd-profile" => words.bfd_profile = self.text(value, &path),
                "ebgp-multihop" => words.ebgp_multihop = self.boolean(value, &path),
                _ => {}
            }
        }
        words.place = place;
        words
    }

    fn node_selector(&mut self, node: &Node, place: String) -> SelectorWords {
        let mut words = SelectorWords::default();
        for (key, path, value) in self.section(node, &place, NODE_SELECTOR) {
            if key == "match-labels" {
                for (name, path, value) in self.table(value, &path) {
                    words.labels.insert(name, said(self.text(value, &path)));
                }
            } else {
                words.expressions = self.each(value, &path, |walk, node, place| {
                    let mut expression = (String::new(), String::new(), Vec::new());
                    for (key, path, value) in walk.section(node, &place, EXPRESSION) {
                        match key {
                            "key" => expression.0 = said(walk.text(value, &path)),
                            "operator" => expression.1 = said(walk.text(value, &path)),
                            _ => {
                                let values = walk.texts(value, &path).into_iter();
                                expression.2 = values.map(said).collect();
                            }
                        }
                    }
                    expression
                });
            }
        }
        words
    }

    fn profile(&mut self, node: &Node, place: String) -> BfdProfileWords {
        let mut words = BfdProfileWords::default();
        for (key, path, value) in self.section(node, &place, BFD_PROFILE) {
            match key {
                "name" => words.name = self.text(value, &path),
                "receive-interval" => words.receive_interval = self.text(value, &path),
                "transmit-interval" => words.transmit_interval = self.text(value, &path),
                "detect-multiplier" => words.detect_multiplier = self.text(value, &path),
                "echo-interval" => words.echo_interval = self.text(value, &path),
                "minimum-ttl" => words.minimum_ttl = self.text(value, &path),
                "echo-mode" => words.echo_mode = self.boolean(value, &path),
                "passive-mode" => words.passive_mode = self.boolean(value, &path),
                _ => {}
            }
        }
        words.place = place;
        words
    }

    /// The mappings of a list; what is none is left out, because its problem is noted.
    fn each<T>(
        &mut self,
        node: &Node,
        place: &str,
        read: impl Fn(&mut Self, &Node, String) -> T,
    ) -> Vec<T> {
        let items = self.list(node, place).unwrap_or_default();
        let items = items.iter().enumerate().filter(|(_, item)| item.is_map());
        items
            .map(|(index, item)| read(self, item, format!("{place}[{index}]")))
            .collect()
    }

    /// The texts of a list.
    fn texts(&mut self, node: &Node, place: &str) -> Vec<Word<String>> {
        let items = self.list(node, place).unwrap_or_default();
        items.iter().map(|item| self.text(item, place)).collect()
    }

    /// The entries of a mapping with free keys: key, path, value.
    fn table<'n>(&mut self, node: &'n Node, place: &str) -> Vec<(String, String, &'n Node)> {
        self.keyed(node.entries(), place)
    }
}

/// The text, or none.
fn said(word: Word<String>) -> String {
    match word {
        Word::Said(text) => text,
        Word::Absent | Word::Unreadable => String::new(),
    }
}
