//! How often somebody may guess a password. An address that fails too often is refused; an account under attack only gets
//! slower, by a bounded delay, so that nobody can lock its owner out.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::domain::{Email, household};
use crate::limits::{LOGIN_DELAY, LOGIN_DELAY_MAX, LOGIN_FAILURES, LOGIN_TABLE, LOGIN_WINDOW};

/// What is to become of an attempt to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look at the password.
    Go,
    /// Hold the attempt for this long, without asking again, then look at the password.
    Wait(Duration),
    /// Do not look at it: 429.
    Refuse {
        /// When the address may try again.
        retry_after: Duration,
    },
}

/// The failures of the last 15 minutes, by address and by account. A success takes none back: else somebody with an account of
/// his own could guess at another's for ever.
#[derive(Debug, Default)]
pub struct Throttle {
    addresses: Table<IpAddr>,
    accounts: Table<Email>,
}

impl Throttle {
    /// Without failures.
    #[must_use]
    pub fn new() -> Throttle {
        Throttle::default()
    }

    /// What is to become of an attempt from `address` on `account`, whether or not there is such an account. Asking counts
    /// nothing, so it can be done both before the attempt is queued and again before its password is looked at.
    #[must_use]
    pub fn ask(&self, address: IpAddr, account: &Email, now: Instant) -> Decision {
        let failures = self.addresses.recent(&household(address), now);
        if let Some(oldest) = failures.len().checked_sub(LOGIN_FAILURES).and_then(|i| failures.get(i)) {
            return Decision::Refuse { retry_after: (*oldest + LOGIN_WINDOW).saturating_duration_since(now) };
        }
        match self.accounts.recent(account, now).len().checked_sub(LOGIN_FAILURES) {
            None => Decision::Go,
            Some(beyond) => Decision::Wait(delay(beyond)),
        }
    }

    /// Counts a wrong password.
    pub fn failed(&mut self, address: IpAddr, account: &Email, now: Instant) {
        self.addresses.add(household(address), now);
        self.accounts.add(account.clone(), now);
    }
}

/// The delay of an account with so many failures beyond the first few.
fn delay(beyond: usize) -> Duration {
    let doublings = u32::try_from(beyond).unwrap_or(u32::MAX);
    LOGIN_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LOGIN_DELAY_MAX)
}

/// The times of failures by key, oldest first: the last few of each, of the last few keys.
#[derive(Debug)]
struct Table<K>(HashMap<K, VecDeque<Instant>>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table(HashMap::new())
    }
}

/// Beyond these the delay is at its longest and an address is refused: more need not be remembered.
const TIMES_KEPT: usize = LOGIN_FAILURES + 8;
const _: () = assert!(LOGIN_DELAY.as_secs() << (TIMES_KEPT - LOGIN_FAILURES) >= LOGIN_DELAY_MAX.as_secs());

impl<K: Hash + Eq + Clone> Table<K> {
    fn recent(&self, key: &K, now: Instant) -> Vec<Instant> {
        let times = self.0.get(key).into_iter().flatten();
        times.filter(|at| now.saturating_duration_since(**at) < LOGIN_WINDOW).copied().collect()
    }

