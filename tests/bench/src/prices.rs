//! What AWS charges, and quantities of what it charges for.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The list prices in `prices.json`, with their date.
#[derive(Clone, Debug, Deserialize)]
pub struct Prices {
    pub date: String,
    pub region: String,
    prices: BTreeMap<Kind, Price>,
}

#[derive(Clone, Debug, Deserialize)]
struct Price {
    dollars: f64,
    /// The number of pieces for which `dollars` is the price.
    per: f64,
}

/// A kind of thing that AWS charges for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    GatewayRequests,
    Invocations,
    GbSeconds,
    WriteUnits,
    ReadUnits,
    QueueRequests,
    ScheduleInvocations,
    LogBytes,
    Alarms,
    Metrics,
    Emails,
    TextMessages,
}

/// Quantities of each kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage(BTreeMap<Kind, f64>);

impl Prices {
    pub fn read() -> Result<Self> {
        serde_json::from_str(include_str!("../prices.json")).context("prices.json has a price of each kind")
    }

    /// The price of a quantity in dollars.
    ///
    /// # Panics
    ///
    /// If `prices.json` has no price of this kind.
    pub fn dollars(&self, kind: Kind, quantity: f64) -> f64 {
        let price = self.prices.get(&kind).unwrap_or_else(|| panic!("prices.json has no price of {kind:?}"));
        quantity * price.dollars / price.per
    }
}

impl Usage {
    pub fn add(&mut self, kind: Kind, quantity: f64) {
        *self.0.entry(kind).or_default() += quantity;
    }

    pub fn get(&self, kind: Kind) -> f64 {
        self.0.get(&kind).copied().unwrap_or_default()
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayRequests => "API Gateway: requests",
            Self::Invocations => "Lambda: invocations",
            Self::GbSeconds => "Lambda: GB-seconds",
            Self::WriteUnits => "DynamoDB: write units",
            Self::ReadUnits => "DynamoDB: read units",
            Self::QueueRequests => "SQS: requests",
            Self::ScheduleInvocations => "EventBridge Scheduler: invocations",
            Self::LogBytes => "CloudWatch: bytes of logs",
            Self::Alarms => "CloudWatch: alarms",
            Self::Metrics => "CloudWatch: metrics",
            Self::Emails => "SES: e-mails",
            Self::TextMessages => "SNS: text messages",
        }
    }
}
