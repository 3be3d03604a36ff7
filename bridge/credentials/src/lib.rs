//! Proving who one is: hashes of passwords (Argon2id), SCRAM exchanges (RFC 5802, RFC 7677), how often one may be wrong, and files with secrets.
//!
//! Used by the edge and by the core. Nothing here knows a protocol or a table.

mod attempts;
pub mod limits;
mod password;
mod passwords;
mod places;
mod private_file;
mod prompt;
mod refusals;
mod scram;
mod scram_login;

pub use attempts::{Attempt, Attempts};
pub use password::PasswordHash;
pub use passwords::{CheckError, Passwords};
pub use private_file::{draft_of, write_private};
pub use prompt::read_password;
pub use refusals::Refusals;
pub use scram::{Mechanism, ScramError, ScramKeys};
pub use scram_login::{ScramLogin, scram_secret};
