//! Properties of the outbox: each report reaches its object, and counts once; the outbox is
//! bounded.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use tollgate::gateway::outbox::call_outcomes::PendingOutcomes;
use tollgate::gateway::outbox::queue::{Delivery, DeliveryKind, Outbox, Receipt};
use tollgate::metering::call_outcome::CallOutcome;
use tollgate::protocol::object_request::{Call, ObjectRequest, PendingReport};

const KEYS: usize = 5;
const KEY_LIMIT: usize = 3;
const OUTCOME_LIMIT: usize = 4;

fn name(key: usize) -> String {
    format!("key-{key}")
}

fn outcome(nonce: u64) -> CallOutcome {
    CallOutcome { nonce, status: 200, duration_ms: 1, used: None, cost: None }
}

fn nonces(outcomes: &[CallOutcome]) -> Vec<u64> {
    outcomes.iter().map(|outcome| outcome.nonce).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Ended(usize),
    Taken(usize),
    /// The oldest request that carried a part of the outbox ends.
    Settled(bool),
    TimerRang(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..KEYS).prop_map(Step::Ended),
        2 => (0..KEYS).prop_map(Step::Taken),
        2 => any::<bool>().prop_map(Step::Settled),
        1 => (0..KEYS).prop_map(Step::TimerRang),
    ];
    vec(step, 0..120)
}

/// The same rules, on one list of keys in the order of arrival.
#[derive(Default)]
struct NaiveOutcomes {
    keys: Vec<(usize, Vec<u64>, usize, bool)>,
}

impl NaiveOutcomes {
    fn key(&mut self, key: usize) -> &mut (usize, Vec<u64>, usize, bool) {
        if !self.keys.iter().any(|(other, ..)| *other == key) {
            if self.keys.len() == KEY_LIMIT {
                self.keys.remove(0);
            }
            self.keys.push((key, Vec::new(), 0, false));
        }
        self.keys.iter_mut().find(|(other, ..)| *other == key).unwrap()
    }

    fn trim(&mut self, key: usize) {
        let (_, nonces, unsent, _) = self.key(key);
        while nonces.len() > OUTCOME_LIMIT {
            nonces.remove(0);
        }
        *unsent = (*unsent).min(nonces.len());
    }

    fn ended(&mut self, key: usize, nonce: u64) -> bool {
        let (_, nonces, unsent, has_timer) = self.key(key);
        nonces.push(nonce);
        *unsent += 1;
        let needs_timer = !std::mem::replace(has_timer, true);
        self.trim(key);
        needs_timer
    }

    fn taken(&mut self, key: usize) -> Vec<u64> {
        let Some((_, nonces, unsent, _)) = self.keys.iter_mut().find(|(other, ..)| *other == key) else {
            return vec![];
        };
        *unsent = 0;
        let taken = std::mem::take(nonces);
        self.close();
        taken
    }

    fn put_back(&mut self, key: usize, taken: Vec<u64>) {
        if taken.is_empty() {
            return;
        }
        let (_, nonces, ..) = self.key(key);
        nonces.splice(0..0, taken);
        self.trim(key);
    }

    fn timer_rang(&mut self, key: usize) -> Vec<u64> {
        let Some((_, nonces, unsent, has_timer)) = self.keys.iter_mut().find(|(other, ..)| *other == key) else {
            return vec![];
        };
        *has_timer = false;
        let sent = nonces[nonces.len() - std::mem::take(unsent)..].to_vec();
        self.close();
        sent
    }

    fn close(&mut self) {
        self.keys.retain(|(_, nonces, _, has_timer)| !nonces.is_empty() || *has_timer);
    }
}

#[derive(Debug, Clone)]
enum UsageStep {
    LetThrough(usize),
    Denied,
    /// A request about a call carries the report.
    Attached,
    /// A delivery is in flight.
    Sent,
    /// The oldest request in flight ends. Whether the object received it, and whether its response
    /// arrived.
    Over {
        arrived: bool,
        answered: bool,
        written: bool,
    },
}

fn usage_steps() -> impl Strategy<Value = Vec<UsageStep>> {
    let over = (any::<bool>(), any::<bool>(), any::<bool>());
    let step = prop_oneof![
        3 => (0..3_usize).prop_map(UsageStep::LetThrough),
        2 => Just(UsageStep::Denied),
        3 => Just(UsageStep::Attached),
        1 => Just(UsageStep::Sent),
        4 => over.prop_map(|(arrived, answered, written)| UsageStep::Over { arrived, answered, written }),
    ];
    vec(step, 0..80)
}

/// Calls, denials, and how many calls of each path.
type CountedReport = (u64, u64, Vec<(String, u64)>);

/// Counts each report once, by its nonce, as an object does.
#[derive(Default)]
struct Counted {
    by_nonce: HashMap<u64, CountedReport>,
}

