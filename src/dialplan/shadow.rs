//! Routes that no call can reach, because an earlier route takes every call that would fit.

use crate::dialplan::hours::{Hours, LocalTime};
use crate::dialplan::pattern::NumberPattern;
use crate::dialplan::route::{From, When};

/// Whether every call that fits `later` fits `earlier`. Says no where it is not sure.
pub(crate) fn shadows(earlier: &When, later: &When) -> bool {
    earlier.share.is_none_or(|share| later.share.is_some_and(|theirs| theirs <= share))
        && from_covers(earlier.from.as_ref(), later.from.as_ref())
        && numbers_cover(earlier.number.as_deref(), later.number.as_deref())
        && numbers_cover(earlier.caller.as_deref(), later.caller.as_deref())
        && hours_cover(earlier, later)
}

fn from_covers(earlier: Option<&From>, later: Option<&From>) -> bool {
    let Some(earlier) = earlier else { return true };
    let Some(later) = later else { return false };
    // A route whose patterns match no trunk is reached by nobody anyway: that has its own warning.
    (later.operators || !later.trunks.is_empty())
        && (earlier.operators || !later.operators)
        && later.trunks.iter().all(|trunk| earlier.trunks.contains(trunk))
}

fn numbers_cover(earlier: Option<&[NumberPattern]>, later: Option<&[NumberPattern]>) -> bool {
    let any = [NumberPattern::Any];
    let (earlier, later) = (earlier.unwrap_or(&any), later.unwrap_or(&any));
    later.iter().all(|narrow| earlier.iter().any(|wide| wide.covers(narrow)))
}

fn hours_cover(earlier: &When, later: &When) -> bool {
    if earlier.hours.is_none() && earlier.except_hours.is_none() {
        return true;
    }
    let open = |when: &When, at| {
        when.hours.as_ref().is_none_or(|hours| hours.contain(at))
            && !when.except_hours.as_ref().is_some_and(|hours| hours.contain(at))
    };
    // Between two edges nothing changes, so the edges speak for every minute.
    let spans = [&earlier.hours, &earlier.except_hours, &later.hours, &later.except_hours];
    let edges = spans.into_iter().flatten().flat_map(Hours::edges).chain([LocalTime::MONDAY]);
    edges.into_iter().all(|at| open(earlier, at) || !open(later, at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn hours(text: &str) -> Option<Hours> {
        Some(Hours::parse(text).unwrap())
    }

    #[test]
    fn a_narrower_route_after_a_wider_one_is_never_reached() {
        let wide = When { hours: hours("mon-fri 08:00-18:00"), ..When::default() };
        let lunch = When { hours: hours("mon 12:00-13:00"), ..When::default() };
        let evening = When { hours: hours("mon 17:00-19:00"), ..When::default() };
        let all = When::default();
        assert!(shadows(&wide, &lunch));
        assert!(!shadows(&wide, &evening));
        assert!(shadows(&all, &wide) && !shadows(&wide, &all));
    }

    #[test]
    fn a_share_leaves_the_rest_to_the_next_route() {
        let tenth = When { share: Some(10), ..When::default() };
        let fifth = When { share: Some(20), ..When::default() };
        assert!(!shadows(&tenth, &When::default()));
        assert!(!shadows(&tenth, &fifth) && shadows(&fifth, &tenth));
    }

    #[test]
    fn another_origin_is_not_shadowed() {
        let operators = When { from: Some(From { operators: true, trunks: vec![] }), ..When::default() };
        let trunk =
            When { from: Some(From { operators: false, trunks: vec!["a".into()] }), ..When::default() };
        let nobody = When { from: Some(From::default()), ..When::default() };
        assert!(!shadows(&operators, &trunk) && !shadows(&trunk, &operators) && !shadows(&trunk, &nobody));
        assert!(shadows(&When::default(), &operators) && !shadows(&operators, &When::default()));
    }
}
