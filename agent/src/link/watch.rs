//! The subscriptions to verifiers' presence, which follow what the machine needs.
//!
//! A broker sends what it retains right behind the answer to a subscription, and nothing marks the end of that. So a
//! second subscription, to a topic that retains nothing, follows the one to all verifiers: what arrives before its
//! answer is handed over together, and the device chooses among all verifiers and not the first that arrives.
//!
//! Invariant: answers to subscriptions come in the order of the subscriptions.

use dunlin_hlm::device::{CANDIDATES_MAX, PresenceScope};
use dunlin_link::Publisher;
use dunlin_wire::VerifierId;
use dunlin_wire::topic::{Topic, TopicName, VERIFIER_PRESENCE_FILTER};
use std::collections::VecDeque;

/// A presence message with its sender.
pub(super) type Presence = (VerifierId, Vec<u8>);

/// The meaning of an answer to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    /// The connection can be used.
    Connection,
    /// All retained messages were sent.
    Snapshot,
    /// Nothing that matters.
    Watch,
}

/// A change that the MQTT client hasn't taken yet.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Subscribe(Vec<TopicName>, Granted),
    Unsubscribe(TopicName),
}

/// The subscriptions of a connection, and presence that is held back.
#[derive(Debug, Default)]
pub(super) struct Watch {
    scope: PresenceScope,
    /// The filter that the broker has once all steps are taken.
    filter: Option<TopicName>,
    steps: VecDeque<Step>,
    /// Subscriptions that were not answered yet, oldest first.
    asked: VecDeque<Granted>,
    /// Presence that waits for the end of what is retained.
    held: Vec<Presence>,
}

