//! What a client is offered: versions, suites, key exchanges, and the certificate of the moment.

use std::sync::Arc;

use rustls::{
    ClientConfig, NamedGroup, ProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::AnyCertificate;

/// What a handshake came to.
#[derive(Debug)]
struct Met {
    version: ProtocolVersion,
    group: NamedGroup,
    certificate: CertificateDer<'static>,
}

async fn meet(
    acceptor: &Acceptor,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<Met> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TcpStream::connect(listener.local_addr()?).await?;
    let (accepted, _) = listener.accept().await?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("any").unwrap();
    let (client, _server) =
        tokio::try_join!(connector.connect(name, stream), acceptor.accept(accepted))?;
    let connection = client.get_ref().1;
    Ok(Met {
        version: connection.protocol_version().unwrap(),
        group: connection.negotiated_key_exchange_group().unwrap().name(),
        certificate: connection.peer_certificates().unwrap()[0].clone(),
    })
}

fn acceptor(options: &Options) -> (Acceptor, Arc<Identity>) {
    let identity = Arc::new(Identity::new(
        Certificate::self_signed(["localhost", "127.0.0.1"]).unwrap(),
    ));
    (Acceptor::new(identity.clone(), options).unwrap(), identity)
}

#[tokio::test]
async fn tls_13_alone_unless_12_is_asked_for() {
    let (strict, _) = acceptor(&Options::default());
    let met = meet(&strict, &[&TLS12, &TLS13]).await.unwrap();
    assert_eq!(met.version, ProtocolVersion::TLSv1_3);
    let refused = meet(&strict, &[&TLS12]).await.unwrap_err().to_string();
    assert!(refused.contains("Tls12NotOfferedOrEnabled"), "{refused}");

    let options = Options::parse(
        "VersionTLS12",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "",
    );
    let (lenient, _) = acceptor(&options.unwrap());
    let met = meet(&lenient, &[&TLS12]).await.unwrap();
    assert_eq!(met.version, ProtocolVersion::TLSv1_2);
    let met = meet(&lenient, &[&TLS12, &TLS13]).await.unwrap();
    assert_eq!(met.version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn a_suite_that_does_not_fit_the_key_meets_nobody() {
    let options = Options::parse("VersionTLS12", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "");
    let (for_rsa, _) = acceptor(&options.unwrap());
    meet(&for_rsa, &[&TLS12]).await.unwrap_err();
}

#[tokio::test]
async fn the_key_exchange_is_one_of_those_preferred() {
    let (only_384, _) = acceptor(&Options::parse("", "", "24").unwrap());
    let met = meet(&only_384, &[&TLS13]).await.unwrap();
    assert_eq!(met.group, NamedGroup::secp384r1);
}

#[tokio::test]
async fn the_certificate_of_the_moment_is_shown() {
    let identity = Arc::new(Identity::empty());
    let acceptor = Acceptor::new(identity.clone(), &Options::default()).unwrap();
    meet(&acceptor, &[&TLS13]).await.unwrap_err();
    let mut shown = Vec::new();
    for name in ["a", "b"] {
        identity.replace(Certificate::self_signed([name]).unwrap());
        let met = meet(&acceptor, &[&TLS13]).await.unwrap();
        assert_eq!(Some(&met.certificate), identity.shown().as_ref());
        shown.push(met.certificate);
    }
    assert_ne!(shown[0], shown[1]);
}

#[test]
fn names_that_are_none_are_refused() {
    let error = Certificate::self_signed(["ä"]).unwrap_err().to_string();
    assert!(error.contains("cannot make a certificate"), "{error}");
}
