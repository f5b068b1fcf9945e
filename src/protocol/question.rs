//! What the Worker asks.

use std::fmt::Write as _;

/// An object's address is its name; the host only makes the URL a URL.
const BASE: &str = "https://key.object/v1/";

/// A question to a key's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question<'a> {
    /// May this call pass? If so, count it.
    Check(Check<'a>),
    /// Add what an isolate owes, without a call to judge.
    Settle {
        /// The key's id.
        id: &'a str,
        /// What is owed.
        debt: Debt,
    },
    /// What has the key used? Answered in JSON, as [`Usage`](super::Usage).
    Usage {
        /// The key's id.
        id: &'a str,
    },
    /// Read the key's row in D1 again, now.
    Refresh {
        /// The key's id.
        id: &'a str,
    },
    /// Take over the [`TierChange`](crate::profile::TierChange) in the body.
    Adopt {
        /// The key's id.
        id: &'a str,
    },
    /// Take over the tier's change in the body, and tell the other objects that it names.
    Relay {
        /// The key's id.
        id: &'a str,
    },
    /// How does the key stand, for whoever has its secret? Answered in lines: an [`Answer`](super::Answer), and for a known key
    /// what it is and what it has used, as [`Holding`](super::Holding) writes them.
    Holder {
        /// The key's id.
        id: &'a str,
        /// Hash of the presented secret.
        secret_hash: &'a str,
    },
    /// How many rows has the object written? For measurements.
    Stats {
        /// The key's id.
        id: &'a str,
    },
}

/// A call of a key, as far as it matters to the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The key's id.
    pub id: &'a str,
    /// Hash of the presented secret.
    pub secret_hash: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's path, as sent; method and path make the cost.
    pub path: &'a str,
}

/// One call to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Names this call: a repeat of the question with the same nonce is not counted again.
    pub nonce: u64,
    /// Whether this is such a repeat.
    pub is_repeat: bool,
    /// What the asking isolate owes to the key's counts.
    pub debt: Option<Debt>,
}

/// What an isolate owes to the counts of a key, under a nonce of its own: the object adds it once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Debt {
    /// Names the debt.
    pub nonce: u64,
    /// Calls that were let through while the object was out of reach.
    pub uncounted: u64,
    /// Calls that were denied without asking the object.
    pub denied: u64,
}

impl Question<'_> {
    /// The URL to fetch from the object.
    #[must_use]
    pub fn to_url(&self) -> String {
        let mut url = String::with_capacity(192);
        url.push_str(BASE);
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Check(check) => check.write(&mut url),
            Self::Settle { id, debt } => write!(url, "settle?id={id}").and_then(|()| debt.write(&mut url)),
            Self::Usage { id } => write!(url, "usage?id={id}"),
            Self::Refresh { id } => write!(url, "refresh?id={id}"),
            Self::Adopt { id } => write!(url, "adopt?id={id}"),
            Self::Relay { id } => write!(url, "relay?id={id}"),
            Self::Stats { id } => write!(url, "stats?id={id}"),
            Self::Holder { id, secret_hash } => write!(url, "holder?id={id}&h={secret_hash}"),
        };
        url
    }
}

impl Check<'_> {
    fn write(&self, url: &mut String) -> std::fmt::Result {
        let Call { id, secret_hash, method, path } = self.call;
        write!(url, "check?id={id}&h={secret_hash}&n={}", self.nonce)?;
        if self.is_repeat {
            url.push_str("&r=1");
        }
        if let Some(debt) = self.debt {
            debt.write(url)?;
        }
        // Last, because a path may hold everything but `?` and `#`: it needs no escapes here.
        write!(url, "&m={method}&p={path}")
    }
}