impl Watch {
    pub(super) fn of(scope: PresenceScope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// Sets the scope; [`Self::flush`] then changes the subscriptions.
    pub(super) fn set(&mut self, scope: PresenceScope) {
        self.scope = scope;
    }

    /// The connection is gone, and its subscriptions with it.
    pub(super) fn lose(&mut self) {
        *self = Self::of(std::mem::take(&mut self.scope));
    }

    /// Begins a new connection, whose own topics are `own`. Presence comes first, so that what is retained is here when
    /// the connection counts as up.
    pub(super) fn connect(&mut self, own: Vec<TopicName>) {
        self.lose();
        self.filter = self.wanted();
        let presence = self.filter.iter().cloned().collect::<Vec<_>>();
        let (first, last) = if own.is_empty() { (Vec::new(), presence) } else { (presence, own) };
        if !first.is_empty() {
            self.steps.push_back(Step::Subscribe(first, Granted::Watch));
        }
        self.steps.push_back(Step::Subscribe(last, Granted::Connection));
    }

    /// Passes changes to the client until it is full; a later call goes on. `marker` is a topic of the device that
    /// retains nothing.
    pub(super) fn flush(&mut self, publisher: &Publisher, marker: impl Fn() -> TopicName) {
        if self.steps.is_empty() {
            self.plan(marker);
        }
        while let Some(step) = self.steps.front() {
            let taken = match step {
                Step::Subscribe(filters, _) => publisher.subscribe(filters.iter().map(TopicName::as_str)),
                Step::Unsubscribe(filter) => publisher.unsubscribe(filter),
            };
            if !taken {
                return;
            }
            if let Some(Step::Subscribe(_, granted)) = self.steps.pop_front() {
                self.asked.push_back(granted);
            }
        }
    }

    /// The steps from the present filter to the wanted one. The new one comes first, so that nothing is missed.
    fn plan(&mut self, marker: impl Fn() -> TopicName) {
        let wanted = self.wanted();
        if self.filter == wanted {
            return;
        }
        if let Some(filter) = &wanted {
            self.steps.push_back(Step::Subscribe(vec![filter.clone()], Granted::Watch));
            if self.scope == PresenceScope::All {
                self.steps.push_back(Step::Subscribe(vec![marker()], Granted::Snapshot));
            }
        }
        self.steps.extend(self.filter.take().map(Step::Unsubscribe));
        self.filter = wanted;
    }

    fn wanted(&self) -> Option<TopicName> {
        match &self.scope {
            PresenceScope::Nobody => None,
            PresenceScope::Lessor(verifier) => Some(Topic::VerifierPresence(verifier.clone()).name()),
            PresenceScope::All => VERIFIER_PRESENCE_FILTER.parse().ok(),
        }
    }

    /// Takes the answer to the oldest subscription, and returns the presence to hand over.
    pub(super) fn granted(&mut self) -> (Option<Granted>, Vec<Presence>) {
        let granted = self.asked.pop_front();
        let ends = matches!(granted, Some(Granted::Connection | Granted::Snapshot));
        (granted, if ends { std::mem::take(&mut self.held) } else { Vec::new() })
    }

    /// Takes a presence message, and returns what to hand over now.
    pub(super) fn presence(&mut self, presence: Presence) -> Vec<Presence> {
        self.held.push(presence);
        let more = self.asked.iter().any(|asked| *asked != Granted::Watch);
        if more && self.held.len() < CANDIDATES_MAX { Vec::new() } else { std::mem::take(&mut self.held) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_link::BrokerFacts;
    use dunlin_link::raw::unconnected;

    fn verifier(name: &str) -> VerifierId {
        name.parse().unwrap()
    }

    fn marker() -> TopicName {
        Topic::Verdicts("pi-7".parse().unwrap()).name()
    }

    fn presence(name: &str) -> Presence {
        (verifier(name), vec![1])
    }

    /// The filters of the steps that were planned.
    fn planned(watch: &mut Watch, scope: PresenceScope) -> Vec<String> {
        watch.set(scope);
        watch.plan(marker);
        let text = |step: Step| match step {
            Step::Subscribe(filters, _) => format!("+{}", filters[0]),
            Step::Unsubscribe(filter) => format!("-{filter}"),
        };
        watch.steps.drain(..).map(text).collect()
    }

    #[test]
    fn the_new_subscription_comes_before_the_end_of_the_old_one() {
        let mut watch = Watch::default();
        let lessor = || PresenceScope::Lessor(verifier("v1"));
        assert_eq!(planned(&mut watch, PresenceScope::All), ["+dl1/v/+/st", "+dl1/d/pi-7/n/c"]);
        assert_eq!(planned(&mut watch, lessor()), ["+dl1/v/v1/st", "-dl1/v/+/st"]);
        assert_eq!(planned(&mut watch, lessor()), Vec::<String>::new());
        assert_eq!(planned(&mut watch, PresenceScope::Nobody), ["-dl1/v/v1/st"]);
    }

    #[test]
    fn what_is_retained_is_handed_over_together() {
        let (publisher, _held) = unconnected(BrokerFacts::default());
        let mut watch = Watch::of(PresenceScope::All);
        watch.connect(vec![marker()]);
        watch.flush(&publisher, marker);
        assert_eq!(watch.granted(), (Some(Granted::Watch), vec![]));
        assert_eq!(watch.presence(presence("v1")), []);
        assert_eq!(watch.presence(presence("v2")), []);
        assert_eq!(watch.granted(), (Some(Granted::Connection), vec![presence("v1"), presence("v2")]));
        assert_eq!(watch.presence(presence("v3")), [presence("v3")], "a change is handed over at once");
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let (publisher, _held) = unconnected(BrokerFacts::default());
        let mut watch = Watch::of(PresenceScope::All);
        watch.connect(vec![marker()]);
        watch.flush(&publisher, marker);
        let sizes: Vec<_> = (0..CANDIDATES_MAX).map(|_| watch.presence(presence("v1")).len()).collect();
        assert_eq!(sizes.iter().max(), Some(&CANDIDATES_MAX));
    }
}
