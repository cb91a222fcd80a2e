//! PURE. Who listens on TCP in this network namespace, from `/proc/net/tcp` and `/proc/net/tcp6`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State of a socket that listens.
const LISTEN: &str = "0A";

/// The addresses of all sockets that listen. Lines that are none are skipped.
pub(super) fn listeners(table: &str) -> Vec<SocketAddr> {
    table.lines().filter_map(listener).collect()
}

fn listener(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace();
    let (number, local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if !number.ends_with(':') || state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some(SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of 32 bits, each in the byte order of the machine, that is: printed as the number that its bytes are there.
fn ip(hex: &str) -> Option<IpAddr> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Of these, the ones that others can reach at an address that is not loopback, but for our own ports; sorted, each
/// once.
pub(super) fn reachable(all: Vec<SocketAddr>, own: &[u16]) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> =
        all.into_iter().filter(|it| !it.ip().to_canonical().is_loopback() && !own.contains(&it.port())).collect();
    found.sort();
    found.dedup();
    found
}

/// Where to dial to learn whether a listener answers outside loopback. A wildcard is dialled at the pod's address; one of
/// IPv6 alone may not answer at an IPv4 address of the pod, yet it does at the others, so that loopback stands for them.
pub(super) fn dialled(listener: SocketAddr, pod: IpAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, listener.port());
    match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![at(pod)],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![at(pod), at(Ipv6Addr::LOCALHOST.into())],
        _ => vec![listener],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[cfg(target_endian = "little")]
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 31 1 0000000000000000 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 32 1 0000000000000000 100 0 0 10 0
   2: 0700F40A:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 33 1 0000000000000000 100 0 0 10 0
   3: 0700F40A:1F90 0800F40A:D431 01 00000000:00000000 00:00000000 00000000  1000        0 34 1 0000000000000000 20 4 30 10 -1
";
    #[cfg(target_endian = "little")]
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt
   0: 00000000000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 00000000000000000000000000000000:20FB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000
   2: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000
   3: B80D0120000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000
";

    fn texts(found: &[SocketAddr]) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn both_tables_are_read() {
        assert_eq!(texts(&listeners(TCP)), ["127.0.0.1:8000", "0.0.0.0:8080", "10.244.0.7:3000"]);
        assert_eq!(texts(&listeners(TCP6)), ["[::1]:8000", "[::]:8443", "127.0.0.1:80", "[2001:db8::1]:81"]);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn loopback_and_our_own_ports_are_not_reachable_around_us() {
        let all = [listeners(TCP), listeners(TCP), listeners(TCP6)].concat();

        assert_eq!(texts(&reachable(all, &[8443, 9901])), ["0.0.0.0:8080", "10.244.0.7:3000", "[2001:db8::1]:81"]);
    }

    #[test]
    fn a_wildcard_is_dialled_at_the_pods_address_and_others_at_their_own() {
        let dialled = |listener: &str| texts(&dialled(listener.parse().unwrap(), "10.244.0.7".parse().unwrap()));

        assert_eq!(dialled("0.0.0.0:8080"), ["10.244.0.7:8080"]);
        assert_eq!(dialled("[::]:8080"), ["10.244.0.7:8080", "[::1]:8080"]);
        assert_eq!(dialled("192.0.2.1:8080"), ["192.0.2.1:8080"]);
        assert_eq!(dialled("[2001:db8::1]:8080"), ["[2001:db8::1]:8080"]);
    }

    #[tokio::test]
    async fn a_real_listener_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();

        assert!(listeners(&table).contains(&listener.local_addr().unwrap()), "{table}");
    }

    proptest! {
        #[test]
        fn no_line_breaks_it(line in "[ 0-9A-F:é]{0,120}") {
            let _ = listeners(&line);
        }
    }
}
