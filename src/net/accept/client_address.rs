//! Finds the client's address of a request, also behind trusted proxies, and the key that limits count it under.
//!
//! A proxy names its client in `X-Forwarded-For`. Without that header, the gateway reads the `for` parameter of `Forwarded`
//! (RFC 7239). It never combines both headers: a proxy sets one of them and passes on the other as the client wrote it.
//! Each proxy appends the address that it saw. So the client is the last address that is not a trusted proxy, and a client
//! can forge everything before it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::header::{FORWARDED, HeaderMap};
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The unit that a limit per address counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AddressKey {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: providers give each customer a network of that size or larger.
    V6(u64),
    /// All clients whose address a trusted proxy gave in an unreadable form. They share one limit.
    Unreadable,
}

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => match behind_nat64(address) {
                Some(address) => Self::V4(address),
                None => {
                    let [high, _low] = halves(address);
                    Self::V6(high)
                }
            },
        }
    }
}

/// Returns the key of a request's client. Returns `None` for a request of a trusted proxy itself, which has no limit.
#[must_use]
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Option<AddressKey> {
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|range| range.contains(&address))
    };
    if !is_trusted(peer) {
        return Some(peer.into());
    }
    let (said, read): (_, fn(&str) -> Option<IpAddr>) = if headers.contains_key(X_FORWARDED_FOR) {
        (headers.get_all(X_FORWARDED_FOR), address)
    } else {
        (headers.get_all(FORWARDED), forwarded_for)
    };
    for value in said.iter().rev() {
        let Ok(value) = value.to_str() else {
            return Some(AddressKey::Unreadable);
        };
        for element in value.rsplit(',') {
            match read(element) {
                Some(address) if is_trusted(address) => {}
                Some(address) => return Some(address.into()),
                None => return Some(AddressKey::Unreadable),
            }
        }
    }
    None
}

/// Parses the client in one element of `Forwarded`. The caller splits at every comma and this function at every semicolon,
/// also within quotes. That is safe: an address contains neither, and an open quote of the client cannot hide the address
/// that the proxy appended.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(node)
}

/// Parses an address in any form that proxies write: with or without a port, brackets, quotes and a zone (RFC 7239 §6,
/// RFC 4007 §11). `unknown` and the obfuscated names of RFC 7239 §6.3 (`_hidden`) are not addresses.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let unquoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let text = unquoted.unwrap_or(text).trim();
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_port.then(|| v6(address)).flatten().map(IpAddr::V6);
    }
    if let Some(address) = v6(text) {
        return Some(address.into());
    }
    if let Ok(address) = text.parse() {
        return Some(IpAddr::V4(address));
    }
    let (address, _) = text.rsplit_once(':').filter(|(_, port)| is_port(port))?;
    // Some proxies append a port to an IPv6 address without brackets. If the port could be a part of the address, the code
    // above has parsed it as such; the first 64 bits are the same.
    let v4 = || address.parse().ok().map(IpAddr::V4);
    v6(address).map(IpAddr::V6).or_else(v4)
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    let (address, zone) = text.split_once('%').unwrap_or((text, "zone"));
    if zone.is_empty() {
        return None;
    }
    address.parse().ok()
}

/// RFC 7239 §6.2: a number or an obfuscated name.
fn is_port(text: &str) -> bool {
    let is_made_up = text.strip_prefix('_').is_some_and(|name| {
        let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !name.is_empty() && name.bytes().all(is_letter)
    });
    is_made_up || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

/// Returns the IPv4 address behind a NAT64 translator (RFC 6052 §2.1). Otherwise all of IPv4 would share one limit.
fn behind_nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const PREFIX: u64 = 0x0064_ff9b_0000_0000;
    let [high, low] = halves(address);
    let v4 = u32::try_from(low).ok()?;
    (high == PREFIX).then(|| Ipv4Addr::from_bits(v4))
}

