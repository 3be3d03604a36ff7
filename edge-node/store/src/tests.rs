//! The suite of the store: every disk and ledger runs it.
