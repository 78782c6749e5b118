//! A bridge, nodes with an arbitration and a responder on it, and a client that asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ferrolb_runtime::ready::Ready;
use ferrolb_speaker_arbiter::{Candidates, Key, NodeId, PeerFacts, Profile, Report};
use ferrolb_speaker_core::Reach;
use ferrolb_speaker_responder::lab::{
    CLIENT, FAR, Host, in_namespace, index, ip, wait_for_carrier,
};
use ferrolb_speaker_responder::{self as responder, Interfaces, Responder, Tables};
use ferrolb_speaker_socket::{Inbox, PacketSocket};
use ferrolb_speaker_wire::{FRAME_LEN, MacAddr, Operation, decode, filter, request};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::arbitration::{self, Arbitration, Settings, Standing, Told, Word, Words};
use crate::exclusions::Exclusions;
use crate::interfaces::{self, Own};
use crate::metrics::Metrics;

/// From one look at something that takes a while to the next.
const LOOK: Duration = Duration::from_millis(10);

/// Questions a client asks at most before it is told to stop.
const QUESTIONS: u16 = 30_000;

/// The bridge and the client on it.
pub struct Segment {
    client: Arc<Host>,
}

/// Runs `test` beside a bridge with a client.
pub fn in_segment<F: Future<Output = ()>>(test: impl FnOnce(Segment) -> F + Send + 'static) {
    in_namespace(|| async {
        ip("link add name br0 type bridge");
        ip("link set br0 up");
        let client = Host::new();
        attach(&client, "client", "far", FAR).await;
        client
            .run(|| ip(&format!("addr add {CLIENT}/24 dev far")))
            .await;
        let client = Arc::new(client);
        // Its namespace stays until the nodes have ended.
        let _stays = client.clone();
        test(Segment { client }).await;
    });
}

