//! Random histories of objects, and who announces what after each change, told a second time without any index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{AdvertisementWords, Labels, ObjectName};
use ferrolb_speaker_core::{
    Endpoints, Members, Node, Reason, Service, Standing, Touched, TrafficPolicy, Verdict, View,
    decide, first, standing,
};
use proptest::prelude::*;

use super::advertisements::{advertisement, labels, resources, selector};
use super::{NODES, config, endpoint, load_balancer, name, pod, view};

const SERVICES: usize = 4;
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What an advertisement says: the rack of its nodes, the app of its Services, the rack it prefers and how much.
#[derive(Clone, Debug)]
struct Spoken {
    rack: Option<bool>,
    app: Option<bool>,
    prefers: Option<(bool, u8)>,
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, told by another object"
)]
#[derive(Clone, Debug)]
struct NodeFacts {
    ready: bool,
    cut: bool,
    cordoned: bool,
    rack: bool,
    excluded: bool,
}

#[derive(Clone, Debug)]
struct ServiceFacts {
    ingress: Vec<u8>,
    local: bool,
    app: bool,
}

/// Node, ready, serving.
type End = (usize, bool, bool);

#[derive(Clone, Debug)]
enum Edit {
    Service(usize, ServiceFacts),
    DeleteService(usize),
    Slice(usize, usize, Vec<End>),
    DeleteSlice(usize),
    Node(usize, NodeFacts),
    DeleteNode(usize),
    Speakers(Option<Vec<bool>>),
    /// Which speakers are MetalLB's.
    Legacy(Vec<bool>),
    Advertise(Vec<Spoken>),
    ConfigMap,
}

fn edit() -> impl Strategy<Value = Edit> {
    let service = (
        prop::collection::vec(0_u8..4, 0..3),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(ingress, local, app)| ServiceFacts {
            ingress,
            local,
            app,
        });
    let ends = prop::collection::vec((0_usize..3, any::<bool>(), any::<bool>()), 0..4);
    let node = (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(ready, cut, cordoned, rack, excluded)| NodeFacts {
            ready,
            cut,
            cordoned,
            rack,
            excluded,
        });
    let prefers = prop::option::of((any::<bool>(), 1_u8..4));
    let spoken = (
        prop::option::of(any::<bool>()),
        prop::option::of(any::<bool>()),
        prefers,
    )
        .prop_map(|(rack, app, prefers)| Spoken { rack, app, prefers });
    prop_oneof![
        4 => (0..SERVICES, service).prop_map(|(index, facts)| Edit::Service(index, facts)),
        1 => (0..SERVICES).prop_map(Edit::DeleteService),
        4 => (0_usize..6, 0..SERVICES, ends)
            .prop_map(|(slice, service, ends)| Edit::Slice(slice, service, ends)),
        1 => (0_usize..6).prop_map(Edit::DeleteSlice),
        3 => (0_usize..3, node).prop_map(|(index, facts)| Edit::Node(index, facts)),
        1 => (0_usize..3).prop_map(Edit::DeleteNode),
        1 => prop::option::of(prop::collection::vec(any::<bool>(), 3)).prop_map(Edit::Speakers),
        1 => prop::collection::vec(prop::bool::weighted(0.2), 3).prop_map(Edit::Legacy),
        2 => prop::collection::vec(spoken, 0..4).prop_map(Edit::Advertise),
        1 => Just(Edit::ConfigMap),
    ]
}

fn service_name(index: usize) -> ObjectName {
    name(&format!("service-{index}"))
}

