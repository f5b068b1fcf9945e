//! Reads the object's variables.

use crate::config;
use crate::object::settings::Settings;
use crate::runtime::isolate::variable;
use worker::Env;

/// The default of `FLUSH_SECONDS`.
const FLUSH_SECONDS: u64 = 60;

/// Reads the settings. An invalid one is logged and has its default; the Worker then answers 503 to
/// every request.
pub(super) fn read(env: &Env) -> Settings {
    let lookup = |name: &str| variable(env, name);
    Settings {
        flush_seconds: or_log(config::flush_seconds(lookup)).unwrap_or(FLUSH_SECONDS),
        thresholds: or_log(config::alert_thresholds(lookup)).unwrap_or_default(),
        route_case: or_log(config::route_case(lookup)).unwrap_or_default(),
    }
}

fn or_log<T>(value: Result<T, config::ConfigError>) -> Option<T> {
    value.map_err(|error| worker::console_error!("tollgate: {error}")).ok()
}
