//! What NVIDIA's plugin takes and has no counterpart here, so that its manifests can be tried as they are. What asks for
//! nothing passes, what cannot have an effect is said once, and what a container would miss without a word is refused.
//! docs/moving-from-nvidia.md has the table, which a test holds against this one.

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

struct Setting {
    flag: &'static str,
    variable: &'static str,
    takes: Takes,
    answer: Answer,
}

enum Takes {
    /// True or false.
    Switch,
    /// A text; these ask for nothing.
    Text(&'static [&'static str]),
}

enum Answer {
    NoEffect(&'static str),
    Refused(&'static str),
}

use Answer::{NoEffect, Refused};
use Takes::{Switch, Text};

const NO_HOOKS: &str = "no hook is in the CDI specification here";
const NO_PROGRAM: &str = "no program is called in containers here";

const ALL: [Setting; 11] = [
    Setting {
        flag: "fail-on-init-error",
        variable: "FAIL_ON_INIT_ERROR",
        takes: Switch,
        answer: NoEffect("the agent never ends because of the driver: it waits, and /readyz says for what"),
    },
    Setting {
        flag: "restart-on-device-unhealthy",
        variable: "RESTART_ON_DEVICE_UNHEALTHY",
        takes: Switch,
        answer: NoEffect("a device that is well again is Healthy again without a restart"),
    },
    Setting {
        flag: "use-node-feature-api",
        variable: "USE_NODE_FEATURE_API",
        takes: Switch,
        answer: NoEffect("--node-labels says where labels go"),
    },
    Setting { flag: "mps-root", variable: "MPS_ROOT", takes: Text(&[]), answer: NoEffect("there is no MPS here") },
    Setting {
        flag: "cdi-feature-flags",
        variable: "CDI_FEATURE_FLAGS",
        takes: Text(&[]),
        answer: NoEffect("the CDI specification here has no such features"),
    },
    Setting { flag: "cdi-disable-hooks", variable: "CDI_DISABLE_HOOKS", takes: Text(&[]), answer: NoEffect(NO_HOOKS) },
    Setting {
        flag: "nvidia-cdi-hook-path",
        variable: "NVIDIA_CDI_HOOK_PATH",
        takes: Text(&[]),
        answer: NoEffect(NO_PROGRAM),
    },
    Setting { flag: "nvidia-ctk-path", variable: "NVIDIA_CTK_PATH", takes: Text(&[]), answer: NoEffect(NO_PROGRAM) },
    Setting {
        flag: "device-discovery-strategy",
        variable: "DEVICE_DISCOVERY_STRATEGY",
        takes: Text(&["auto", "nvml"]),
        answer: Refused("GPUs are found through NVML here; expected auto or nvml"),
    },
    Setting {
        flag: "imex-channel-ids",
        variable: "IMEX_CHANNEL_IDS",
        takes: Text(&["[]"]),
        answer: NoEffect("there are no IMEX channels here"),
    },
    Setting {
        flag: "imex-required",
        variable: "IMEX_REQUIRED",
        takes: Switch,
        answer: Refused("there are no IMEX channels here; use NVIDIA's plugin for them"),
    },
];

/// What of it was given, and why that does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nvidias {
    without_effect: Vec<String>,
}

impl Nvidias {
    /// Said once, when there is a log.
    pub(crate) fn warn(&self) {
        for line in &self.without_effect {
            tracing::warn!("{line}");
        }
    }
}

impl Setting {
    fn argument(&self) -> Arg {
        let argument = Arg::new(self.flag).long(self.flag).env(self.variable).hide(true).action(ArgAction::Set);
        match self.takes {
            Switch => argument
                .value_name("BOOL")
                .num_args(0..=1)
                .default_missing_value("true")
                .value_parser(BoolishValueParser::new()),
            Text(_) => argument,
        }
    }

    /// What was asked for, if it was anything.
    fn asked(&self, matches: &ArgMatches) -> Option<String> {
        match self.takes {
            Switch => matches.get_one::<bool>(self.flag).filter(|is_on| **is_on).map(bool::to_string),
            Text(passes) => matches
                .get_one::<String>(self.flag)
                .filter(|text| !text.is_empty() && !passes.contains(&text.as_str()))
                .cloned(),
        }
    }
}

impl clap::Args for Nvidias {
    fn augment_args(command: Command) -> Command {
        command.args(ALL.iter().map(Setting::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Nvidias {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        for setting in &ALL {
            let Some(value) = setting.asked(matches) else { continue };
            let (flag, variable) = (setting.flag, setting.variable);
            match setting.answer {
                NoEffect(why) => given.without_effect.push(format!("--{flag} ({variable}) has no effect: {why}")),
                Refused(why) => {
                    let message = format!("--{flag}={value} ({variable}) cannot be had: {why}\n");
                    return Err(clap::Error::raw(ErrorKind::InvalidValue, message));
                }
            }
        }
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