fn halves(address: Ipv6Addr) -> [u64; 2] {
    let octets = address.octets();
    let (high, low) = octets.split_at(8);
    [high, low].map(|half| {
        let half = half.try_into().expect("half of sixteen bytes is eight");
        u64::from_be_bytes(half)
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nearest_that_is_not_trusted_is_the_client() {
        let check = |peer: &str, said: &[&str], expected: Option<&str>| {
            let values: Vec<_> = said.iter().map(|value| value.as_bytes()).collect();
            let key = client_of(peer, X_FORWARDED_FOR, &values);
            assert_eq!(key, expected.map(key_of), "{peer} {said:?}");
        };
        check("192.0.2.1", &[], Some("192.0.2.1"));
        check("192.0.2.1", &["198.51.100.9"], Some("192.0.2.1"));
        check("127.0.0.1", &[], None);
        check("::ffff:127.0.0.1", &[], None);
        check("127.0.0.1", &["192.0.2.1"], Some("192.0.2.1"));
        // The client's own entries stand to the left.
        check(
            "127.0.0.1",
            &["10.1.1.1, 198.51.100.9, 192.0.2.1,10.0.0.7"],
            Some("192.0.2.1"),
        );
        check(
            "127.0.0.1",
            &["198.51.100.9", "192.0.2.1"],
            Some("192.0.2.1"),
        );
        check("127.0.0.1", &["10.1.1.1, fd00::7"], None);
        check("2001:db8::1:2:3:4", &[], Some("2001:db8:0:0:ffff::1"));
    }

    #[test]
    fn an_address_is_read_in_every_form_that_proxies_write() {
        let forms = [
            ("192.0.2.1", "192.0.2.1"),
            (" 192.0.2.1:4711 ", "192.0.2.1"),
            ("192.0.2.1:_p", "192.0.2.1"),
            ("\"192.0.2.1:4711\"", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:4711", "192.0.2.1"),
            ("64:ff9b::192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2::7", "2001:db8:1:2::"),
            ("2001:DB8:1:2::7", "2001:db8:1:2::"),
            ("[2001:db8:1:2::7]", "2001:db8:1:2::"),
            ("[2001:db8:1:2::7]:4711", "2001:db8:1:2::"),
            ("\"[2001:db8:1:2::7]:4711\"", "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6:4711", "2001:db8:1:2::"),
            ("2001:db8:1:2::7:4711", "2001:db8:1:2::"),
            ("2001:db8:1:2::7:47110", "2001:db8:1:2::"),
            ("2001:db8:1:2::7%eth0", "2001:db8:1:2::"),
            ("[2001:db8:1:2::7%25eth0]:4711", "2001:db8:1:2::"),
        ];
        for (form, expected) in forms {
            let said = format!("203.0.113.77, {form}, 10.0.0.7:80");
            let key = client_of("127.0.0.1", X_FORWARDED_FOR, &[said.as_bytes()]);
            assert_eq!(key, Some(key_of(expected)), "{form}");
        }
        assert_ne!(key_of("2001:db8:0:1::1"), key_of("2001:db8::1"));
        // The gateway recognises a trusted proxy in every form.
        for form in ["10.0.0.7:80", "[fd00::7%eth0]:80", "\"[fd00::7]\""] {
            assert_eq!(
                client_of("127.0.0.1", X_FORWARDED_FOR, &[form.as_bytes()]),
                None,
                "{form}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_shares_one_key_and_is_no_proxy() {
        let unreadable: [&[u8]; 22] = [
            b"",
            b" ",
            b"192.0.2.1,",
            b"unknown",
            b"_hidden",
            b"192.0.2.1, unknown",
            b"192.0.2.1, unknown:4711",
            b"192.0.2.1, 10.0.0.7, _SEVKISEK",
            b"192.0.2.256",
            b"192.0.2.01",
            b"192.0.2.1:",
            b"192.0.2.1:65536",
            b"192.0.2.1:+80",
            b"192.0.2.1 80",
            b"[192.0.2.1]:80",
            b"[2001:db8::1",
            b"2001:db8::1]",
            b"[2001:db8::1]80",
            b"2001:db8::1%",
            b"\"192.0.2.1",
            b"unix:",
            b"192.0.2.\xe9",
        ];
        for said in unreadable {
            assert_eq!(
                client_of("127.0.0.1", X_FORWARDED_FOR, &[said]),
                Some(AddressKey::Unreadable),
                "{:?}",
                String::from_utf8_lossy(said)
            );
        }
        // Also in a separate header line behind a good one. Not if the sender is not a proxy.
        let lines: [&[u8]; 2] = [b"192.0.2.1", b"unknown"];
        let key = client_of("127.0.0.1", X_FORWARDED_FOR, &lines);
        assert_eq!(key, Some(AddressKey::Unreadable));
        let key = client_of("192.0.2.1", X_FORWARDED_FOR, &[b"unknown"]);
        assert_eq!(key, Some(key_of("192.0.2.1")));
    }

    #[test]
    fn forwarded_is_read_where_the_other_header_is_not_there() {
        let check = |said: &str, expected: AddressKey| {
            let key = client_of("127.0.0.1", "forwarded", &[said.as_bytes()]);
            assert_eq!(key, Some(expected), "{said}");
        };
        check("for=192.0.2.1", key_of("192.0.2.1"));
        check(
            "proto=https;FOR=\"192.0.2.1:4711\";by=_x",
            key_of("192.0.2.1"),
        );
        check(
            "for=203.0.113.9, For=\"[2001:db8:1:2::7]:4711\", for=10.0.0.7",
            key_of("2001:db8:1:2::"),
        );
        // The client left a quote open.
        check("for=\"203.0.113.9, for=192.0.2.1", key_of("192.0.2.1"));
        for unreadable in [
            "for=unknown",
            "for=_hidden",
            "by=192.0.2.1",
            "192.0.2.1",
            "for=192.0.2.1,",
            "for=\"192.0.2.\\1\"",
        ] {
            check(unreadable, AddressKey::Unreadable);
        }
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED, HeaderValue::from_static("for=203.0.113.9"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
        let key = client([127, 0, 0, 1].into(), &headers, &proxies());
        assert_eq!(key, Some(key_of("192.0.2.1")));
    }

    proptest! {
        #[test]
        fn what_the_proxy_appended_cannot_be_changed_by_what_stands_before(said in "[ -~]{0,60}") {
            for (name, appended) in [(X_FORWARDED_FOR, "192.0.2.1:80"), ("forwarded", "for=192.0.2.1")] {
                let value = format!("{said}, {appended}");
                let key = client_of("127.0.0.1", name, &[value.as_bytes()]);
                prop_assert_eq!(key, Some(key_of("192.0.2.1")));
            }
        }

        #[test]
        fn an_address_is_read_back_from_its_own_text(v4: u32, v6: u128, port: u16) {
            let (v4, v6) = (Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6));
            prop_assert_eq!(address(&format!("{v4}:{port}")), Some(v4.into()));
            prop_assert_eq!(address(&format!("[{v6}]:{port}")), Some(v6.into()));
            prop_assert_eq!(address(&v6.to_string()), Some(v6.into()));
        }
    }

    fn client_of(peer: &str, name: &'static str, said: &[&[u8]]) -> Option<AddressKey> {
        let mut headers = HeaderMap::new();
        for value in said {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        client(peer.parse().unwrap(), &headers, &proxies())
    }

    fn key_of(address: &str) -> AddressKey {
        AddressKey::from(address.parse::<IpAddr>().unwrap())
    }

    fn proxies() -> Vec<IpNet> {
        let ranges = ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"];
        ranges.map(|range| range.parse().unwrap()).into()
    }
}