impl<'a> Question<'a> {
    /// Reads a question; `None` if it is none of ours.
    #[must_use]
    pub fn parse(url: &'a str) -> Option<Self> {
        let (name, query) = url.strip_prefix(BASE)?.split_once('?')?;
        let (query, path) = query.split_once("&p=").unwrap_or((query, "/"));
        let call = Call { id: "", secret_hash: "", method: "", path };
        let mut check = Check { call, nonce: 0, is_repeat: false, debt: None };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=')?;
            match name {
                "id" => check.call.id = value,
                "h" => check.call.secret_hash = value,
                "n" => check.nonce = value.parse().ok()?,
                "r" => check.is_repeat = value == "1",
                "o" => check.debt = Some(Debt::parse(value)?),
                "m" => check.call.method = value,
                _ => {}
            }
        }
        let id = check.call.id;
        match name {
            _ if id.is_empty() => None,
            "check" if !check.call.secret_hash.is_empty() => Some(Self::Check(check)),
            "settle" => Some(Self::Settle { id, debt: check.debt? }),
            "usage" => Some(Self::Usage { id }),
            "refresh" => Some(Self::Refresh { id }),
            "adopt" => Some(Self::Adopt { id }),
            "relay" => Some(Self::Relay { id }),
            "stats" => Some(Self::Stats { id }),
            "holder" if !check.call.secret_hash.is_empty() => {
                Some(Self::Holder { id, secret_hash: check.call.secret_hash })
            }
            _ => None,
        }
    }
}

impl Debt {
    fn write(self, url: &mut String) -> std::fmt::Result {
        let Self { nonce, uncounted, denied } = self;
        write!(url, "&o={nonce}:{uncounted}:{denied}")
    }

    fn parse(value: &str) -> Option<Self> {
        let mut numbers = value.split(':').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        Some(Self { nonce: number()?, uncounted: number()?, denied: number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00ff";

    /// Old and new versions of these lines meet during every deployment.
    #[test]
    fn questions_are_frozen() {
        let call = Call { id: "abc", secret_hash: HASH, method: "GET", path: "/a&p=b%2F" };
        let plain = Check { call, nonce: 7, is_repeat: false, debt: None };
        let debt = Debt { nonce: 9, uncounted: 2, denied: 3 };
        let full = Check { is_repeat: true, debt: Some(debt), ..plain.clone() };
        for (question, url) in [
            (Question::Check(plain), "https://key.object/v1/check?id=abc&h=00ff&n=7&m=GET&p=/a&p=b%2F"),
            (Question::Check(full), "https://key.object/v1/check?id=abc&h=00ff&n=7&r=1&o=9:2:3&m=GET&p=/a&p=b%2F"),
            (Question::Settle { id: "abc", debt }, "https://key.object/v1/settle?id=abc&o=9:2:3"),
            (Question::Usage { id: "abc" }, "https://key.object/v1/usage?id=abc"),
            (Question::Refresh { id: "abc" }, "https://key.object/v1/refresh?id=abc"),
            (Question::Adopt { id: "abc" }, "https://key.object/v1/adopt?id=abc"),
            (Question::Relay { id: "abc" }, "https://key.object/v1/relay?id=abc"),
            (Question::Stats { id: "abc" }, "https://key.object/v1/stats?id=abc"),
            (Question::Holder { id: "abc", secret_hash: HASH }, "https://key.object/v1/holder?id=abc&h=00ff"),
        ] {
            assert_eq!(question.to_url(), url);
            assert_eq!(Question::parse(url), Some(question));
        }
        let newer = Question::parse("https://key.object/v1/usage?id=abc&new=1");
        assert_eq!(newer, Some(Question::Usage { id: "abc" }));
        for wrong in [
            "",
            "https://key.object/v2/usage?id=a",
            "https://key.object/v1/usage?",
            "https://key.object/v1/check?id=a",
            "https://key.object/v1/holder?id=a",
            "https://key.object/v1/x?id=a",
        ] {
            assert_eq!(Question::parse(wrong), None, "{wrong}");
        }
    }
}
