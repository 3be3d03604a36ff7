//! `%c` and `%u` in topics and filters that a host configures.

use crate::access::Principal;

/// The text with the client id and the user name in place of `%c` and `%u`. `None`: there is no user, or what would be put in has
/// characters that mean something in a topic: it would change what was configured.
pub(crate) fn fill(text: &str, who: &Principal) -> Option<String> {
    let mut filled = text.to_owned();
    let user = who.user.as_deref();
    for (placeholder, value) in [("%c", Some(who.client.as_str())), ("%u", user)] {
        if filled.contains(placeholder) {
            let value = value.filter(|value| !value.contains(['/', '+', '#', '\0', '%']))?;
            filled = filled.replace(placeholder, value);
        }
    }
    Some(filled)
}