impl Counted {
    /// Returns whether the report is recorded. `written` is whether the object's write succeeds.
    fn receive(&mut self, report: PendingReport<'_>, written: bool) -> bool {
        if !written && !self.by_nonce.contains_key(&report.nonce) {
            return false;
        }
        let calls = report.unchecked.iter().map(|(count, _, path)| (path.into_owned(), count)).collect();
        let (uncounted, denied, ..) =
            self.by_nonce.entry(report.nonce).or_insert((report.uncounted, report.denied, calls));
        assert_eq!((*uncounted, *denied), (report.uncounted, report.denied), "a report keeps what it says");
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn outcomes_are_kept_as_the_rules_say(steps in steps()) {
        let mut pending = PendingOutcomes::with_limits(KEY_LIMIT, OUTCOME_LIMIT);
        let mut naive = NaiveOutcomes::default();
        let mut under_way = Vec::new();
        for (nonce, step) in (0..).zip(steps) {
            match step {
                Step::Ended(key) => {
                    prop_assert_eq!(pending.add(&name(key), 0, outcome(nonce)), naive.ended(key, nonce));
                }
                Step::Taken(key) => {
                    let taken = pending.take(&name(key));
                    prop_assert_eq!(nonces(&taken), naive.taken(key));
                    under_way.push((key, taken));
                }
                Step::Settled(is_recorded) if !under_way.is_empty() => {
                    let (key, taken) = under_way.remove(0);
                    if !is_recorded {
                        naive.put_back(key, nonces(&taken));
                        pending.put_back(&name(key), taken);
                    }
                }
                Step::Settled(_) => {}
                Step::TimerRang(key) => {
                    prop_assert_eq!(nonces(&pending.unsent(&name(key))), naive.timer_rang(key));
                }
            }
            prop_assert_eq!(pending.len(), naive.keys.len());
            prop_assert!(pending.len() <= KEY_LIMIT);
        }
        for key in 0..KEYS {
            let taken = pending.take(&name(key));
            prop_assert!(taken.len() <= OUTCOME_LIMIT);
            prop_assert_eq!(nonces(&taken), naive.taken(key));
        }
    }

    /// However requests fail, each call and each denial is counted once, as soon as one request
    /// succeeds.
    #[test]
    fn usage_is_counted_once(steps in usage_steps()) {
        let mut outbox = Outbox::default();
        let mut object = Counted::default();
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        let (mut denied, mut under_way) = (0, Vec::new());
        let receipt = |arrived: bool, answered: bool, recorded: bool| match (arrived && answered, recorded) {
            (false, _) => Receipt::Unknown,
            (true, true) => Receipt::Recorded,
            (true, false) => Receipt::NotRecorded,
        };
        for (nonce, step) in (1..).zip(steps) {
            match step {
                UsageStep::LetThrough(n) => {
                    let path = format!("/{n}");
                    let call = Call { id: "k", secret_hash: "", method: "GET", path: &path };
                    outbox.add_call(call, nonce, None).unwrap();
                    *expected.entry(path).or_default() += 1;
                }
                UsageStep::Denied => {
                    outbox.add_denied("k", nonce).unwrap();
                    denied += 1;
                }
                UsageStep::Attached => under_way.push(outbox.attach("k", nonce, nonce)),
                UsageStep::Sent => {
                    let mut run = Delivery::new("k", DeliveryKind::Usage);
                    if let Some(url) = run.next(&mut outbox, nonce, nonce) {
                        let Some(ObjectRequest::Report { report, .. }) = ObjectRequest::parse(&url) else {
                            panic!("{url}");
                        };
                        let recorded = object.receive(report, true);
                        run.handle_receipt(&mut outbox, nonce, receipt(true, true, recorded));
                    }
                }
                UsageStep::Over { arrived, answered, written } if !under_way.is_empty() => {
                    let attachment = under_way.remove(0);
                    let recorded = match attachment.report() {
                        Some(report) if arrived => object.receive(report, written),
                        _ => true,
                    };
                    outbox.handle_receipt("k", attachment, receipt(arrived, answered, recorded));
                }
                UsageStep::Over { .. } => {}
            }
        }
        // The remaining requests succeed, and later ones deliver the rest.
        for attachment in under_way {
            if let Some(report) = attachment.report() {
                object.receive(report, true);
            }
            outbox.handle_receipt("k", attachment, Receipt::Recorded);
        }
        for nonce in 1_000_000.. {
            let attachment = outbox.attach("k", nonce, nonce);
            let Some(report) = attachment.report() else { break };
            object.receive(report, true);
            outbox.handle_receipt("k", attachment, Receipt::Recorded);
        }
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        let mut counted_denials = 0;
        for (_, denied, calls) in object.by_nonce.into_values() {
            counted_denials += denied;
            for (path, count) in calls {
                *counted.entry(path).or_default() += count;
            }
        }
        prop_assert_eq!(counted, expected);
        prop_assert_eq!(counted_denials, denied);
    }
}
