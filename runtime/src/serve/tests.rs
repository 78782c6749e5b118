//! One port as its clients find it.

use std::sync::Arc;

use axum::routing::get;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::{
    testing::{ask_plain, ask_secure},
    tls::{Certificate, Identity, Options},
};

struct Server {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn start(site: Site) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, site, stop.clone()));
    Server {
        address,
        stop,
        ended,
    }
}

fn says(word: &'static str) -> Router {
    Router::new().route("/", get(move || async move { word }))
}

fn acceptor() -> Acceptor {
    let certificate = Certificate::self_signed(["localhost"]).unwrap();
    Acceptor::new(Arc::new(Identity::new(certificate)), &Options::default()).unwrap()
}

impl Server {
    async fn plain(&self) -> String {
        ask_plain(self.address.port(), "/").await.unwrap()
    }

    async fn secure(&self) -> io::Result<String> {
        ask_secure(self.address.port(), "/").await
    }
}

#[tokio::test]
async fn plain_is_plain() {
    let server = start(Site::plain(says("plain"))).await;
    assert!(server.plain().await.ends_with("\r\n\r\nplain"));
    server.secure().await.unwrap_err();
}

#[tokio::test]
async fn a_secure_port_tells_who_speaks_plain_http() {
    let server = start(Site::secure(acceptor(), says("secret"))).await;
    let secure = server.secure().await.unwrap();
    assert!(secure.ends_with("\r\n\r\nsecret"), "{secure}");
    let plain = server.plain().await;
    assert!(plain.starts_with("HTTP/1.1 400 "), "{plain}");
    assert!(plain.contains("HTTP request to an HTTPS server"), "{plain}");
}

#[tokio::test]
async fn both_on_one_port() {
    let server = start(Site::both(says("plain"), acceptor(), says("secret"))).await;
    assert!(server.plain().await.ends_with("plain"));
    assert!(server.secure().await.unwrap().ends_with("secret"));
}

#[tokio::test]
async fn more_clients_than_there_is_room_for_wait_their_turn() {
    let server = start(Site::both(says("plain"), acceptor(), says("secret"))).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let waiting = tokio::spawn({
        let address = server.address;
        async move { ask_plain(address.port(), "/").await.unwrap() }
    });
    // The silent ones take all the room until one of them leaves.
    tokio::task::yield_now().await;
    silent.truncate(CONNECTIONS - 1);
    assert!(waiting.await.unwrap().ends_with("plain"));
}

#[tokio::test(start_paused = true)]
async fn who_never_says_anything_is_let_go() {
    for site in [
        Site::plain(says("plain")),
        Site::secure(acceptor(), says("secret")),
    ] {
        let server = start(site).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_request_under_way_is_answered_before_the_end() {
    let (entered, mut inside) = tokio::sync::mpsc::channel::<()>(1);
    let go = Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let router = Router::new().route(
        "/",
        get(async move || {
            entered.send(()).await.unwrap();
            wait.notified().await;
            "late"
        }),
    );
    let server = start(Site::plain(router)).await;
    let address = server.address;
    let asking = tokio::spawn(async move { ask_plain(address.port(), "/").await.unwrap() });
    inside.recv().await.unwrap();
    server.stop.cancel();
    go.notify_one();
    assert!(asking.await.unwrap().ends_with("late"));
    server.ended.await.unwrap();
    TcpStream::connect(address).await.unwrap_err();
}
