//! One address setting for clients of IPv6 and of IPv4.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::support::Stage;
use crate::support::binary::{Running, finished};
use crate::support::client::Client;

const BOTH: &str = "[listen]\naddress = \"[::]:0\"\n[admin]\naddress = \"[::]:0\"\n";

/// Loopback of each family that this machine has.
fn loopbacks(port: u16) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push((Ipv6Addr::LOCALHOST, port).into());
    }
    addresses
}

#[tokio::test]
async fn one_address_serves_clients_of_both_families() {
    let stage = Stage::set(BOTH).await;
    let (traffic, admin) = (stage.sidecar.addresses.traffic, stage.sidecar.addresses.admin);
    for client in loopbacks(traffic.port()) {
        let answer = Client::to(client).get("/").header("x-forwarded-user", "ada").send().await;
        assert_eq!(answer.status(), 200, "{client}");
        assert!(answer.token().is_some(), "{client} is loopback, which is believed");
        let arrived = stage.app.journal().pop().expect("a request");
        assert_eq!(arrived.header("x-forwarded-for"), Some(&*client.ip().to_string()));
    }
    for probe in loopbacks(admin.port()) {
        assert_eq!(Client::to(probe).get("/healthz/ready").send().await.status(), 200, "{probe}");
    }
}

#[tokio::test]
async fn ipv4_clients_keep_their_form_in_the_access_log() {
    let environment = [
        ("VELT_SIDECAR_LISTEN__ADDRESS", "[::]:0"),
        ("VELT_SIDECAR_ACCESS_LOG__FORMAT", "json"),
        ("VELT_SIDECAR_APP__ADDRESS", "127.0.0.1:9"),
    ];
    let (mut running, traffic, _) = Running::sidecar(&environment).await;
    let ipv4 = SocketAddr::from((Ipv4Addr::LOCALHOST, traffic.port()));
    assert_eq!(Client::to(ipv4).get("/noted").send().await.status(), 502);
    let line = running.line_with("/noted").await;
    assert!(line.contains("127.0.0.1") && !line.contains("::ffff"), "{line}");
}

#[tokio::test]
async fn health_and_drain_find_an_admin_port_of_both_families() {
    let (running, _, admin) = Running::sidecar(&[("VELT_SIDECAR_ADMIN__ADDRESS", "[::]:0")]).await;
    let address = format!("[::]:{}", admin.port());
    let environment = [("VELT_SIDECAR_ADMIN__ADDRESS", &*address)];
    let ready = &["health", "--ready"][..];
    for (command, code) in [(ready, 0), (&["drain"], 0), (ready, 1)] {
        let finished = finished(command, &environment).await;
        assert_eq!(finished.code, Some(code), "{command:?}: {}", finished.stderr);
    }
    drop(running);
}
