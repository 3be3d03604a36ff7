//! `%c` and `%u` in topics and filters that a host configures.

use crate::access::Principal;

/// The text with the client id and the user name in place of `%c` and `%u`. `None`: there is no user, or what would be put in has
/// characters that mean something in a topic, or in such a text: it would change what was configured.
pub(crate) fn fill(text: &str, who: &Principal) -> Option<String> {
    let mut filled = String::new();
    fill_into(&mut filled, text, who)?;
    Some(filled)
}

/// The same, behind what is there. What is put in is not looked at again.
pub(crate) fn fill_into(filled: &mut String, text: &str, who: &Principal) -> Option<()> {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        filled.push_str(before);
        rest = if let Some(after) = after.strip_prefix('c') {
            filled.push_str(usable(who.client.as_str())?);
            after
        } else if let Some(after) = after.strip_prefix('u') {
            filled.push_str(usable(who.user.as_deref()?)?);
            after
        } else {
            filled.push('%');
            after
        };
    }
    filled.push_str(rest);
    Some(())
}

fn usable(value: &str) -> Option<&str> {
    let means_something = value.contains(['/', '+', '#', '\0', '%']);
    (!means_something).then_some(value)
}
