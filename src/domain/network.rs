//! Whose address it is.

use std::net::IpAddr;

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
}
