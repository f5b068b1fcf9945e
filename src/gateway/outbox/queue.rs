//! The outbox of an isolate: what a request carries, what is delivered alone and when, and how the
//! results are handled.

use crate::gateway::outbox::call_outcomes::PendingOutcomes;
use crate::gateway::outbox::usage_reports::{MaybeCounted, SentReport, UsageReports};
use crate::metering::call_outcome::CallOutcome;
use crate::protocol::object_request::{Call, CallOutcomes, ObjectRequest, PendingReport};

/// How long usage waits for a request that carries it, in milliseconds.
pub const USAGE_DELAY: u32 = 5_000;
/// How long outcomes wait for one, in milliseconds.
pub const OUTCOME_DELAY: u32 = 1_000;
/// How long the response of a call waits until its object has recorded the outcome, in
/// milliseconds.
pub const LONGEST_WAIT: u32 = 5_000;

/// The pending reports of one isolate. Times are milliseconds on the isolate's clock; only
/// differences matter.
#[derive(Debug, Default)]
pub struct Outbox {
    usage: UsageReports,
    outcomes: PendingOutcomes,
}

/// What one request to an object carries. It is returned with the result of the request: see
/// [`Outbox::handle_receipt`].
#[derive(Debug, Default)]
pub struct Attachment {
    report: Option<SentReport>,
    outcomes: Vec<CallOutcome>,
    /// The outcomes, in the form of the request.
    text: String,
}

impl Attachment {
    fn new(report: Option<SentReport>, outcomes: Vec<CallOutcome>) -> Self {
        let text = CallOutcomes::text(&outcomes);
        Self { report, outcomes, text }
    }

    /// The usage in it.
    #[must_use]
    pub fn report(&self) -> Option<PendingReport<'_>> {
        self.report.as_ref().map(SentReport::report)
    }

    /// The outcomes in it.
    #[must_use]
    pub fn outcomes(&self) -> CallOutcomes<'_> {
        CallOutcomes(&self.text)
    }
}

/// The result of a request that carried reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// The object has recorded it.
    Recorded,
    /// The object has not recorded it.
    NotRecorded,
    /// No response: the object may have recorded it.
    Unknown,
}

impl Outbox {
    /// Adds a call that is let through uncounted. Returns whether a timer must be set, or `None` if
    /// there is no room: the call must then be refused.
    pub fn add_call(&mut self, call: Call<'_>, now: u64, maybe_counted: Option<MaybeCounted>) -> Option<bool> {
        self.usage.add_call(call.id, now, (call.method, call.path), maybe_counted)
    }

    /// Adds a call that was denied from the cache. Returns whether a timer must be set, or `None` if
    /// there is no room.
    pub fn add_denied(&mut self, id: &str, now: u64) -> Option<bool> {
        self.usage.add_denied(id, now)
    }

    /// Adds the outcome of a call. Returns whether a timer must be set.
    pub fn add_outcome(&mut self, id: &str, now: u64, outcome: CallOutcome) -> bool {
        self.outcomes.add(id, now, outcome)
    }

    /// What a request about a call of the key carries. `nonce` names the usage in it, if that has
    /// no name yet.
    pub fn attach(&mut self, id: &str, now: u64, nonce: u64) -> Attachment {
        Attachment::new(self.usage.next_report(id, now, nonce), self.outcomes.take(id))
    }

    /// Handles the result of a request that carried reports.
    pub fn handle_receipt(&mut self, id: &str, attachment: Attachment, receipt: Receipt) {
        self.usage_receipt(id, attachment.report.as_ref(), receipt);
        if receipt != Receipt::Recorded {
            self.outcomes.put_back(id, attachment.outcomes);
        }
    }

    fn usage_receipt(&mut self, id: &str, report: Option<&SentReport>, receipt: Receipt) {
        let Some(SentReport { nonce, .. }) = report else { return };
        match receipt {
            Receipt::Recorded => self.usage.acknowledge(id, *nonce),
            Receipt::NotRecorded => self.usage.requeue(id, *nonce),
            Receipt::Unknown => self.usage.mark_maybe_counted(id, *nonce),
        }
    }
}

/// What is delivered without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryKind {
    /// All usage of a key.
    Usage,
    /// The outcomes of a key's calls that have not been sent yet.
    Outcomes,
    /// The outcome of a call with an idempotency key. The client's response waits for it.
    Awaited(CallOutcome),
}

impl DeliveryKind {
    /// The delay of the delivery, in milliseconds.
    #[must_use]
    pub const fn delay(self) -> u32 {
        match self {
            Self::Usage => USAGE_DELAY,
            Self::Outcomes => OUTCOME_DELAY,
            Self::Awaited(_) => 0,
        }
    }
}

/// A delivery: one request after the other, until nothing is left or one fails.
#[derive(Debug)]
pub struct Delivery {
    id: String,
    kind: DeliveryKind,
    report: Option<SentReport>,
    is_over: bool,
}

