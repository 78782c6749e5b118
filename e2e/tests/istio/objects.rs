//! Objects as an operator writes them.

use serde_json::{Value, json};

/// A Gateway of Istio on the ingress gateway's pods.
pub fn gateway(name: &str, servers: &Value) -> Value {
    gateway_on("ingressgateway", name, servers)
}

/// The same on pods labelled `istio: <pods>`.
pub fn gateway_on(pods: &str, name: &str, servers: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"istio": pods}, "servers": servers},
    })
}

/// A server for plain HTTP on `port` for these hosts.
pub fn http_server(port: u16, hosts: &[&str]) -> Value {
    json!([{"port": {"number": port, "name": format!("http-{port}"), "protocol": "HTTP"}, "hosts": hosts}])
}

/// A VirtualService for `hosts` behind the Gateway of the same name.
pub fn virtual_service(name: &str, hosts: &[&str], gateway: &str, http: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hosts": hosts, "gateways": [gateway], "http": http},
    })
}

/// The route to httpbin.
pub fn to_httpbin() -> Value {
    json!([{"destination": {"host": "httpbin", "port": {"number": 8000}}}])
}

/// The route to hostname-echo.
pub fn to_hostname_echo() -> Value {
    json!([{"destination": {"host": "hostname-echo", "port": {"number": 80}}}])
}

/// A Secret of type TLS.
pub fn tls_secret(namespace: &str, name: &str, chain: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace, "labels": {"e2e": "yes"}},
        "stringData": {"tls.crt": chain, "tls.key": key},
    })
}