fn bit(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

fn words(index: usize, spoken: &Spoken) -> AdvertisementWords {
    let racks = spoken.rack.iter().map(|rack| selector("rack", bit(*rack)));
    let apps = spoken.app.iter().map(|app| selector("app", bit(*app)));
    let prefers = spoken.prefers.iter();
    AdvertisementWords {
        node_selectors: racks.collect(),
        service_selectors: apps.collect(),
        preferred: prefers
            .map(|(rack, weight)| ((*weight).into(), selector("rack", bit(*rack))))
            .collect(),
        ..advertisement(&format!("{index}"))
    }
}

fn make(view: &mut View, edit: &Edit) -> Touched {
    let slice = |index: usize| name(&format!("slice-{index}"));
    match edit {
        Edit::Service(index, facts) => {
            let policy = if facts.local {
                TrafficPolicy::Local
            } else {
                TrafficPolicy::Cluster
            };
            let texts: Vec<String> = facts.ingress.iter().map(|last| address(*last)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let service = Service {
                labels: labels(&[("app", bit(facts.app))]),
                ..load_balancer(&texts, policy)
            };
            view.apply_service(service_name(*index), service)
        }
        Edit::DeleteService(index) => view.delete_service(&service_name(*index)),
        Edit::Slice(index, of, ends) => {
            let ends = ends
                .iter()
                .map(|(node, ready, serving)| endpoint(NODES[*node], *ready, *serving));
            let ends = ends.collect::<Endpoints>();
            view.apply_endpoints(slice(*index), service_name(*of), ends)
        }
        Edit::DeleteSlice(index) => view.delete_endpoints(&slice(*index)),
        Edit::Node(index, facts) => {
            let mut own = vec![("rack", bit(facts.rack))];
            own.extend(facts.excluded.then_some((EXCLUDE, "")));
            let node = Node {
                ready: facts.ready,
                network_unavailable: facts.cut,
                unschedulable: facts.cordoned,
                labels: labels(&own),
                ..Node::default()
            };
            view.apply_node(NODES[*index].to_owned(), node)
        }
        Edit::DeleteNode(index) => view.delete_node(NODES[*index]),
        Edit::Speakers(ready) => view.set_speakers(ready.as_ref().map(|ready| {
            NODES
                .iter()
                .zip(ready)
                .map(|(node, ready)| pod(node, *ready))
                .collect()
        })),
        Edit::Legacy(legacy) => {
            let all = NODES.iter().zip(legacy);
            let legacy = all.filter(|(_, legacy)| **legacy);
            view.set_members(Members {
                metallb: legacy.map(|(node, _)| (*node).to_owned()).collect(),
                ..Members::default()
            })
        }
        Edit::Advertise(spoken) => {
            let each = spoken.iter().enumerate();
            view.set_config(resources(
                each.map(|(index, one)| words(index, one)).collect(),
            ))
        }
        Edit::ConfigMap => view.set_config(config("10.0.0.0/24", "layer2")),
    }
}

fn address(last: u8) -> String {
    format!("10.0.0.{last}")
}

/// All facts, as they were told.
#[derive(Debug)]
struct Model {
    services: BTreeMap<usize, ServiceFacts>,
    slices: BTreeMap<usize, (usize, Vec<End>)>,
    nodes: BTreeMap<usize, NodeFacts>,
    speakers: Option<Vec<bool>>,
    legacy: Vec<bool>,
    /// None for the ConfigMap.
    advertisements: Option<Vec<Spoken>>,
}

impl Model {
    /// What [`view`] begins with.
    fn new() -> Self {
        let node = NodeFacts {
            ready: true,
            cut: false,
            cordoned: false,
            rack: false,
            excluded: false,
        };
        Self {
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            nodes: (0..3).map(|index| (index, node.clone())).collect(),
            speakers: Some(vec![true; 3]),
            legacy: vec![false; 3],
            advertisements: None,
        }
    }

    fn take(&mut self, edit: &Edit) {
        match edit.clone() {
            Edit::Service(index, facts) => drop(self.services.insert(index, facts)),
            Edit::DeleteService(index) => drop(self.services.remove(&index)),
            Edit::Slice(index, of, ends) => drop(self.slices.insert(index, (of, ends))),
            Edit::DeleteSlice(index) => drop(self.slices.remove(&index)),
            Edit::Node(index, facts) => drop(self.nodes.insert(index, facts)),
            Edit::DeleteNode(index) => drop(self.nodes.remove(&index)),
            Edit::Speakers(ready) => self.speakers = ready,
            Edit::Legacy(legacy) => self.legacy = legacy,
            Edit::Advertise(spoken) => self.advertisements = Some(spoken),
            Edit::ConfigMap => self.advertisements = None,
        }
    }

    /// The advertisements that speak of a Service, on a node if one is given.
    fn spoken(&self, service: &ServiceFacts, node: Option<&NodeFacts>) -> Vec<Spoken> {
        let all = Spoken {
            rack: None,
            app: None,
            prefers: None,
        };
        let mut spoken = self.advertisements.clone().unwrap_or_else(|| vec![all]);
        spoken.retain(|one| one.app.is_none_or(|app| app == service.app));
        if let Some(node) = node {
            spoken.retain(|one| one.rack.is_none_or(|rack| rack == node.rack));
        }
        spoken
    }

    fn eligible(&self, node: usize, index: usize) -> bool {
        let (Some(facts), Some(service)) = (self.nodes.get(&node), self.services.get(&index))
        else {
            return false;
        };
        let excludes =
            self.advertisements.is_some() && !self.nodes.values().all(|node| node.excluded);
        let ends = self.slices.values().filter(|(of, _)| *of == index);
        let ends: Vec<End> = ends.flat_map(|(_, ends)| ends.clone()).collect();
        let ready = ends.iter().any(|(_, ready, _)| *ready);
        let mut usable = ends
            .iter()
            .filter(|(_, is_ready, serving)| *is_ready || !ready && *serving);
        let kept_out = excludes && facts.excluded;
        let selected = !self.spoken(service, Some(facts)).is_empty();
        !facts.cut
            && !kept_out
            && selected
            && usable.any(|(at, _, _)| !service.local || *at == node)
    }

    fn willing(&self, node: usize) -> bool {
        let has_speaker = |node: &usize| {
            let speakers = self.speakers.as_ref();
            self.nodes.contains_key(node) && speakers.is_some_and(|ready| ready[*node])
        };
        let silent = (0..3).any(|node| has_speaker(&node)) && !has_speaker(&node);
        let facts = &self.nodes[&node];
        self.legacy.contains(&true) || facts.ready && !facts.cordoned && !silent
    }

    /// Who may answer for an address, best first, and how many are willing: always takes the best of those left.
    fn order(&self, address_of: u8) -> (Vec<&'static str>, usize) {
        let sharers: Vec<usize> = self
            .services
            .iter()
            .filter(|(_, service)| service.ingress.contains(&address_of))
            .filter(|(_, service)| !self.spoken(service, None).is_empty())
            .map(|(index, _)| *index)
            .collect();
        let heads = sharers.iter().map(|index| self.services[index].ingress[0]);
        let Some(key) = heads.map(address).min() else {
            return (Vec::new(), 0);
        };
        let rank = |node: usize| {
            let served = sharers.iter().filter(|index| self.eligible(node, **index));
            let served: Vec<&usize> = served.collect();
            let weights = served.iter().flat_map(|index| {
                let facts = &self.nodes[&node];
                let spoken = self.spoken(&self.services[*index], Some(facts)).into_iter();
                spoken.filter_map(|one| {
                    let (rack, weight) = one.prefers?;
                    (rack == facts.rack).then_some(u64::from(weight))
                })
            });
            (served.len(), weights.sum::<u64>())
        };
        let mut left: Vec<usize> = (0..3).filter(|node| rank(*node).0 > 0).collect();
        let willing = left.iter().filter(|node| self.willing(**node)).count();
        let mut order = Vec::new();
        while let Some(best) = left
            .iter()
            .map(|node| (self.willing(*node), rank(*node)))
            .max()
        {
            let equal = left
                .iter()
                .filter(|node| (self.willing(**node), rank(**node)) == best);
            let next = first(equal.map(|node| NODES[*node]), &key).unwrap();
            left.retain(|node| NODES[*node] != next);
            order.push(next);
        }
        (order, willing)
    }

    /// The addresses a node may announce for a Service.
    fn allowed(&self, node: usize, index: usize) -> Option<Vec<IpAddr>> {
        let facts = self.services.get(&index)?;
        let addresses = facts.ingress.iter();
        let addresses = addresses.map(|last| address(*last).parse().unwrap());
        (!facts.ingress.is_empty() && self.eligible(node, index)).then(|| addresses.collect())
    }
}

/// What each node may announce; why it may not may change without notice.
fn verdicts(view: &View) -> BTreeMap<(usize, usize), Option<Vec<IpAddr>>> {
    let pairs = (0..3).flat_map(|node| (0..SERVICES).map(move |service| (node, service)));
    pairs
        .map(|(node, service)| {
            let may = match decide(view, NODES[node], &service_name(service)) {
                Verdict::May(announcement) => Some(announcement.addresses),
                Verdict::Silent(_) => None,
            };
            ((node, service), may)
        })
        .collect()
}

/// What each node thinks of each address.
fn standings(view: &View) -> BTreeMap<(usize, u8), Option<Standing>> {
    let pairs = (0..3).flat_map(|node| (0..4).map(move |last| (node, last)));
    pairs
        .map(|(node, last)| {
            let standing = standing(view, NODES[node], address(last).parse().unwrap());
            ((node, last), standing)
        })
        .collect()
}

/// The Services that have an address.
fn sharers(view: &View, last: u8) -> BTreeSet<usize> {
    let has = |index: &usize| {
        let service = view.service(&service_name(*index));
        let address: IpAddr = address(last).parse().unwrap();
        service.is_some_and(|service| service.addresses().any(|one| one == address))
    };
    (0..SERVICES).filter(has).collect()
}

/// The initial labels of the nodes, which [`view`] leaves without.
fn label_nodes(view: &mut View) {
    for (node, last) in NODES.into_iter().zip(1..) {
        let node_facts = Node {
            labels: Labels::from([("rack".to_owned(), "0".to_owned())]),
            ..super::ready_node(last)
        };
        view.apply_node(node.to_owned(), node_facts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: every node comes to what the model says, and a verdict or an order changes only for Services the
    /// change named.
    #[test]
    fn every_node_agrees_with_the_naive_model(edits in prop::collection::vec(edit(), 1..60)) {
        let (mut view, mut model) = (view(), Model::new());
        label_nodes(&mut view);
        make(&mut view, &Edit::ConfigMap);
        let (mut may_before, mut before) = (verdicts(&view), standings(&view));
        for edit in edits {
            let had: Vec<BTreeSet<usize>> = (0..4).map(|last| sharers(&view, last)).collect();
            let touched = make(&mut view, &edit);
            let named = |service: usize| match &touched {
                Touched::All => true,
                Touched::Some(services) => services.contains(&service_name(service)),
            };
            model.take(&edit);
            let (may, after) = (verdicts(&view), standings(&view));
            for ((node, service), verdict) in &may {
                let same = may_before.get(&(*node, *service)) == Some(verdict);
                prop_assert!(named(*service) || same, "{edit:?} changed {service} on {node} and did not say so");
                let expected = model.allowed(*node, *service);
                prop_assert_eq!(verdict, &expected, "{} on {}, {:?}", service, node, model);
            }
            for ((node, last), standing) in &after {
                let same = before.get(&(*node, *last)) == Some(standing);
                let mut concerned = had[usize::from(*last)].union(&sharers(&view, *last)).copied().collect::<Vec<_>>();
                concerned.retain(|service| named(*service));
                prop_assert!(same || !concerned.is_empty(), "{edit:?} changed {last} for {node} and did not say so");
                let (order, willing) = model.order(*last);
                let found = standing.as_ref().map_or((Vec::new(), 0), |standing| {
                    (standing.order.iter().map(String::as_str).collect(), standing.willing)
                });
                prop_assert_eq!(&found, &(order, willing), "{} for {}, {:?}", last, node, model);
                // Who is in the order may answer, and nobody else.
                let reach = standing.as_ref().is_some_and(|standing| standing.reach.is_some());
                prop_assert_eq!(reach, found.0.contains(&NODES[*node]));
            }
            for (node, service) in may.keys() {
                let name = service_name(*service);
                if let Verdict::Silent(Reason::NotEligible { owner, .. }) = decide(&view, NODES[*node], &name) {
                    let ip = view.service(&name).unwrap().addresses().next().unwrap();
                    let standing = standing(&view, NODES[*node], ip).unwrap();
                    prop_assert_eq!(Some(&owner), standing.order.first());
                }
            }
            (may_before, before) = (may, after);
        }
    }
}
