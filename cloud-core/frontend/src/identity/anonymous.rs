use std::net::IpAddr;

/// Who may connect without a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Everybody, from everywhere.
    Allow,
    /// Nobody.
    Deny,
    /// Clients on this machine, as long as there is no user.
    #[default]
    Loopback,
}

impl Anonymous {
    /// `from` is `None` for a client that came over no network.
    pub fn is_open(self, from: Option<IpAddr>, no_users: bool) -> bool {
        match self {
            Anonymous::Allow => true,
            Anonymous::Deny => false,
            Anonymous::Loopback => no_users && from.is_none_or(|from| from.is_loopback()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_without_a_user() {
        let here = Some(IpAddr::from([127, 0, 0, 7]));
        let there = Some(IpAddr::from([10, 0, 0, 7]));
        for (setting, from, no_users, expected) in [
            (Anonymous::Loopback, here, true, true),
            (Anonymous::Loopback, None, true, true),
            (Anonymous::Loopback, there, true, false),
            (Anonymous::Loopback, here, false, false),
            (Anonymous::Allow, there, false, true),
            (Anonymous::Deny, here, true, false),
        ] {
            assert_eq!(
                setting.is_open(from, no_users),
                expected,
                "{setting:?} {from:?} {no_users}"
            );
        }
    }
}