impl Delivery {
    /// A delivery that has not begun.
    #[must_use]
    pub fn new(id: &str, kind: DeliveryKind) -> Self {
        Self { id: id.to_owned(), kind, report: None, is_over: false }
    }

    /// The id of the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next request to the object. `None` when nothing is left.
    pub fn next(&mut self, outbox: &mut Outbox, now: u64, nonce: u64) -> Option<String> {
        let Self { id, kind, .. } = self;
        match *kind {
            DeliveryKind::Usage => {
                self.report = if self.is_over { None } else { outbox.usage.next_report(id, now, nonce) };
                let Some(report) = &self.report else {
                    outbox.usage.end_timer(id);
                    return None;
                };
                Some(ObjectRequest::Report { id, report: report.report() }.to_url())
            }
            DeliveryKind::Outcomes | DeliveryKind::Awaited(_) if self.is_over => None,
            DeliveryKind::Outcomes => {
                self.is_over = true;
                let unsent = outbox.outcomes.unsent(id);
                (!unsent.is_empty()).then(|| outcomes_url(id, false, &unsent))
            }
            DeliveryKind::Awaited(outcome) => {
                self.is_over = true;
                Some(outcomes_url(id, true, &[outcome]))
            }
        }
    }

    /// Handles the result of a request. What failed stays for the next request about the key.
    /// Returns whether a timer must be set for outcomes.
    pub fn handle_receipt(&mut self, outbox: &mut Outbox, now: u64, receipt: Receipt) -> bool {
        outbox.usage_receipt(&self.id, self.report.take().as_ref(), receipt);
        self.is_over |= receipt != Receipt::Recorded;
        match self.kind {
            DeliveryKind::Awaited(outcome) if receipt != Receipt::Recorded => {
                outbox.add_outcome(&self.id, now, outcome)
            }
            DeliveryKind::Usage | DeliveryKind::Outcomes | DeliveryKind::Awaited(_) => false,
        }
    }
}