    fn add(&mut self, key: K, now: Instant) {
        if !self.0.contains_key(&key) && self.0.len() >= LOGIN_TABLE {
            let quietest = self.0.iter().min_by_key(|(_, times)| times.back()).map(|(key, _)| key.clone());
            quietest.and_then(|key| self.0.remove(&key));
        }
        let times = self.0.entry(key).or_default();
        if times.len() == TIMES_KEPT {
            times.pop_front();
        }
        times.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn mail(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn case_48_the_sixth_attempt_of_an_address_is_refused_until_the_first_failure_is_old() {
        let (mut throttle, start) = (Throttle::new(), Instant::now());
        let (attacker, elsewhere) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for i in 0..5 {
            let now = start + i * SECOND;
            assert_eq!(throttle.ask(attacker, &mail("u@x"), now), Decision::Go, "{i}");
            // Whichever account it tries.
            throttle.failed(attacker, &mail(&format!("u{i}@x")), now);
        }
        let now = start + 10 * SECOND;
        let refused = Decision::Refuse { retry_after: 890 * SECOND };
        assert_eq!(throttle.ask(attacker, &mail("new@x"), now), refused);
        assert_eq!(throttle.ask(elsewhere, &mail("u1@x"), now), Decision::Go);
        assert_eq!(throttle.ask(attacker, &mail("u@x"), start + LOGIN_WINDOW), Decision::Go);
        throttle.failed(attacker, &mail("u@x"), start + LOGIN_WINDOW);
        let refused = Decision::Refuse { retry_after: SECOND };
        assert_eq!(throttle.ask(attacker, &mail("u@x"), start + LOGIN_WINDOW), refused, "the window slides");
    }

    #[test]
    fn case_48_an_account_under_attack_gets_slower_but_its_owner_gets_in() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        let (account, owner) = (mail("ana@x"), ip("198.51.100.7"));
        let mut waits = Vec::new();
        for i in 0..12 {
            waits.push(throttle.ask(owner, &account, now));
            throttle.failed(ip(&format!("192.0.2.{i}")), &account, now);
        }
        let wait = |secs| Decision::Wait(Duration::from_secs(secs));
        assert_eq!(waits[..6], [[Decision::Go; 5].as_slice(), &[wait(1)]].concat());
        assert_eq!(waits[6..], [wait(2), wait(4), wait(8), wait(16), wait(16), wait(16)]);
        for i in 0..5_000_u32 {
            throttle.failed(IpAddr::V4((0x0a00_0000 + i).into()), &account, now);
        }
        assert_eq!(throttle.ask(owner, &account, now), Decision::Wait(LOGIN_DELAY_MAX));
        assert!(LOGIN_DELAY_MAX <= Duration::from_secs(60));
        assert_eq!(throttle.ask(owner, &mail("bea@x"), now), Decision::Go);
        assert_eq!(throttle.ask(owner, &account, now + LOGIN_WINDOW), Decision::Go);
    }

    #[test]
    fn case_48_a_network_is_one_address_however_it_is_written() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        let refused = Decision::Refuse { retry_after: LOGIN_WINDOW };
        for i in 0..5 {
            throttle.failed(ip(&format!("2001:db8::{i}")), &mail(&format!("u{i}@x")), now);
            throttle.failed(ip("192.0.2.1"), &mail(&format!("u{i}@x")), now);
        }
        assert_eq!(throttle.ask(ip("2001:db8::ffff:1"), &mail("a@x"), now), refused);
        assert_eq!(throttle.ask(ip("::ffff:192.0.2.1"), &mail("a@x"), now), refused);
        assert_eq!(throttle.ask(ip("2001:db8:0:1::1"), &mail("a@x"), now), Decision::Go);
        assert_eq!(throttle.ask(ip("::1"), &mail("a@x"), now), Decision::Go);
    }

    #[test]
    fn the_tables_are_bounded_and_forget_the_quietest() {
        let (mut throttle, start) = (Throttle::new(), Instant::now());
        let (attacker, account) = (ip("192.0.2.1"), mail("ana@x"));
        for _ in 0..5 {
            throttle.failed(attacker, &account, start);
        }
        let busy = start + SECOND;
        throttle.failed(attacker, &account, busy);
        let addresses: Vec<_> =
            (0..LOGIN_TABLE).map(|i| IpAddr::V4(u32::try_from(i).unwrap().into())).collect();
        for address in &addresses[1..] {
            throttle.failed(*address, &mail(&format!("{address}@x")), start);
        }
        assert_eq!((throttle.addresses.0.len(), throttle.accounts.0.len()), (LOGIN_TABLE, LOGIN_TABLE));
        throttle.failed(addresses[0], &mail("new@x"), busy);
        assert_eq!((throttle.addresses.0.len(), throttle.accounts.0.len()), (LOGIN_TABLE, LOGIN_TABLE));
        assert!(
            matches!(throttle.ask(attacker, &account, busy), Decision::Refuse { .. }),
            "the busiest stays"
        );
    }
}