/// Gives the host an interface on the bridge; the bridge's end of it is `to-{name}`.
async fn attach(host: &Host, name: &str, interface: &'static str, mac: MacAddr) {
    ip(&format!(
        "link add name to-{name} type veth peer name {interface} address {mac} netns {}",
        host.namespace
    ));
    ip(&format!("link set to-{name} master br0 up"));
    let up = move || {
        ip(&format!("link set {interface} up"));
        wait_for_carrier(interface);
    };
    host.run(up).await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

impl Segment {
    pub async fn node(&self, name: &'static str, number: u8) -> Node {
        self.node_with_key(name, number, b"secret").await
    }

    /// A node of the name with the address 10.9.0.(100 + `number`), whose speakers share this secret.
    pub async fn node_with_key(&self, name: &'static str, number: u8, secret: &[u8]) -> Node {
        let host = Host::new();
        let mac = MacAddr::new(2, 0, 0, 0, 1, number);
        attach(&host, name, "near", mac).await;
        let address = Ipv4Addr::new(10, 9, 0, 100 + number);
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let tables = Tables::default();
        let (counted, read) = (metrics.clone(), tables.clone());
        let key = Key::new(secret).unwrap();
        let silence = CancellationToken::new();
        let stop = silence.clone();
        let started = host.run(move || {
            ip(&format!("addr add {address}/24 dev near"));
            let (found, interfaces) = watch::channel(Interfaces::new());
            let (tell_own, own) = watch::channel(Own::default());
            // Threads live in the namespace of the one that starts them.
            thread::spawn(|| {
                let (_, excluded) = watch::channel(Exclusions::usual().unwrap());
                let (names, _) = watch::channel(None);
                runtime().block_on(interfaces::follow(excluded, found, names, tell_own));
            });
            let wire = counted.wire.clone();
            let pulse = Ready::new().pulse("responder", responder::PULSE).keep();
            let (all, shared) = (read.clone(), key.clone());
            let responder =
                responder::start(interfaces.clone(), all, shared, wire, stop, pulse).unwrap();
            let settings = Settings {
                me: NodeId::of(name),
                // Nobody is lost because the machine is slow.
                profile: Profile::QUIET,
                key,
            };
            let (tell, told) = mpsc::unbounded_channel();
            let pulse = Ready::new().pulse("arbiter", arbitration::PULSE);
            let (arbitration, words) =
                arbitration::start(settings, interfaces, own, read, counted, tell, pulse).unwrap();
            (responder, arbitration, words, told)
        });
        let (responder, arbitration, words, told) = started.await;
        Node {
            name,
            mac,
            address,
            words,
            metrics,
            host,
            told,
            seen: Vec::new(),
            tables,
            arbitration: Some(arbitration),
            responder: Some(responder),
            silence,
        }
    }

    /// Waits, on the client, until each of these frames was heard, whatever padding or option follows. Asks for something
    /// else meanwhile: who hears nothing makes nothing known.
    pub fn listen(&self, mut wanted: Vec<Vec<u8>>) -> impl Future<Output = ()> + use<> {
        self.client.run(move || {
            runtime().block_on(async {
                let all = &filter::INCOMING_NEIGHBOURS;
                let arp = PacketSocket::arp(index("far"), all).unwrap();
                let ndp = PacketSocket::ndp(index("far"), all).unwrap();
                let (mut one, mut other) = (Inbox::new(), Inbox::new());
                let question = request(Ipv4Addr::new(10, 9, 0, 99), CLIENT, FAR);
                while !wanted.is_empty() {
                    let inbox = tokio::select! {
                        got = arp.receive(&mut one) => got.map(|_| &one),
                        got = ndp.receive(&mut other) => got.map(|_| &other),
                        () = sleep(LOOK) => {
                            arp.send(&[question]).await.unwrap();
                            continue;
                        }
                    };
                    for frame in inbox.unwrap().frames() {
                        wanted.retain(|wanted| !alike(frame.bytes, wanted));
                    }
                }
            });
        })
    }

    /// The client sends a frame.
    pub async fn say(&self, frame: Vec<u8>) {
        let send = move || {
            runtime().block_on(async {
                let socket = PacketSocket::arp(index("far"), &filter::INCOMING_ARP).unwrap();
                socket.send(&[frame]).await.unwrap();
            });
        };
        self.client.run(send).await;
    }

    /// The client believes the address there, and has not asked for long.
    pub async fn believe(&self, address: IpAddr, mac: &'static str) {
        let entry = move || {
            ip(&format!(
                "neigh replace {address} lladdr {mac} dev far nud stale"
            ))
        };
        self.client.run(entry).await;
    }

    /// Waits until the client's kernel believes the address there.
    pub async fn until_believed(&self, address: IpAddr, mac: MacAddr) {
        let shown = move || ip(&format!("neigh show {address} dev far"));
        while !self.client.run(shown).await.contains(&mac.to_string()) {
            sleep(LOOK).await;
        }
    }

    /// Asks until there were so many answers, one question after the other, and says where the address was said to be.
    pub async fn ask(&self, address: Ipv4Addr, count: usize) -> Vec<MacAddr> {
        let asking = self.ask_on(address);
        asking.answers(count).await;
        let mut macs = asking.stop().await.macs();
        macs.truncate(count);
        macs
    }

    /// Asks every millisecond until stopped.
    pub fn ask_on(&self, address: Ipv4Addr) -> Asking {
        let stop = CancellationToken::new();
        let (count, answers) = watch::channel(0);
        let stopped = stop.clone();
        let job = self
            .client
            .run(move || runtime().block_on(ask(address, &count, &stopped)));
        Asking {
            stop,
            answers,
            asked: Box::pin(job),
        }
    }
}

/// Whether they are the same but for what carries a tag: an ARP frame's padding; an option, and with it length and checksum.
fn alike(heard: &[u8], wanted: &[u8]) -> bool {
    if wanted.len() == FRAME_LEN {
        return heard.get(..42) == wanted.get(..42);
    }
    let parts = [0..18, 20..56, 58..wanted.len()];
    parts.into_iter().all(|part| {
        heard.get(part.clone()).is_some() && heard.get(part.clone()) == wanted.get(part)
    })
}

/// Each question comes from an address of its own, so that answers tell which it was.
async fn ask(address: Ipv4Addr, count: &watch::Sender<usize>, stop: &CancellationToken) -> Asked {
    let socket = PacketSocket::arp(index("far"), &filter::INCOMING_ARP).unwrap();
    let mut inbox = Inbox::new();
    let mut asked = Asked::default();
    let mut pace = interval(Duration::from_millis(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() && asked.questions < QUESTIONS {
        tokio::select! {
            _ = pace.tick() => {
                let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 128, 0)) + u32::from(asked.questions));
                socket.send(&[request(address, from, FAR)]).await.unwrap();
                asked.questions += 1;
            }
            got = socket.receive(&mut inbox) => {
                got.unwrap();
                asked.take(address, &inbox);
                count.send_replace(asked.answers.len());
            }
        }
    }
    // What is still under way.
    let late = Instant::now() + Duration::from_millis(200);
    while timeout_at(late, socket.receive(&mut inbox)).await.is_ok() {
        asked.take(address, &inbox);
    }
    asked
}

