//! `tollgate usage` and `tollgate alerts`.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use crate::args::lists::{Paging, Range};
use crate::args::values::id;

#[derive(Debug, Subcommand)]
pub(crate) enum Usage {
    /// Show used and remaining quota of each policy of a key now
    Show {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
    },
    /// Show usage by hour and route class [default: the last 24 hours]
    Hours {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show usage by day and route class [default: the last 30 days]
    Days {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show usage by month, with growth, average and trend
    History {
        /// Id of the key
        #[arg(value_parser = id())]
        id: String,
        /// Number of months, at most 36 [default: 12]
        #[arg(long, value_name = "NUMBER")]
        months: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Alerts {
    /// Share of the quota, above 0 and up to 10 [default: 0.8, which is 80 %]
    #[arg(long, value_name = "SHARE")]
    pub(crate) threshold: Option<f64>,
    #[command(flatten)]
    pub(crate) paging: Paging,
    #[command(subcommand)]
    pub(crate) what: Option<AlertsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// List raised alerts and their webhook deliveries, newest first
    Deliveries {
        /// Only deliveries in this state: pending, delivered, dead (given up) or none (no webhook)
        #[arg(long, value_parser = PossibleValuesParser::new(["pending", "delivered", "dead", "none"]), hide_possible_values = true)]
        state: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
}
