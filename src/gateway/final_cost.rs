//! The final cost of a call, as the origin's answer says it.

use crate::metering::call_outcome::FinalCost;
use crate::tokens::usage_reader::reported_by_header;

/// Reads the field `X-Tollgate-Cost`. A call keeps its cost without it, and if it is no number or
/// more than one.
#[must_use]
pub fn final_cost(field: Option<&str>) -> FinalCost {
    field.and_then(reported_by_header).map_or(FinalCost::AsCharged, FinalCost::Requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_cost_and_anything_else_changes_nothing() {
        for (field, requests) in [("0", 0), ("7", 7), (" 007\t", 7)] {
            assert_eq!(final_cost(Some(field)), FinalCost::Requests(requests), "{field}");
        }
        for field in ["", " ", "-1", "+1", "1.0", "1e0", "0x0", "0, 0", "0;a", "zero", "٠", "0 0"] {
            assert_eq!(final_cost(Some(field)), FinalCost::AsCharged, "{field}");
        }
        assert_eq!(final_cost(None), FinalCost::AsCharged);
        // At least what any call is charged.
        let FinalCost::Requests(huge) = final_cost(Some(&"9".repeat(400))) else { panic!() };
        assert!(huge >= 10_000);
    }
}
