//! Whose address it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What one household or machine has: an IPv4 address, or the /64 that an IPv6 address is picked from (RFC 4291 §2.5.4).
#[must_use]
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        other => other,
    }
}

/// A block of addresses: `172.17.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// Reads an address and the number of its leading bits; `None` where it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some(Subnet { address, prefix })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same =
            |a: u128, b: u128, bits: u8| (a ^ b).checked_shr(u32::from(bits - self.prefix)).unwrap_or(0) == 0;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Subnet {
    Subnet { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix }
}

const fn v6(a: u16, b: u16, prefix: u8) -> Subnet {
    Subnet { address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), prefix }
}

/// What the registry of special addresses (RFC 6890, kept by IANA) has that is not reached over the internet, and all of multicast.
const NOT_PUBLIC: [Subnet; 18] = [
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 88, 99, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(224, 0, 0, 3),
    // Tunnels, which lead to any IPv4 address (2001::/32, 2002::/16), and what is for examples.
    v6(0x2001, 0, 23),
    v6(0x2001, 0xdb8, 32),
    v6(0x2002, 0, 16),
    v6(0x3fff, 0, 20),
];

/// All that is given out for the internet so far (RFC 4291 §2.4).
const GLOBAL_V6: Subnet = v6(0x2000, 0, 3);
/// An IPv4 address behind it is reached over IPv6 (RFC 6052 §2.1).
const NAT64: Subnet = v6(0x64, 0xff9b, 96);

/// Whether an address is one of the internet: not of this machine, a private network, a link, a group, an example or a tunnel.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    let ordinary = |address| !NOT_PUBLIC.iter().any(|block| block.contains(address));
    match address.to_canonical() {
        IpAddr::V6(v6) if NAT64.contains(address) => {
            let [.., a, b, c, d] = v6.octets();
            ordinary(Ipv4Addr::new(a, b, c, d).into())
        }
        IpAddr::V6(_) => GLOBAL_V6.contains(address) && ordinary(address),
        IpAddr::V4(_) => ordinary(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_the_addresses_that_begin_with_its_bits() {
        let within = |subnet: &str, address: &str| {
            Subnet::parse(subnet).is_some_and(|subnet| subnet.contains(address.parse().unwrap()))
        };
        for (subnet, address) in [
            ("172.17.0.0/16", "172.17.255.1"),
            ("172.17.0.0/16", "::ffff:172.17.0.2"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("fd00:1::/64", "fd00:1::2"),
            ("::/0", "2001:db8::1"),
        ] {
            assert!(within(subnet, address), "{address} in {subnet}");
        }
        for (subnet, address) in [
            ("172.17.0.0/16", "172.18.0.1"),
            ("172.17.0.0/16", "fd00::ac11:1"),
            ("10.1.2.3/32", "10.1.2.2"),
            ("fd00:1::/64", "fd00:1:0:1::2"),
        ] {
            assert!(!within(subnet, address), "{address} in {subnet}");
        }
        for text in ["", "172.17.0.0", "172.17.0.0/33", "fd00::/129", "a/8", "172.17.0.0/-1"] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_household_is_one_ipv4_address_or_one_64_of_ipv6() {
        for (address, whose) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::1"),
        ] {
            assert_eq!(household(address.parse().unwrap()), whose.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn case_94_an_address_is_public_only_if_the_internet_reaches_it() {
        let judge = |address: &str| is_public(address.parse().unwrap());
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.1.1",
            "198.17.1.1",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2606:4700:4700::1111",
            "2a01:4f8::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(judge(public), "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.251",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::192.168.1.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!judge(private), "{private}");
        }
    }
}
