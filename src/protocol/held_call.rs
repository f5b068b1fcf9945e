//! The hold of a call, as it is sent to the key's object.

use crate::keys::token_route::{TokenTerms, UsageFormat};
use crate::tokens::request::TokenHold;
use std::fmt::Write as _;

/// The hold of a call on a route that spends tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldCall {
    /// The most that it may use.
    pub hold: TokenHold,
    /// The terms by which that was computed. The object compares them with its own.
    pub terms: TokenTerms,
    /// Whether less output than it asks for can be held, because a cap can be written into the
    /// request.
    pub can_be_clamped: bool,
}

impl HeldCall {
    /// Appends the value of the parameter: the numbers of the hold, then the terms.
    pub(super) fn write(&self, url: &mut String) -> std::fmt::Result {
        let Self { hold: TokenHold { input, output_per_answer, answers }, terms, can_be_clamped } = self;
        write!(url, "{input}:{output_per_answer}:{answers}:")?;
        write_terms(*terms, url)?;
        url.push_str(if *can_be_clamped { ":c" } else { "" });
        Ok(())
    }

    /// Reads that value. Further fields are ignored.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split(':');
        let mut number = || fields.next()?.parse().ok();
        let hold = TokenHold { input: number()?, output_per_answer: number()?, answers: number()? };
        let terms = parse_terms(&mut fields)?;
        Some(Self { hold, terms, can_be_clamped: fields.any(|field| field == "c") })
    }
}

/// Appends the terms of a route.
pub(super) fn write_terms(terms: TokenTerms, line: &mut String) -> std::fmt::Result {
    let TokenTerms { format, default_output, max_output, bytes_per_token, max_input } = terms;
    // 0 stands for none, which no row has.
    let max_input = max_input.unwrap_or(0);
    write!(line, "{}:{default_output}:{max_output}:{bytes_per_token}:{max_input}", format.as_str())
}

/// Reads the terms of a route.
pub(super) fn parse_terms<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<TokenTerms> {
    let format = UsageFormat::parse(fields.next()?)?;
    let mut number = || fields.next()?.parse().ok();
    Some(TokenTerms {
        format,
        default_output: number()?,
        max_output: number()?,
        bytes_per_token: number()?,
        max_input: Some(number()?).filter(|most| *most > 0),
    })
}
