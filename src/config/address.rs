//! Parses addresses that an operator types.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Stands for [`Ipv4Addr::LOCALHOST`] without a DNS query.
pub(crate) const LOCALHOST: &str = "localhost";

/// Parses an address to listen on: `127.0.0.1:4000`, `[::1]:4000`, `localhost:4000`, or the port alone, which means
/// 127.0.0.1.
///
/// # Errors
///
/// A description of a correct address.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = match text.rsplit_once(':') {
        Some((host, port)) if host.eq_ignore_ascii_case(LOCALHOST) => Some(port),
        Some(_) => None,
        None => Some(text),
    };
    // `parse` alone would accept a sign.
    port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|port| port.parse().ok())
        .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        .ok_or_else(|| {
            "an address and a port, such as 127.0.0.1:4000 or localhost:4000, or a port alone"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_port_or_localhost() {
        for (text, address) in [
            ("127.0.0.1:4000", Some("127.0.0.1:4000")),
            ("0.0.0.0:0", Some("0.0.0.0:0")),
            ("[::1]:4000", Some("[::1]:4000")),
            ("4133", Some("127.0.0.1:4133")),
            (" 4133\n", Some("127.0.0.1:4133")),
            ("0", Some("127.0.0.1:0")),
            ("localhost:4133", Some("127.0.0.1:4133")),
            ("LocalHost:4133", Some("127.0.0.1:4133")),
            ("", None),
            ("65536", None),
            ("+4133", None),
            ("localhost", None),
            ("localhost:", None),
            ("localhost:+1", None),
            ("127.0.0.1", None),
            ("example.com:4133", None),
            ("::1:4000", None),
        ] {
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(parse_listen(text).ok(), expected, "{text:?}");
        }
    }
}
