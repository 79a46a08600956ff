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

#[cfg(test)]
mod tests {
    use super::*;

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
