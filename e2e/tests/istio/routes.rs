//! What a VirtualService can say of a request, seen through the address.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    objects::{gateway, http_server, to_hostname_echo, to_httpbin, virtual_service},
    world::World,
};

pub fn by_host_and_path(world: &World) -> Result<()> {
    world.submit(&[
        gateway("paths", &http_server(80, &["*.paths.example.com"])),
        virtual_service(
            "a",
            &["a.paths.example.com"],
            "paths",
            &json!([
                {"match": [{"uri": {"prefix": "/bin/"}}], "rewrite": {"uri": "/"}, "route": to_httpbin()},
                {"match": [{"uri": {"exact": "/"}}], "route": to_hostname_echo()},
            ]),
        ),
        virtual_service(
            "b",
            &["b.paths.example.com"],
            "paths",
            &json!([{"route": to_httpbin()}]),
        ),
    ])?;
    let rewritten = world.ask(200, "a.paths.example.com", "/bin/get", &[])?;
    ensure!(
        rewritten.body.contains("\"url\": \"/get\""),
        "{rewritten:?}"
    );
    let name = world.ask(200, "a.paths.example.com", "/", &[])?;
    ensure!(name.body.starts_with("hostname-echo-"), "{name:?}");
    world.ask(404, "a.paths.example.com", "/get", &[])?;
    let root = world.ask(200, "b.paths.example.com", "/", &[])?;
    ensure!(root.body == "httpbin\n", "{root:?}");
    world.ask(418, "b.paths.example.com", "/status/418", &[])?;
    world.ask(404, "c.paths.example.com", "/", &[]).map(drop)
}

pub fn by_headers_and_with_headers_changed(world: &World) -> Result<()> {
    let host = "headers.example.com";
    world.submit(&[
        gateway("headers", &http_server(80, &[host])),
        virtual_service(
            "headers",
            &[host],
            "headers",
            &json!([
                {"match": [{"headers": {"x-user": {"exact": "tester"}}}], "route": to_hostname_echo()},
                {
                    "headers": {
                        "request": {"set": {"x-set": "by the gateway"}, "remove": ["x-removed"]},
                        "response": {"add": {"x-added": "on the way back"}},
                    },
                    "route": to_httpbin(),
                },
            ]),
        ),
    ])?;
    let changed = [
        "-H",
        "x-user: other",
        "-H",
        "x-removed: 1",
        "-H",
        "x-kept: 2",
    ];
    let changed = world.ask(200, host, "/headers", &changed)?;
    ensure!(
        changed.header("x-added") == Some("on the way back"),
        "{changed:?}"
    );
    let shown: Value = serde_json::from_str(&changed.body)?;
    let header = |name: &str| {
        shown
            .get("headers")
            .and_then(|headers| headers.get(name)?.as_str())
    };
    ensure!(header("X-Set") == Some("by the gateway"), "{shown:#}");
    ensure!(header("X-Kept") == Some("2"), "{shown:#}");
    ensure!(header("X-Removed").is_none(), "{shown:#}");
    let name = world.ask(200, host, "/headers", &["-H", "x-user: tester"])?;
    ensure!(name.body.starts_with("hostname-echo-"), "{name:?}");
    Ok(())
}

pub fn delays_aborts_and_timeouts(world: &World) -> Result<()> {
    let host = "faults.example.com";
    let always = json!({"value": 100.0});
    world.submit(&[
        gateway("faults", &http_server(80, &[host])),
        virtual_service(
            "faults",
            &[host],
            "faults",
            &json!([
                {
                    "match": [{"headers": {"x-fault": {"exact": "delay"}}}],
                    "fault": {"delay": {"fixedDelay": "1.5s", "percentage": always}},
                    "route": to_httpbin(),
                },
                {
                    "match": [{"headers": {"x-fault": {"exact": "abort"}}}],
                    "fault": {"abort": {"httpStatus": 555, "percentage": always}},
                    "route": to_httpbin(),
                },
                {"match": [{"uri": {"prefix": "/delay"}}], "timeout": "0.5s", "route": to_httpbin()},
                {"route": to_httpbin()},
            ]),
        ),
    ])?;
    world.ask(200, host, "/get", &[])?;
    let delayed = world.ask(200, host, "/get", &["-H", "x-fault: delay"])?;
    ensure!(
        delayed.seconds >= 1.5,
        "answered after {} s",
        delayed.seconds
    );
    world.ask(555, host, "/get", &["-H", "x-fault: abort"])?;
    let late = world.ask(504, host, "/delay/5", &[])?;
    ensure!(late.seconds < 5.0, "given up only after {} s", late.seconds);
    Ok(())
}
