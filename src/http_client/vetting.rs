//! Which addresses are connected to. A target's name may lead anywhere, and to somewhere else the next time: to this
//! machine, to its networks, to the metadata of a cloud, which gives away keys to whoever asks. So an address is looked at
//! where it is about to be dialled, and only those of the public internet are, and those that are allowed by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Network;

/// Which addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vetting {
    allow: Vec<Network>,
}

/// No address of a host may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Forbidden(pub String);

impl Vetting {
    /// Those of the public internet, and these.
    pub fn new(allow: Vec<Network>) -> Self {
        Vetting { allow }
    }

    /// Whether `address` may be connected to; an error says why not, and what would let it be.
    pub fn vet(&self, address: IpAddr) -> Result<(), String> {
        let meant = meant(address);
        let is_allowed = |network: &Network| network.contains(address) || network.contains(meant);
        let Some(what) = what_it_is(meant) else {
            return Ok(());
        };
        if self.allow.iter().any(is_allowed) {
            return Ok(());
        }
        Err(format!(
            "{address} is {what}, and no public one; if that is right, list it in the target's `allow`"
        ))
    }
}

/// The address behind one of IPv6 that stands for one of IPv4.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let of = |a: u16, b: u16| {
        let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        // ::ffff:0:0/96, mapped; ::/96, compatible, but for :: and ::1; ::ffff:0:0:0/96, translated.
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] => of(a, b),
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 || b > 1 => of(a, b),
        // 64:ff9b::/96 and 64:ff9b:1::/48, by NAT64.
        [0x64, 0xff9b, 0 | 1, .., a, b] => of(a, b),
        // 2002::/16, 6to4.
        [0x2002, a, b, ..] => of(a, b),
        _ => address,
    }
}

/// What an address is that is none of the public internet.
fn what_it_is(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => of_v6(address),
    }
}

fn of_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an address of this machine",
        [127, ..] => "an address of this machine",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "an address of a provider's network",
        [169, 254, 169, 254] => "the address of a cloud's metadata",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, _] | [198, 18..=19, ..] => "an address for tests and protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address for examples",
        [192, 88, 99, _] => "an address of a relay",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn of_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() || address.is_loopback() {
        return Some("an address of this machine");
    }
    Some(match address.segments() {
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => "the address of a cloud's metadata",
        [0xfc00..=0xfdff, ..] => "a private address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "an address for examples",
        // 2001::/23 is for protocols, Teredo among them, which hides an address of IPv4 in it.
        [0x2001, 0..=0x1ff, ..] => "an address for tests and protocols",
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vet(allow: &[&str], address: &str) -> Result<(), String> {
        let allow = allow.iter().map(|text| text.parse().expect(text));
        Vetting::new(allow.collect()).vet(address.parse().expect(address))
    }

    #[test]
    fn only_public_addresses_pass_however_they_are_written() {
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(vet(&[], public), Ok(()), "{public}");
        }
        for (address, what) in [
            ("127.0.0.1", "this machine"),
            ("127.255.0.9", "this machine"),
            ("0.0.0.0", "this machine"),
            ("0.1.2.3", "this machine"),
            ("::", "this machine"),
            ("::1", "this machine"),
            ("::ffff:127.0.0.1", "this machine"),
            ("::127.0.0.1", "this machine"),
            ("::ffff:0:127.0.0.1", "this machine"),
            ("64:ff9b::7f00:1", "this machine"),
            ("64:ff9b:1::169.254.169.254", "metadata"),
            ("2002:7f00:1::", "this machine"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("192.168.1.1", "private"),
            ("fd12::1", "private"),
            ("100.64.0.1", "provider"),
            ("100.100.100.200", "provider"),
            ("169.254.169.254", "metadata"),
            ("::ffff:169.254.169.254", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("192.0.2.1", "examples"),
            ("198.18.0.1", "tests"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("2001:0:1:2::", "protocols"),
            ("2001:db8::1", "examples"),
            ("5f00::1", "reserved"),
        ] {
            let why = vet(&[], address).expect_err(address);
            assert!(why.contains(what) && why.contains("`allow`"), "{why}");
        }
    }

    #[test]
    fn what_is_allowed_passes_and_nothing_beside_it() {
        assert_eq!(vet(&["127.0.0.1/32"], "127.0.0.1"), Ok(()));
        assert_eq!(vet(&["127.0.0.1/32"], "::ffff:127.0.0.1"), Ok(()));
        assert!(vet(&["127.0.0.1/32"], "127.0.0.2").is_err());
        assert!(vet(&["127.0.0.1/32"], "::1").is_err());
        assert_eq!(vet(&["10.0.0.0/8"], "10.200.1.1"), Ok(()));
        assert!(vet(&["10.0.0.0/8"], "169.254.169.254").is_err());
    }
}
