//! Which addresses the gateway connects to, whatever a name leads to.
//!
//! Whoever writes a manifest chooses URLs, and they must not become a way to what only this machine should reach: its
//! own ports, its link, and the metadata services of clouds, which hand out credentials. The check is part of the
//! connector: a name is resolved for each connection, and the connection goes to an address that was checked. So a
//! name that leads elsewhere tomorrow, or between two lookups, gains nothing.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::TryFutureExt as _;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::lookup::Lookups;

/// What may be connected to besides public addresses. Link-local addresses, those of cloud metadata, multicast and
/// what is no host are never connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reach {
    /// This machine, in a pod the pod.
    pub loopback: bool,
    /// Networks of one's own: private addresses, and those that clusters and tunnels use like private ones.
    pub private: bool,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Reach {
    /// The Internet alone.
    pub const PUBLIC: Self = Self { loopback: false, private: false };
    /// The networks that this machine is in too: where a server may be that is not beside the gateway.
    pub const NETWORKS: Self = Self { loopback: false, private: true };
    /// This machine too.
    pub const MACHINE: Self = Self { loopback: true, private: true };

    /// The addresses of a name that may be connected to. At least one, else an error that says why.
    fn permitted(self, name: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, String> {
        let mut refused = None;
        let mut permitted = Vec::new();
        for address in found {
            match self.refuses(address.ip()) {
                Some(kind) => refused = Some((address.ip(), kind)),
                None => permitted.push(address),
            }
        }
        match refused {
            _ if !permitted.is_empty() => Ok(permitted),
            Some((ip, kind)) => Err(format!("{name} is {ip}, which is never connected to ({kind})")),
            None => Err(format!("the name {name} has no address")),
        }
    }

    /// The kind of an address that must not be connected to, or `None`.
    fn refuses(self, ip: IpAddr) -> Option<&'static str> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.refuses_v4(ip),
            IpAddr::V6(ip) => self.refuses_v6(ip),
        }
    }

    fn refuses_v4(self, ip: Ipv4Addr) -> Option<&'static str> {
        let own = |kind| (!self.private).then_some(kind);
        match ip.octets() {
            [127, ..] => (!self.loopback).then_some("loopback"),
            [0, 0, 0, 0] => (!self.loopback).then_some("unspecified"), // It leads to this machine.
            [0, ..] => Some("unspecified"),
            [169, 254, ..] => Some("link-local"), // 169.254.169.254 and others are cloud metadata.
            [100, 100, 100, 200] | [168, 63, 129, 16] => Some("cloud metadata"),
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => own("private"),
            [100, 64..=127, ..] => own("carrier-grade NAT"),
            [192, 0, 0, _] => Some("special-purpose"), // 192.0.0.192 is cloud metadata.
            [198, 18..=19, ..] => own("benchmarking"),
            [224..=239, ..] => Some("multicast"),
            [255, 255, 255, 255] => Some("broadcast"),
            [240..=255, ..] => own("reserved"),
            _ => None,
        }
    }

    fn refuses_v6(self, ip: Ipv6Addr) -> Option<&'static str> {
        let embedded = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            // A translator would reach the IPv4 host behind it; loopback through one is never this machine's own.
            Self { loopback: false, ..self }.refuses_v4(Ipv4Addr::new(a, b, c, d))
        };
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => (!self.loopback).then_some("unspecified"),
            [0, 0, 0, 0, 0, 0, 0, 1] => (!self.loopback).then_some("loopback"),
            [0, 0, 0, 0, 0, 0, ..] => Some("IPv4-compatible"),
            // NAT64 (RFC 6052) and 6to4 (RFC 3056).
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
            [0x64, 0xff9b, 1, ..] => Some("local NAT64"), // RFC 8215
            [0x2001, 0, ..] => Some("Teredo"),
            [0xfe80..=0xfebf, ..] => Some("link-local"),
            [0xfec0..=0xfeff, ..] => Some("site-local"),
            [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, ..] => Some("cloud metadata"),
            [0xfc00..=0xfdff, ..] => (!self.private).then_some("private"),
            [0xff00..=0xffff, ..] => Some("multicast"),
            _ => None,
        }
    }
}

/// Opens TCP connections within a [`Reach`], to names and to literal addresses.
#[derive(Clone)]
pub(super) struct Connector {
    reach: Reach,
    tcp: HttpConnector<Resolver>,
}

impl Connector {
    /// For http and https URLs; `set` sets what else there is to set.
    pub(super) fn new(reach: Reach, set: impl FnOnce(&mut HttpConnector<Resolver>)) -> Self {
        Self::with(reach, Lookups::system(), set)
    }

