//! Money: an integer number of minor units and a currency.

use std::{fmt, str::FromStr};

use iso_currency::{Currency as Iso, Flag, IntoEnumIterator};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// The largest amount, in minor units. It has 15 significant digits, so that a
/// JSON reader that keeps numbers as doubles (IEEE 754, binary64) reads every
/// amount exactly.
pub const MAX_MINOR_UNITS: u64 = 999_999_999_999_999;

/// A currency of ISO 4217 that is legal tender, and that has at most two
/// decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency(Iso);

/// The error for a text that is not an accepted currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the ISO 4217 code of a currency that is in use and has at most two decimals, such as USD")]
pub struct InvalidCurrency;

impl Currency {
    /// United States dollar: the default if a request names no currency.
    pub const USD: Self = Self(Iso::USD);

    /// Japanese yen, which has no decimals.
    pub const JPY: Self = Self(Iso::JPY);

    /// Returns all accepted currencies, sorted by code.
    pub fn all() -> impl Iterator<Item = Self> {
        let mut all: Vec<_> = Iso::iter().filter_map(|iso| Self::accepted(iso).ok()).collect();
        all.sort_unstable_by_key(|currency| currency.code());
        all.into_iter()
    }

    /// Accepts a currency in which a price can be set: people pay with the
    /// currency, and it has at most two decimals.
    fn accepted(iso: Iso) -> Result<Self, InvalidCurrency> {
        let is_paid_with = iso.flags().iter().all(|flag| match flag {
            // In ISO 4217 the bolívar has two codes that are in force, VES and VED.
            // Banks and shops use VES, but the crate says that VED has replaced VES.
            Flag::Superseded(_) => iso == Iso::VES,
            // A currency with any other flag is not money with which people pay:
            // it is a fund, a unit of account, a metal or a code for tests.
            _ => false,
        });
        if is_paid_with { Self::known(iso) } else { Err(InvalidCurrency) }
    }

    /// Accepts a currency that has at most two decimals, even if it was withdrawn.
    fn known(iso: Iso) -> Result<Self, InvalidCurrency> {
        if iso.exponent().is_some_and(|decimals| decimals <= 2) { Ok(Self(iso)) } else { Err(InvalidCurrency) }
    }

    /// Returns the number of decimals of an amount: 2 for USD, 0 for JPY.
    pub fn decimals(self) -> u32 {
        u32::from(self.0.exponent().unwrap_or_default())
    }

    /// Returns the three letters of ISO 4217.
    pub fn code(self) -> &'static str {
        self.0.code()
    }
}

impl Default for Currency {
    fn default() -> Self {
        Self::USD
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;

    fn from_str(code: &str) -> Result<Self, InvalidCurrency> {
        Iso::from_code(code).ok_or(InvalidCurrency).and_then(Self::accepted)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// Reads a currency from a table, an event or another service. A withdrawn
/// currency is accepted, although no price can be set in it any more: an order
/// may be older than the withdrawal.
impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Iso::from_code(&code).ok_or(InvalidCurrency).and_then(Self::known).map_err(de::Error::custom)
    }
}

/// An amount of money in a currency, never negative. It is serialised as minor
/// units. The public API has an [`Amount`] and a [`Currency`] instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    minor: u64,
    currency: Currency,
}

/// The reasons why a computation with money has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The amount is larger than [`MAX_MINOR_UNITS`].
    #[error("the amount is too large")]
    TooLarge,
    /// The amounts to be added have two currencies.
    #[error("amounts in {0} and {1} can't be added")]
    MixedCurrencies(Currency, Currency),
    /// The amount has more decimals than the currency.
    #[error("must have at most {0} decimals")]
    TooManyDecimals(u32),
}

impl Money {
    /// Returns `minor` minor units (cents for USD) of `currency`.
    pub fn from_minor(minor: u64, currency: Currency) -> Result<Self, MoneyError> {
        if minor <= MAX_MINOR_UNITS { Ok(Self { minor, currency }) } else { Err(MoneyError::TooLarge) }
    }

    /// Returns the amount 0 in `currency`.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Returns the minor units: cents for USD.
    pub fn minor(self) -> u64 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// Returns the sum of two amounts of one currency.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::MixedCurrencies(self.currency, other.currency));
        }
        Self::from_minor(self.minor.saturating_add(other.minor), self.currency)
    }

    /// Returns the amount multiplied by `quantity`.
    pub fn times(self, quantity: u32) -> Result<Self, MoneyError> {
        Self::from_minor(self.minor.saturating_mul(u64::from(quantity)), self.currency)
    }

    /// Returns the amount as a decimal number, without its currency.
    pub fn amount(self) -> Amount {
        Amount(Decimal::new(self.minor as i64, self.currency.decimals()))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency)
    }
}

/// An amount whose currency is not known yet: a decimal number in JSON. The
/// amount is read from the number's digits, without a floating-point number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(Decimal);

impl Amount {
    /// Returns the amount as money of `currency`.
    pub fn of(self, currency: Currency) -> Result<Money, MoneyError> {
        let decimals = currency.decimals();
        let mut exact = self.0.normalize();
        if exact.scale() > decimals {
            return Err(MoneyError::TooManyDecimals(decimals));
        }
        exact.rescale(decimals);
        let minor = u64::try_from(exact.mantissa()).map_err(|_| MoneyError::TooLarge)?;
        Money::from_minor(minor, currency)
    }
}

/// The error for a text that is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number from 0 with at most two decimals, such as 19.99")]
pub struct InvalidAmount;

impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        // Only plain digits are accepted: 1e2 is valid JSON, but nobody writes
        // a price that way.
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.len() <= 24;
        let decimal = Decimal::from_str_exact(text).map_err(|_| InvalidAmount)?;
        if plain && decimal.normalize().scale() <= 2 { Ok(Self(decimal)) } else { Err(InvalidAmount) }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer)?.get().parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Amount, Currency, MAX_MINOR_UNITS, Money, MoneyError};

    fn amount(json: &str) -> Result<Amount, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn three_times_19_99_is_59_97() {
        let price = amount("19.99").unwrap().of(Currency::USD).unwrap();
        let total = price.times(3).unwrap();
        assert_eq!(total.minor(), 5997);
        assert_eq!(serde_json::to_string(&total.amount()).unwrap(), "59.97");
        assert_eq!(total.to_string(), "59.97 USD");
    }

    #[test]
    fn only_a_plain_number_with_at_most_two_decimals_is_an_amount() {
        for json in ["1.005", "-1", "-0.01", "1e2", "\"19.99\"", "null", "true", "[]", "{}", "0.001", "1E400"] {
            assert!(amount(json).is_err(), "{json}");
        }
        assert!(amount("19.9900000000000000001").is_err());
        assert!(amount("99999999999999999999999999999999999999").is_err());
    }

    #[test]
    fn an_amount_in_a_currency_without_decimals_must_be_whole() {
        let yen: Currency = "JPY".parse().unwrap();
        assert_eq!(amount("100").unwrap().of(yen).unwrap().minor(), 100);
        assert_eq!(amount("100.5").unwrap().of(yen), Err(MoneyError::TooManyDecimals(0)));
        assert_eq!(Money::from_minor(100, yen).unwrap().to_string(), "100 JPY");
    }

    #[test]
    fn metals_test_codes_and_currencies_with_three_decimals_are_refused() {
        for code in ["", "usd", "US", "USDX", "XAU", "XXX", "XTS", "KWD", "ZZZ"] {
            assert!(code.parse::<Currency>().is_err(), "{code}");
        }
    }

    #[test]
    fn withdrawn_currencies_and_units_of_account_are_refused() {
        let withdrawn = ["BGN", "CUC", "HRK", "SLL", "ZWL", "ANG", "DEM", "VEF"];
        let units_of_account =
            ["BOV", "CHE", "CHW", "CLF", "COU", "MXV", "USN", "UYI", "UYW", "XAD", "XDR", "XSU", "XUA"];
        for code in [&withdrawn[..], &units_of_account].concat() {
            assert!(code.parse::<Currency>().is_err(), "{code}");
        }
    }

    #[test]
    fn an_amount_in_a_withdrawn_currency_is_still_read() {
        let lev: Money = serde_json::from_str(r#"{"minor": 1999, "currency": "BGN"}"#).unwrap();
        assert_eq!(lev.to_string(), "19.99 BGN");
        for code in ["KWD", "XAU", "lev"] {
            assert!(serde_json::from_value::<Currency>(code.into()).is_err(), "{code}");
        }
    }

    /// ISO 4217, list one, of January 2026, without funds and without the
    /// currencies that have three decimals.
    #[test]
    fn all_other_currencies_of_the_standard_are_accepted_with_their_decimals() {
        let two = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF \
                   CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL \
                   HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT \
                   MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB \
                   SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH \
                   USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";
        let none = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
        let with = |codes: &'static str, decimals| codes.split_whitespace().map(move |code| (code, decimals));
        let mut expected: Vec<_> = with(two, 2).chain(with(none, 0)).collect();
        expected.sort_unstable();
        let all: Vec<_> = Currency::all().map(|currency| (currency.code(), currency.decimals())).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn amounts_in_two_currencies_cannot_be_added() {
        let (usd, eur) = (Currency::USD, "EUR".parse().unwrap());
        assert_eq!(Money::zero(usd).plus(Money::zero(eur)), Err(MoneyError::MixedCurrencies(usd, eur)));
    }

    #[test]
    fn too_large_an_amount_is_an_error_and_never_wraps() {
        let most = Money::from_minor(MAX_MINOR_UNITS, Currency::USD).unwrap();
        assert_eq!(most.times(2), Err(MoneyError::TooLarge));
        assert_eq!(most.times(u32::MAX), Err(MoneyError::TooLarge));
        assert_eq!(most.plus(most), Err(MoneyError::TooLarge));
        assert_eq!(Money::from_minor(u64::MAX, Currency::USD), Err(MoneyError::TooLarge));
    }

    proptest! {
        #[test]
        fn every_amount_is_the_same_after_it_was_written_and_read(
            minor in 0..=MAX_MINOR_UNITS,
            code in prop::sample::select(vec!["USD", "EUR", "JPY"]),
        ) {
            let money = Money::from_minor(minor, code.parse().unwrap()).unwrap();
            let json = serde_json::to_string(&money.amount()).unwrap();
            prop_assert_eq!(amount(&json).unwrap().of(money.currency()), Ok(money));
            // A reader that keeps numbers as doubles gets the same amount.
            let double: f64 = serde_json::from_str(&json).unwrap();
            let rewritten = serde_json::to_string(&double).unwrap();
            let reread = amount(rewritten.trim_end_matches(".0")).unwrap().of(money.currency());
            prop_assert_eq!(reread, Ok(money));
        }

        #[test]
        fn a_sum_of_lines_is_the_sum_of_their_minor_units(lines in prop::collection::vec((0u64..1_000_000, 1u32..1000), 0..50)) {
            let total = lines.iter().try_fold(Money::zero(Currency::USD), |sum, (price, quantity)| {
                sum.plus(Money::from_minor(*price, Currency::USD)?.times(*quantity)?)
            });
            let expected: u64 = lines.iter().map(|(price, quantity)| price * u64::from(*quantity)).sum();
            prop_assert_eq!(total.map(Money::minor), Ok(expected));
        }
    }
}
