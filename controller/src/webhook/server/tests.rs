//! The webhooks as an API server meets them: over TLS, trusting the `caBundle` and asking for the Service's name.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::SystemTime};

use axum::http::Request as HttpRequest;
use ferrolb_runtime::{
    serve::{Site, serve},
    tls::{Acceptor, Identity, Options},
};
use kube::{Client, client::Body as ClientBody};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::webhook::{admission::BgpType, certificate::Kept};

const NAME: &str = "metallb-webhook-service.metallb-system.svc";

/// An API server that has one pool, or refuses every list.
fn api_server(refuses: bool) -> Client {
    let answer = move |request: HttpRequest<ClientBody>| async move {
        let path = request.uri().path().to_owned();
        let pools = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools";
        let (code, body) = match (refuses, path == pools) {
            (true, _) => (
                403,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                    "reason": "Forbidden", "message": "pools are forbidden"}),
            ),
            (false, true) => (
                200,
                json!({"kind": "IPAddressPoolList", "apiVersion": "metallb.io/v1beta1", "metadata": {}, "items": [
                    {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "spec": {"addresses": ["10.0.0.0/24"]},
                        "metadata": {"name": "there", "namespace": "metallb-system"}}]}),
            ),
            (false, false) => (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "page not found"}),
            ),
        };
        let response = axum::http::Response::builder().status(code);
        let body = ClientBody::from(serde_json::to_vec(&body).unwrap());
        Ok::<_, Infallible>(response.body(body).unwrap())
    };
    Client::new(tower::service_fn(answer), "metallb-system")
}

struct Server {
    address: SocketAddr,
    trust: Vec<u8>,
}

async fn start(refuses: bool) -> Server {
    let kept = Kept::default()
        .renewed(&[NAME.to_owned()], SystemTime::now())
        .unwrap();
    let identity = Identity::empty();
    identity.replace(kept.served().unwrap());
    let acceptor = Acceptor::new(Arc::new(identity), &Options::default()).unwrap();
    let cluster = Cluster::new(api_server(refuses), "metallb-system".to_owned());
    let rules = Rules {
        namespace: "metallb-system".to_owned(),
        bgp: BgpType::Native,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site::secure(acceptor, router(cluster, rules));
    tokio::spawn(serve(listener, site, CancellationToken::new()));
    Server {
        address,
        trust: kept.authority,
    }
}

impl Server {
    /// The status code and the body.
    async fn post(&self, path: &str, body: &[u8]) -> (u16, String) {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&self.trust) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let head = format!(
            "POST {path}?timeout=10s HTTP/1.1\r\nHost: {NAME}:443\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has read enough may hang up before the end.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }

    async fn review(&self, path: &str, body: &Value) -> Value {
        let (code, body) = self.post(path, &serde_json::to_vec(body).unwrap()).await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn pool(addresses: &str) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u7", "operation": "CREATE",
        "namespace": "metallb-system", "object": {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "new", "namespace": "metallb-system"}, "spec": {"addresses": [addresses]}}}})
}

#[tokio::test]
async fn a_pool_is_compared_with_what_the_api_server_has() {
    let server = start(false).await;
    let path = Kind::Pool.path();
    let review = server.review(path, &pool("10.0.1.0/24")).await;
    assert_eq!(review["response"], json!({"uid": "u7", "allowed": true}));
    let review = server.review(path, &pool("10.0.0.0/25")).await;
    assert_eq!(review["response"]["uid"], "u7");
    assert_eq!(review["response"]["allowed"], false);
    let status = &review["response"]["status"];
    assert_eq!(status["code"], 403);
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("overlaps with already defined CIDR"),
        "{message}"
    );
}

#[tokio::test]
async fn an_api_server_that_will_not_tell_lets_nothing_pass() {
    let server = start(true).await;
    let path = Kind::Pool.path();
    let review = server.review(path, &pool("10.0.1.0/24")).await;
    let status = &review["response"]["status"];
    assert_eq!(review["response"]["allowed"], false);
    assert_eq!(status["code"], 500);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("pools are forbidden"), "{message}");
    // What can be said without it is said.
    let mut elsewhere = pool("10.0.1.0/24");
    elsewhere["request"]["object"]["metadata"]["namespace"] = json!("default");
    let review = server.review(path, &elsewhere).await;
    assert_eq!(review["response"]["status"]["code"], 403);
}

#[tokio::test]
async fn every_path_is_served_and_no_other() {
    let server = start(false).await;
    for kind in Kind::ALL {
        let review = server.review(kind.path(), &json!({})).await;
        assert_eq!(review["response"]["status"]["code"], 400, "{kind:?}");
    }
    assert_eq!(server.post("/validate", b"{}").await.0, 404);
    let old = server.review(OLD_POOLS, &pool("anything")).await;
    assert_eq!(old["response"]["allowed"], true);
    assert!(
        old["response"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("IPAddressPool")
    );
    let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": {"uid": "u",
        "desiredAPIVersion": "metallb.io/v1beta2", "objects": [
            {"apiVersion": "metallb.io/v1beta1", "kind": "BGPPeer", "spec": {"myASN": 1}}]}});
    let converted = server.review("/convert", &review).await;
    let objects = &converted["response"]["convertedObjects"];
    assert_eq!(objects[0]["apiVersion"], "metallb.io/v1beta2");
}

#[tokio::test]
async fn a_review_that_is_too_long_is_not_read() {
    let server = start(false).await;
    let (code, _) = server
        .post(Kind::Pool.path(), &vec![b' '; LONGEST + 1])
        .await;
    assert_eq!(code, 413);
}