/// A client that asks.
pub struct Asking {
    stop: CancellationToken,
    answers: watch::Receiver<usize>,
    asked: std::pin::Pin<Box<dyn Future<Output = Asked>>>,
}

impl Asking {
    /// Waits for so many further answers.
    pub async fn answers(&self, count: usize) {
        let mut answers = self.answers.clone();
        let now = *answers.borrow();
        let enough = answers.wait_for(|answers| *answers >= now + count).await;
        enough.unwrap();
    }

    pub async fn stop(self) -> Asked {
        self.stop.cancel();
        self.asked.await
    }
}

/// What a client asked and heard.
#[derive(Default)]
pub struct Asked {
    questions: u16,
    /// Which question was answered, and where the address is, in the order the answers came.
    answers: Vec<(u16, MacAddr)>,
}

impl Asked {
    fn take(&mut self, address: Ipv4Addr, inbox: &Inbox) {
        for frame in inbox.frames() {
            let Ok(packet) = decode(&frame, FAR) else {
                // For another host, where the bridge does not know yet.
                continue;
            };
            let [10, 9, high, low] = packet.target_ip.octets() else {
                continue;
            };
            // Else a claim, or a question of a node's.
            if let Some(high) = high.checked_sub(128)
                && packet.operation == Operation::Reply
            {
                assert_eq!(packet.sender_ip, address);
                let number = u16::from_be_bytes([high, low]);
                self.answers.push((number, packet.sender_mac));
            }
        }
    }

    pub fn macs(&self) -> Vec<MacAddr> {
        self.answers.iter().map(|(_, mac)| *mac).collect()
    }

    /// The most questions in a row that nobody answered, up to the last answered one.
    pub fn longest_gap(&self) -> u16 {
        let mut numbers: Vec<u16> = self.answers.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let pairs = numbers.windows(2).map(|pair| pair[1] - pair[0] - 1);
        pairs.chain(numbers.first().copied()).max().unwrap()
    }
}

/// A node with the interface `near`.
pub struct Node {
    name: &'static str,
    pub mac: MacAddr,
    address: Ipv4Addr,
    pub words: Words,
    pub metrics: Metrics,
    host: Host,
    told: mpsc::UnboundedReceiver<Told>,
    /// What was told and not asked for yet.
    seen: Vec<Told>,
    tables: Tables,
    arbitration: Option<Arbitration>,
    responder: Option<Responder>,
    silence: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

impl Node {
    /// Ends as the process does, without a hand-over.
    pub fn end(&mut self) {
        self.silence.cancel();
        let answered = self.responder.take().is_none_or(Responder::join);
        let arbitration = self.arbitration.take();
        let arbitrated = arbitration.is_none_or(|arbitration| arbitration.end(&self.words));
        assert!(thread::panicking() || (answered && arbitrated));
    }

