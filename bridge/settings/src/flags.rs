//! The flag layer: clap arguments made from the declaration.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};

use crate::{Declaration, Loaded, SettingsError, load};

const CONFIG: &str = "config";

/// All flags of the settings `T`, and `--config`. Goes into a clap struct with `#[command(flatten)]`.
#[derive(Debug, Clone)]
pub struct Flags<T> {
    pub(crate) config: Option<PathBuf>,
    pub(crate) given: HashMap<String, String>,
    declaration: PhantomData<fn() -> T>,
}

impl<T: Declaration> Flags<T> {
    /// Reads the other layers below the flags.
    pub fn load(&self) -> Result<Loaded<T>, SettingsError> {
        self.load_with(|name| std::env::var_os(name))
    }

    /// Like [`Flags::load`] with an environment of the caller's.
    pub fn load_with(
        &self,
        environment: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Loaded<T>, SettingsError> {
        load::load(self, &environment)
    }
}

impl<T: Declaration> clap::FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = T::keys()
            .into_iter()
            .filter_map(|key| {
                matches
                    .get_one::<String>(&key.name)
                    .map(|value| (key.name.clone(), value.clone()))
            })
            .collect();
        Ok(Flags {
            config: matches.get_one::<PathBuf>(CONFIG).cloned(),
            given,
            declaration: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let Flags {
            config,
            given,
            declaration: _,
        } = Self::from_arg_matches(matches)?;
        self.config = config.or_else(|| self.config.take());
        self.given.extend(given);
        Ok(())
    }
}

impl<T: Declaration> clap::Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "TOML file with any of the keys below [env: {}CONFIG]",
                crate::ENV_PREFIX
            ));
        T::keys()
            .into_iter()
            .fold(command.arg(config), |command, key| {
                let env = key.env();
                let help = match key.default {
                    Some(default) => format!("{} [default: {default}] [env: {env}]", key.help),
                    None => format!("{} [env: {env}]", key.help),
                };
                let placeholder = key
                    .name
                    .rsplit('-')
                    .next()
                    .unwrap_or_default()
                    .to_uppercase();
                let mut arg = Arg::new(key.name.clone())
                    .long(key.name)
                    .value_name(placeholder)
                    .help(help);
                if key.switch {
                    // With "=", so that a word that follows the bare flag is not taken for its value.
                    arg = arg
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("true");
                }
                command.arg(arg)
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
