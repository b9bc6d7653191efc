//! Patterns of numbers and names.
//!
//! Numbers: `+38044xxxxxxx` where `x` is one digit, `any` for any number, `withheld` for a caller who hides
//! his. Names: `gsm-*` where `*` is any text. There is nothing else, so that a pattern reads as it works.

use crate::dialplan::numbers::MAX_DIGITS;
use crate::terms::Number;

/// What numbers fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NumberPattern {
    /// Every number, a withheld one too.
    Any,
    /// A caller who hides his number.
    Withheld,
    /// These characters, where `x` is one digit.
    Digits(String),
}

impl NumberPattern {
    /// Reads one pattern.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "any" => return Ok(Self::Any),
            "withheld" => return Ok(Self::Withheld),
            _ => {}
        }
        let digits = text.trim().to_ascii_lowercase();
        let rest = digits.strip_prefix('+').unwrap_or(&digits);
        let good = |letter: u8| letter.is_ascii_digit() || matches!(letter, b'x' | b'*' | b'#');
        if rest.is_empty() || rest.len() > MAX_DIGITS || !rest.bytes().all(good) {
            return Err(format!(
                "'{text}' is no number pattern; write digits with x for one digit, 'any' or 'withheld'"
            ));
        }
        Ok(Self::Digits(digits))
    }

    /// Whether `number` fits.
    pub fn fits(&self, number: &Number) -> bool {
        match self {
            Self::Any => true,
            Self::Withheld => number.is_withheld(),
            Self::Digits(pattern) => {
                let text = number.reveal();
                pattern.len() == text.len()
                    && pattern.bytes().zip(text.bytes()).all(|(want, is)| letter_covers(want, is))
            }
        }
    }

    /// Whether every number that fits `other` fits this too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (Self::Withheld, Self::Withheld) => true,
            (Self::Digits(mine), Self::Digits(theirs)) => {
                mine.len() == theirs.len()
                    && mine
                        .bytes()
                        .zip(theirs.bytes())
                        .all(|(want, is)| want == is || letter_covers(want, is))
            }
            (Self::Withheld | Self::Digits(_), _) => false,
        }
    }
}

fn letter_covers(want: u8, is: u8) -> bool {
    want == is || (want == b'x' && is.is_ascii_digit())
}

/// Whether one of the patterns fits.
pub(crate) fn any_fits(patterns: &[NumberPattern], number: &Number) -> bool {
    patterns.iter().any(|pattern| pattern.fits(number))
}

/// Whether `name` fits `pattern`, where `*` is any text.
pub fn name_fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or("");
    // Each middle part at its first place is enough: what follows has the most room then.
    for part in parts {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn pattern(text: &str) -> NumberPattern {
        NumberPattern::parse(text).unwrap()
    }

    #[test]
    fn x_is_one_digit_and_any_is_any_number() {
        let table = [
            ("+38067xxxxxxx", "+380671234567", true),
            ("+38067xxxxxxx", "+38067123456", false),
            ("+38067xxxxxxx", "+380501234567", false),
            ("+38067XXXXXXX", "+380671234567", true),
            ("1xx", "112", true),
            ("1xx", "1*2", false),
            ("*11", "*11", true),
            ("any", "", true),
            ("any", "*100#", true),
            ("withheld", "", true),
            ("withheld", "1", false),
            ("112", "", false),
        ];
        for (text, number, fits) in table {
            assert_eq!(pattern(text).fits(&Number::new(number)), fits, "{text} {number}");
        }
        for text in ["", "+", "abc", "11y", "1 2", "[0-9]", "any1", &"1".repeat(40)] {
            assert!(NumberPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        let table = [
            ("any", "withheld", true),
            ("1xx", "112", true),
            ("1xx", "11x", true),
            ("11x", "1xx", false),
            ("1xx", "any", false),
            ("withheld", "any", false),
            ("1xx", "1*2", false),
        ];
        for (wide, narrow, covers) in table {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn a_star_in_a_name_is_any_text() {
        let table = [
            ("gsm-*", "gsm-1", true),
            ("gsm-*", "gsm-", true),
            ("gsm-*", "sip-1", false),
            ("*", "anything", true),
            ("*-1", "gsm-1", true),
            ("*-1", "gsm-12", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("gsm-1", "gsm-1", true),
            ("gsm-1", "gsm-12", false),
        ];
        for (pattern, name, fits) in table {
            assert_eq!(name_fits(pattern, name), fits, "{pattern} {name}");
        }
    }
}