fn outcomes_url(id: &str, is_awaited: bool, outcomes: &[CallOutcome]) -> String {
    let text = CallOutcomes::text(outcomes);
    ObjectRequest::CallOutcomes { id, is_awaited, outcomes: CallOutcomes(&text) }.to_url()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOME: CallOutcome = CallOutcome { nonce: 7, status: 201, duration_ms: 30, used: None, cost: None };
    const CALL: Call<'static> = Call { id: "k", secret_hash: "", method: "GET", path: "/a" };

    fn attached(outbox: &mut Outbox, now: u64) -> (Attachment, Option<(u64, u64)>, String) {
        let attachment = outbox.attach("k", now, 1);
        let usage = attachment.report().map(|report| (report.uncounted, report.denied));
        let outcomes = attachment.outcomes().0.to_owned();
        (attachment, usage, outcomes)
    }

    #[test]
    fn a_request_carries_everything_and_returns_what_the_object_did_not_record() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.add_call(CALL, 0, None), Some(true));
        assert_eq!(outbox.add_denied("k", 0), Some(false), "one timer for usage");
        assert!(outbox.add_outcome("k", 0, OUTCOME), "and one for outcomes");
        for receipt in [Receipt::NotRecorded, Receipt::Unknown] {
            let (attachment, usage, outcomes) = attached(&mut outbox, 1);
            assert_eq!((usage, &*outcomes), (Some((1, 1)), "7.201.30"));
            outbox.handle_receipt("k", attachment, receipt);
        }
        let (attachment, usage, outcomes) = attached(&mut outbox, 1);
        assert_eq!((usage, &*outcomes), (Some((1, 1)), "7.201.30"));
        outbox.handle_receipt("k", attachment, Receipt::Recorded);
        let (attachment, usage, outcomes) = attached(&mut outbox, 1);
        assert_eq!((usage, &*outcomes), (None, ""));
        outbox.handle_receipt("k", attachment, Receipt::NotRecorded);
    }

    #[test]
    fn usage_that_may_have_been_recorded_keeps_its_name() {
        let mut outbox = Outbox::default();
        outbox.add_denied("k", 0);
        for (receipt, nonce, expected) in [
            (Receipt::NotRecorded, 1, 1),
            (Receipt::Unknown, 2, 2),
            (Receipt::NotRecorded, 3, 2),
            (Receipt::Recorded, 4, 2),
        ] {
            let attachment = outbox.attach("k", 0, nonce);
            assert_eq!(attachment.report().unwrap().nonce, expected);
            outbox.handle_receipt("k", attachment, receipt);
        }
    }

    #[test]
    fn usage_is_delivered_until_nothing_is_left() {
        let mut outbox = Outbox::default();
        let mut run = Delivery::new("k", DeliveryKind::Usage);
        assert_eq!((run.id(), DeliveryKind::Usage.delay()), ("k", 5_000));
        outbox.add_call(CALL, 0, Some(MaybeCounted { nonce: 9, requested_at: 0 }));
        outbox.add_denied("k", 0);
        let url = run.next(&mut outbox, 10, 5).unwrap();
        assert_eq!(url, "https://key.object/v1/settle?id=k&o=9:1:0:10&u=1:GET:/a");
        assert!(!run.handle_receipt(&mut outbox, 10, Receipt::Recorded));
        let url = run.next(&mut outbox, 10, 5).unwrap();
        assert_eq!(url, "https://key.object/v1/settle?id=k&o=5:0:1");
        assert!(!run.handle_receipt(&mut outbox, 10, Receipt::Recorded));
        assert_eq!(outbox.add_denied("k", 10), Some(false), "the timer is set until the run ends");
        assert!(run.next(&mut outbox, 10, 6).is_some());
        assert!(!run.handle_receipt(&mut outbox, 10, Receipt::Recorded));
        assert_eq!(run.next(&mut outbox, 10, 6), None);
        assert_eq!(outbox.add_denied("k", 10), Some(true));
    }

    #[test]
    fn a_run_ends_with_the_first_failure() {
        for receipt in [Receipt::NotRecorded, Receipt::Unknown] {
            let mut outbox = Outbox::default();
            let mut run = Delivery::new("k", DeliveryKind::Usage);
            outbox.add_denied("k", 0);
            assert!(run.next(&mut outbox, 0, 5).is_some());
            assert!(!run.handle_receipt(&mut outbox, 0, receipt));
            assert_eq!(run.next(&mut outbox, 0, 6), None);
            assert_eq!(outbox.add_denied("k", 0), Some(true), "its timer has ended");
            assert!(outbox.attach("k", 0, 7).report().is_some());
        }
    }

    #[test]
    fn deliveries_of_usage_carry_no_outcomes() {
        // An object does not read them there.
        let mut outbox = Outbox::default();
        let mut run = Delivery::new("k", DeliveryKind::Usage);
        outbox.add_denied("k", 0);
        outbox.add_outcome("k", 0, OUTCOME);
        assert_eq!(run.next(&mut outbox, 0, 5).unwrap(), "https://key.object/v1/settle?id=k&o=5:0:1");
        run.handle_receipt(&mut outbox, 0, Receipt::Recorded);
        assert_eq!(outbox.attach("k", 0, 6).outcomes().0, "7.201.30");
    }

    #[test]
    fn outcomes_are_delivered_once_alone_and_again_with_a_request() {
        for receipt in [Receipt::Recorded, Receipt::NotRecorded, Receipt::Unknown] {
            let mut outbox = Outbox::default();
            assert_eq!(DeliveryKind::Outcomes.delay(), 1_000);
            let mut run = Delivery::new("k", DeliveryKind::Outcomes);
            outbox.add_outcome("k", 0, OUTCOME);
            assert_eq!(run.next(&mut outbox, 1_000, 5).unwrap(), "https://key.object/v1/end?id=k#7.201.30");
            assert!(outbox.add_outcome("k", 1_000, CallOutcome { nonce: 8, ..OUTCOME }), "its timer has ended");
            assert!(!run.handle_receipt(&mut outbox, 1_000, receipt));
            assert_eq!(run.next(&mut outbox, 1_000, 6), None, "the next timer sends the next one");
            assert_eq!(outbox.attach("k", 1_000, 7).outcomes().0, "7.201.30,8.201.30");
        }
        let mut run = Delivery::new("k", DeliveryKind::Outcomes);
        assert_eq!(run.next(&mut Outbox::default(), 0, 1), None);
    }

    #[test]
    fn an_awaited_outcome_is_sent_immediately_and_queued_if_that_fails() {
        assert_eq!(DeliveryKind::Awaited(OUTCOME).delay(), 0);
        for (receipt, queued) in
            [(Receipt::Recorded, ""), (Receipt::NotRecorded, "7.201.30"), (Receipt::Unknown, "7.201.30")]
        {
            let mut outbox = Outbox::default();
            let mut run = Delivery::new("k", DeliveryKind::Awaited(OUTCOME));
            assert_eq!(run.next(&mut outbox, 0, 1).unwrap(), "https://key.object/v1/end?id=k&w=1#7.201.30");
            assert_eq!(run.handle_receipt(&mut outbox, 0, receipt), !queued.is_empty(), "a timer is set for it");
            assert_eq!(run.next(&mut outbox, 0, 1), None);
            let mut later = Delivery::new("k", DeliveryKind::Outcomes);
            assert_eq!(later.next(&mut outbox, 1_000, 1).is_some(), !queued.is_empty());
            assert_eq!(outbox.attach("k", 0, 2).outcomes().0, queued);
        }
    }
}
