//! A cluster of Services around a core: writes what plans say, and checks what every plan must keep to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_config::{
    AllocationWords, Config, Labels, ObjectName, Origin, PoolWords, Refused, SelectorWords, Word,
    Words, check, read,
};
use ferrolb_controller_core::{Core, FamilyPolicy, Plan, Port, Request, Transport};

/// The name `default/NAME`.
pub fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

pub fn tcp(ports: &[u16]) -> BTreeSet<Port> {
    ports
        .iter()
        .map(|number| Port {
            transport: Transport::Tcp,
            number: *number,
        })
        .collect()
}

/// An IPv4 Service of type `LoadBalancer` with port TCP/80 that asks for nothing.
pub fn plain() -> Request {
    Request {
        balancer: true,
        labels: Labels::new(),
        current: Vec::new(),
        surplus: false,
        noted_pool: None,
        deprecated: BTreeSet::new(),
        cluster_ips: vec!["10.96.0.1".into()],
        policy: FamilyPolicy::SingleStack,
        desired: Ok(Vec::new()),
        pool: None,
        sharing: None,
        backend: String::new(),
        ports: tcp(&[80]),
    }
}

pub fn v6() -> Request {
    Request {
        cluster_ips: vec!["fd00::1".into()],
        ..plain()
    }
}

pub fn dual(policy: FamilyPolicy) -> Request {
    Request {
        cluster_ips: vec!["10.96.0.1".into(), "fd00::1".into()],
        policy,
        ..plain()
    }
}

pub fn asking(addresses: &[&str]) -> Request {
    Request {
        desired: Ok(ips(addresses)),
        ..plain()
    }
}

pub fn from_pool(pool: &str) -> Request {
    Request {
        pool: Some(pool.into()),
        ..plain()
    }
}

pub fn sharing(key: &str, ports: &[u16]) -> Request {
    Request {
        sharing: Some(key.into()),
        ports: tcp(ports),
        ..plain()
    }
}

/// A configuration of layer-2 pools: name, addresses, further keys.
pub fn pools(pools: &[(&str, &str, &str)]) -> String {
    let lines = pools.iter().map(|(name, addresses, more)| {
        let protocol = if more.contains("protocol") {
            ""
        } else {
            "protocol: layer2, "
        };
        format!("- {{name: {name}, {protocol}addresses: [{addresses}], {more}}}\n")
    });
    std::iter::once("address-pools:\n".to_string())
        .chain(lines)
        .collect()
}

/// A pool that is a custom resource.
pub fn resource(name: &str, addresses: &[&str]) -> PoolWords {
    let addresses = addresses.iter().map(|text| Word::Said((*text).into()));
    PoolWords {
        place: format!("IPAddressPool metallb-system/{name}"),
        origin: Origin::Resource,
        name: Word::Said(name.into()),
        addresses: Word::Said(addresses.collect()),
        ..PoolWords::default()
    }
}

/// Such a pool that is there for certain Services.
pub fn pinned(name: &str, addresses: &[&str], allocation: AllocationWords) -> PoolWords {
    PoolWords {
        allocation: Some(allocation),
        ..resource(name, addresses)
    }
}

/// With this priority, for everybody.
pub fn priority(priority: i64) -> AllocationWords {
    AllocationWords {
        priority,
        ..AllocationWords::default()
    }
}

/// Labels, or a selector's `matchLabels`.
pub fn labels<T: FromIterator<(String, String)>>(pairs: &[(&str, &str)]) -> T {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    pairs.collect()
}

/// Selectors of which each asks for one label.
pub fn selectors(pairs: &[(&str, &str)]) -> Vec<SelectorWords> {
    let selectors = pairs.iter().map(|pair| SelectorWords {
        labels: labels(&[*pair]),
        ..SelectorWords::default()
    });
    selectors.collect()
}

/// A configuration of custom resources.
pub fn resources(pools: Vec<PoolWords>) -> Config {
    let words = Words {
        pools,
        ..Words::default()
    };
    check(words).unwrap()
}

/// A configuration of both kinds.
pub fn merged(document: &str, pools: Vec<PoolWords>) -> Config {
    let mut words = ferrolb_config::words(document);
    words.pools.extend(pools);
    check(words).unwrap()
}

/// The Services' requests with their status, and the core that decides them.
pub struct World {
    pub core: Core,
    pub status: BTreeMap<ObjectName, Vec<String>>,
    /// The annotation that names the pool, where it is there.
    pub noted: BTreeMap<ObjectName, String>,
}

impl World {
    /// A core with this configuration that has seen every Service.
    pub fn new(document: &str) -> Self {
        let mut world = Self::restarted(document, &[]);
        world.core.all_seen();
        world
    }