    /// With another resolver than the system's.
    pub(super) fn with(reach: Reach, lookups: Lookups, set: impl FnOnce(&mut HttpConnector<Resolver>)) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { reach, lookups });
        tcp.enforce_http(false);
        set(&mut tcp);
        Self { reach, tcp }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // A literal address is not resolved, so the resolver does not see it.
        let host = to.host().unwrap_or_default();
        let literal: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        match literal.and_then(|ip| Some((ip, self.reach.refuses(ip)?))) {
            Some((ip, kind)) => {
                let refused = format!("{ip} is never connected to ({kind})");
                Box::pin(async { Err(refused.into()) })
            }
            None => Box::pin(self.tcp.call(to).err_into()),
        }
    }
}

/// Resolves names to the addresses that may be connected to.
#[derive(Clone)]
pub(super) struct Resolver {
    reach: Reach,
    lookups: Lookups,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { reach, lookups } = self.clone();
        Box::pin(async move {
            let found = lookups.addresses(name.as_str()).await?;
            Ok(reach.permitted(name.as_str(), found.iter().copied())?.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that are not public.
    const SPECIAL: [&str; 41] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",
        "169.254.1.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.0.1",
        "198.19.0.1",
        "224.0.0.1",
        "240.240.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2001:0:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "fd00:ec2::23",
        "fd00:ec2::254",
        "fd20:ce::254",
        "ff02::1",
        "ffff::1",
    ];

    fn reached(reach: Reach) -> Vec<&'static str> {
        SPECIAL.into_iter().filter(|ip| reach.refuses(ip.parse().unwrap()).is_none()).collect()
    }

    #[test]
    fn public_addresses_alone_are_reached_without_leave() {
        let public = Reach::PUBLIC;
        assert_eq!(reached(public), Vec::<&str>::new());
        for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.2.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert_eq!(public.refuses(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn each_leave_opens_its_own_networks_and_none_opens_metadata() {
        let this_machine = ["0.0.0.0", "127.0.0.1", "127.8.8.8", "::", "::1", "::ffff:127.0.0.1"];
        assert_eq!(reached(Reach { loopback: true, ..Reach::PUBLIC }), this_machine);
        let own_networks = [
            "10.1.2.3",
            "100.64.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "198.19.0.1",
            "240.240.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd12:3456::1",
        ];
        assert_eq!(reached(Reach::NETWORKS), own_networks);
        let both = reached(Reach::MACHINE);
        assert_eq!(both.len(), this_machine.len() + own_networks.len());
    }

    #[test]
    fn of_several_addresses_those_that_may_be_connected_to_are_left() {
        let addresses = |all: &[&str]| all.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect::<Vec<_>>();
        let permitted = |all: &[&str]| Reach::NETWORKS.permitted("a.example", addresses(all).into_iter());

        assert_eq!(permitted(&["127.0.0.1", "10.0.0.1", "fe80::1"]), Ok(addresses(&["10.0.0.1"])));
        assert_eq!(
            permitted(&["169.254.169.254"]).unwrap_err(),
            "a.example is 169.254.169.254, which is never connected to (link-local)"
        );
        assert_eq!(permitted(&[]).unwrap_err(), "the name a.example has no address");
    }

    /// As when DNS changes between two calls: each connection asks anew, and is judged anew.
    #[tokio::test]
    async fn a_name_is_resolved_and_checked_for_each_connection() {
        let mut resolver = Resolver { reach: Reach::MACHINE, lookups: Lookups::system() };
        let name: Name = "localhost".parse().unwrap();
        assert!(resolver.call(name.clone()).await.unwrap().all(|address| address.ip().is_loopback()));

        resolver.reach.loopback = false;

        let error = resolver.call(name).await.unwrap_err().to_string();
        assert!(error.starts_with("localhost is ") && error.ends_with("never connected to (loopback)"), "{error}");
    }

    #[tokio::test]
    async fn a_refused_address_is_not_connected_to_as_a_name_nor_as_a_literal() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut connector = Connector::new(Reach::NETWORKS, |_| {});

        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
            let to: Uri = format!("http://{host}:{port}/").parse().unwrap();
            let mut error: &dyn std::error::Error = &*connector.call(to).await.unwrap_err();
            while let Some(deeper) = error.source() {
                error = deeper;
            }
            assert!(error.to_string().contains("never connected to"), "{host}: {error}");
        }

        connector.reach.loopback = true; // The positive control.
        connector.call(format!("http://127.0.0.1:{port}/").parse().unwrap()).await.unwrap();
        listener.accept().await.unwrap();
        let others = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept());
        assert!(others.await.is_err(), "somebody else connected");
    }
}