    /// Does something in the node's namespace.
    pub async fn here<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.host.run(job).await
    }

    /// The other nodes there are.
    pub fn meet(&self, others: &[&Self]) {
        let facts = others.iter().map(|other| PeerFacts {
            node: NodeId::of(other.name),
            address: Some(other.address.into()),
            believed: Some(true),
            legacy: false,
        });
        self.words.tell(Word::Peers(facts.collect()));
    }

    /// These nodes may answer for the address, in this order, on every interface.
    pub fn stand(&self, address: impl Into<IpAddr>, order: &[&str]) {
        self.stand_in(address.into(), order, Reach::Everywhere);
    }

    /// The same on these interfaces.
    pub fn stand_on(&self, address: impl Into<IpAddr>, order: &[&str], interfaces: &[&str]) {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned());
        self.stand_in(address.into(), order, Reach::Only(interfaces.collect()));
    }

    fn stand_in(&self, address: IpAddr, order: &[&str], reach: Reach) {
        let standing = Standing {
            candidates: Candidates {
                order: order.iter().map(|node| NodeId::of(node)).collect(),
                willing: order.len(),
            },
            reach: Some(reach),
        };
        let word = Word::Standings(vec![(address, Some(standing))]);
        self.words.tell(word);
    }

    /// Nobody may answer for the address any more.
    pub fn fall(&self, address: IpAddr) {
        self.words.tell(Word::Standings(vec![(address, None)]));
    }

    /// Waits for a report that `pick` takes, which is asked for once.
    pub async fn told<T>(&mut self, pick: impl Fn(&Report) -> Option<T>) -> T {
        self.told_where(pick).await.1
    }

    /// The same, with the interface.
    pub async fn told_where<T>(&mut self, pick: impl Fn(&Report) -> Option<T>) -> (String, T) {
        loop {
            let found = self
                .seen
                .iter()
                .position(|told| told.report.as_ref().and_then(&pick).is_some());
            if let Some(position) = found {
                let told = self.seen.remove(position);
                return (
                    told.interface,
                    told.report.as_ref().and_then(&pick).unwrap(),
                );
            }
            let told = self.told.recv().await.expect("the arbiters ended");
            eprintln!("{}: {told:?}", self.name);
            self.seen.push(told);
        }
    }

    /// What was told by now and not asked for that `pick` takes.
    pub fn all_told<T>(&mut self, pick: impl Fn(&Report) -> Option<T>) -> Vec<T> {
        self.seen
            .extend(std::iter::from_fn(|| self.told.try_recv().ok()));
        let all = self.seen.iter();
        all.filter_map(|told| told.report.as_ref().and_then(&pick))
            .collect()
    }

    /// Waits until `near` has its link-local address, so that NDP is spoken on it.
    pub async fn link_local(&self) {
        let shown = "-6 addr show dev near scope link -tentative";
        while !self.here(|| ip(shown)).await.contains("fe80") {
            sleep(LOOK).await;
        }
    }

    /// Waits until `near` is a member of the group, or no longer.
    pub async fn member(&self, group: Ipv6Addr, member: bool) {
        let shown = || ip("-6 maddr show dev near");
        while self.here(shown).await.contains(&group.to_string()) != member {
            sleep(LOOK).await;
        }
    }

    /// Waits until addresses are answered for on these interfaces of the node, in order of their indexes, and on no others.
    /// A node that stood still is silent for a moment.
    pub async fn until_answered(&self, wanted: &[&str]) {
        loop {
            let tables = self.tables.clone();
            let answered = self.here(move || {
                let all = nix::net::if_::if_nameindex().unwrap();
                let names = all
                    .iter()
                    .map(|one| one.name().to_str().unwrap().to_owned());
                let answers = |name: &String| {
                    let table = tables.of(index(name));
                    table.open().is_some_and(|answers| !answers.is_empty())
                };
                names.filter(answers).collect::<Vec<_>>()
            });
            if answered.await == wanted {
                return;
            }
            sleep(LOOK).await;
        }
    }
}