    /// A core with this configuration that has not seen the Services yet.
    pub fn restarted(document: &str, status: &[(&str, &[&str])]) -> Self {
        let mut world = Self {
            core: Core::new(),
            status: BTreeMap::new(),
            noted: BTreeMap::new(),
        };
        for (service, addresses) in status {
            world.show(service, addresses);
        }
        world.configure(document).unwrap();
        world
    }

    /// A core with this configuration that has seen every Service.
    pub fn of(config: Config) -> Self {
        let mut world = Self {
            core: Core::new(),
            status: BTreeMap::new(),
            noted: BTreeMap::new(),
        };
        world.core.configure(config).unwrap();
        world.core.all_seen();
        world
    }

    pub fn configure(&mut self, document: &str) -> Result<(), Refused> {
        self.core.configure(read(document).unwrap())
    }

    /// Overwrites the status of a Service.
    pub fn show(&mut self, service: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.status.insert(name(service), addresses);
    }

    /// Decides a Service with the status it has, writes the status, and decides again as after every write. A further
    /// decision must change nothing. `revisit` is what either said.
    pub fn apply(&mut self, service: &str, request: &Request) -> Plan {
        self.apply_named(&name(service), request)
    }

    /// The same in any namespace.
    pub fn apply_named(&mut self, service: &ObjectName, request: &Request) -> Plan {
        let mut plan = self.decide_named(service, request);
        let written = plan.ingress.is_some();
        // A write leaves nothing else in the status.
        let request = &Request {
            surplus: request.surplus && !written,
            ..request.clone()
        };
        if let Some(ingress) = &plan.ingress {
            let texts = ingress.iter().map(ToString::to_string).collect();
            self.write(service, texts, plan.noted_pool.clone());
        }
        let silent = Plan {
            ingress: None,
            notices: Vec::new(),
            revisit: false,
            ..plan.clone()
        };
        if written {
            let after = self.decide_once(service, request);
            plan.revisit |= after.revisit;
            let revisit = false;
            assert_eq!(Plan { revisit, ..after }, silent, "nothing but written");
        }
        let again = self.decide_once(service, request);
        assert_eq!(again, silent, "deciding again changes nothing");
        plan
    }

    /// Decides a Service with the status it has, and again as if the write of its status were under way: that must
    /// change and tell nothing.
    pub fn decide(&mut self, service: &str, request: &Request) -> Plan {
        self.decide_named(&name(service), request)
    }

    /// The same in any namespace.
    pub fn decide_named(&mut self, service: &ObjectName, request: &Request) -> Plan {
        let plan = self.decide_once(service, request);
        let again = self.decide_once(service, request);
        let silent = Plan {
            notices: Vec::new(),
            revisit: false,
            ..plan.clone()
        };
        assert_eq!(again, silent, "said and changed once");
        plan
    }

    /// Writes what a plan says.
    pub fn write(&mut self, service: &ObjectName, status: Vec<String>, noted: Option<String>) {
        self.status.insert(service.clone(), status);
        match noted {
            Some(noted) => self.noted.insert(service.clone(), noted),
            None => self.noted.remove(service),
        };
    }

    fn decide_once(&mut self, service: &ObjectName, request: &Request) -> Plan {
        let status = self.status.get(service).cloned().unwrap_or_default();
        let current = status
            .iter()
            .map(|text| text.parse().map_err(|_| text.clone()))
            .collect();
        self.core.decide(
            service,
            Some(&Request {
                current,
                noted_pool: self.noted.get(service).cloned(),
                ..request.clone()
            }),
        )
    }

    pub fn delete(&mut self, service: &str) -> Plan {
        self.delete_named(&name(service))
    }

    /// The same in any namespace.
    pub fn delete_named(&mut self, service: &ObjectName) -> Plan {
        self.status.remove(service);
        self.noted.remove(service);
        self.core.decide(service, None)
    }

    /// The addresses in the status of a Service, separated by spaces.
    pub fn shown(&self, service: &str) -> String {
        self.status
            .get(&name(service))
            .map(|addresses| addresses.join(" "))
            .unwrap_or_default()
    }

    /// Decides and gives the address.
    pub fn give(&mut self, service: &str, request: &Request) -> String {
        self.apply(service, request);
        self.shown(service)
    }
}

/// The Events of a plan as `Level Reason: message`.
pub fn told(plan: &Plan) -> Vec<String> {
    let lines = plan
        .notices
        .iter()
        .map(|notice| format!("{:?} {}: {}", notice.level, notice.reason, notice.message));
    lines.collect()
}
