//! `tollgate reservations`.

use clap::{Args, Subcommand};

use crate::args::values::id;

#[derive(Debug, Subcommand)]
pub(crate) enum Reservations {
    /// Reserve tokens and requests of a key, if every policy has that many left
    Create {
        /// Id of the key
        #[arg(value_parser = id())]
        key: String,
        /// Tokens to reserve
        #[arg(long)]
        tokens: u64,
        /// Requests to reserve [default: 0]
        #[arg(long)]
        requests: Option<u64>,
        /// Time after which the reservation lapses and is charged, 1 to 3600 [default: 600]
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
    },
    /// List the open reservations of a key
    List {
        /// Id of the key
        #[arg(value_parser = id())]
        key: String,
    },
    /// Charge what was used of a reservation, and give back the rest
    Settle {
        #[command(flatten)]
        reservation: Named,
        /// Tokens that were used
        #[arg(long)]
        tokens: u64,
        /// Requests that were used [default: those that were reserved]
        #[arg(long)]
        requests: Option<u64>,
    },
    /// Give back all of a reservation
    Release {
        #[command(flatten)]
        reservation: Named,
    },
}

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Named {
    /// Id of the key
    #[arg(value_parser = id())]
    pub(crate) key: String,
    /// Id of the reservation, from `reservations create` or `list`
    #[arg(value_parser = id())]
    pub(crate) reservation: String,
}
