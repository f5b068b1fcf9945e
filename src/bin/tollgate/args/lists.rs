//! Options that several commands share: paging and time ranges.

use clap::Args;

/// How much of a list to print.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub(crate) struct Paging {
    /// Print at most this many entries [default: one page of the server, 50]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    /// Print all entries
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Continue an earlier list from the cursor that it printed
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

/// A time range. Times are sent as given; the server validates them.
#[derive(Debug, Args)]
pub(crate) struct Range {
    /// Start of the range, RFC 3339, such as 2026-11-20T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// End of the range, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
}
