//! Exact decimals, as far as 38 digits go; beyond that is an error, never a rounded number.

use std::cmp::Ordering;

/// `mantissa / 10^scale`.
#[derive(Debug, Clone, Copy)]
pub(in crate::map::rules) struct Decimal {
    mantissa: i128,
    scale: u32,
}

/// 10^38 is the last power of ten in an `i128`.
const SCALE_MAX: u32 = 38;

impl Decimal {
    /// Reads `-12.50` or `12`; `None` of anything else, and of what is longer than it can be held.
    pub(in crate::map::rules) fn parse(text: &str) -> Option<Self> {
        let (sign, digits) = match text.as_bytes() {
            [b'-', digits @ ..] => (-1, digits),
            digits => (1, digits),
        };
        let mut mantissa: i128 = 0;
        let mut scale = None;
        let mut count = 0_u32;
        for &byte in digits {
            match byte {
                b'0'..=b'9' => {
                    mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                    count += 1;
                    scale = scale.map(|scale: u32| scale + 1);
                }
                b'.' if scale.is_none() && count > 0 => scale = Some(0),
                _ => return None,
            }
        }
        let scale = scale.unwrap_or_default();
        (count > 0 && scale <= SCALE_MAX && digits.last() != Some(&b'.'))
            .then_some(Self { mantissa: sign * mantissa, scale })
    }

    pub(in crate::map::rules) fn whole(number: i128) -> Self {
        Self { mantissa: number, scale: 0 }
    }

    /// Both with the larger scale.
    fn aligned(self, other: Self) -> Option<(i128, i128, u32)> {
        let scale = self.scale.max(other.scale);
        let scaled = |decimal: Self| decimal.mantissa.checked_mul(10_i128.checked_pow(scale - decimal.scale)?);
        Some((scaled(self)?, scaled(other)?, scale))
    }

    pub(in crate::map::rules) fn plus(self, other: Self) -> Option<Self> {
        let (a, b, scale) = self.aligned(other)?;
        Some(Self { mantissa: a.checked_add(b)?, scale })
    }

    pub(in crate::map::rules) fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self { mantissa: other.mantissa.checked_neg()?, scale: other.scale })
    }

    pub(in crate::map::rules) fn times(self, other: Self) -> Option<Self> {
        let scale = self.scale + other.scale;
        let mantissa = self.mantissa.checked_mul(other.mantissa)?;
        (scale <= SCALE_MAX).then_some(Self { mantissa, scale })
    }

    pub(in crate::map::rules) fn negated(self) -> Option<Self> {
        Some(Self { mantissa: self.mantissa.checked_neg()?, scale: self.scale })
    }

    /// The whole part, towards zero.
    pub(in crate::map::rules) fn truncated(self) -> i128 {
        10_i128.checked_pow(self.scale).map_or(0, |one| self.mantissa / one)
    }

    #[expect(clippy::cast_precision_loss, reason = "who asks for a double asks for that")]
    pub(in crate::map::rules) fn to_float(self) -> f64 {
        // By way of its text: the nearest double.
        self.to_string().parse().unwrap_or(self.mantissa as f64)
    }

    pub(in crate::map::rules) fn compare(self, other: Self) -> Ordering {
        match self.aligned(other) {
            Some((a, b, _)) => a.cmp(&b),
            // One does not fit the other's scale: whole parts decide, or the digits behind the point.
            None => {
                let by_whole = self.truncated().cmp(&other.truncated());
                by_whole.then_with(|| self.rest().cmp(&other.rest()))
            }
        }
    }

    /// The digits behind the point, with 38 places: below 10^38, which fits.
    fn rest(self) -> i128 {
        let one = 10_i128.checked_pow(self.scale).unwrap_or(i128::MAX);
        (self.mantissa % one) * 10_i128.checked_pow(SCALE_MAX - self.scale).unwrap_or_default()
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.compare(*other) == Ordering::Equal
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let places = self.scale as usize;
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (whole, rest) = padded.split_at(padded.len() - places);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        match places {
            0 => write!(f, "{sign}{whole}"),
            _ => write!(f, "{sign}{whole}.{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn digits_are_kept() {
        for text in [
            "0",
            "19.90",
            "-0.05",
            "100",
            "99999999999999999999999999999999999999",
            "0.00000000000000000000000000000000000001",
        ] {
            assert_eq!(decimal(text).to_string(), text);
        }
        for text in ["", "-", ".5", "5.", "1e3", "NaN", "1.2.3", "999999999999999999999999999999999999999"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn sums_and_products_are_exact() {
        assert_eq!(decimal("0.1").plus(decimal("0.2")).expect("small").to_string(), "0.3");
        assert_eq!(decimal("19.90").times(decimal("3")).expect("small").to_string(), "59.70");
        assert_eq!(decimal("1").minus(decimal("0.05")).expect("small").to_string(), "0.95");
        assert!(decimal("99999999999999999999999999999999999999").times(decimal("10")).is_none());
        assert_eq!(decimal("-7.9").truncated(), -7);
    }

    #[test]
    fn what_differs_in_zeros_alone_is_equal() {
        assert_eq!(decimal("1.50"), decimal("1.5"));
        assert_eq!(
            decimal("99999999999999999999999999999999999999").compare(decimal("0.00000000000000000001")),
            Ordering::Greater
        );
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_numbers(a in -10_000_i64..10_000, b in -10_000_i64..10_000, s in 0_u32..4, t in 0_u32..4) {
            let make = |mantissa: i64, scale| Decimal { mantissa: mantissa.into(), scale };
            let common = i128::from(a) * 10_i128.pow(3 - s);
            let other = i128::from(b) * 10_i128.pow(3 - t);
            prop_assert_eq!(make(a, s).compare(make(b, t)), common.cmp(&other));
            prop_assert_eq!(decimal(&make(a, s).to_string()), make(a, s));
        }
    }
}
