//! A model of a broker: retained messages, connections, and a network that loses, repeats and delays.

use crate::scenario::Weather;
use dunlin_wire::ObjectBlock;
use dunlin_wire::topic::{Qos, Topic};
use fastrand::Rng;
use std::collections::BTreeMap;

/// A client of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Controller,
    Store(usize),
    Board(usize),
}

#[derive(Clone, Copy, Debug, Default)]
struct ClientLink {
    up: bool,
    /// Connections before this one; messages of an earlier one are lost.
    generation: u64,
    /// The arrival of the last message with a guarantee: they don't overtake each other.
    certain_at: u64,
}

/// A message on its way: the time of its arrival, and the connection that it is for.
#[derive(Clone, Debug)]
pub(crate) struct OnTheWay {
    pub(crate) at: u64,
    pub(crate) to: Client,
    pub(crate) generation: u64,
    pub(crate) topic: Topic,
    pub(crate) bytes: Vec<u8>,
    /// True for the second copy of a message.
    again: bool,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Broker {
    weather: Weather,
    rng: Rng,
    retained: BTreeMap<String, (Topic, Vec<u8>)>,
    connections: BTreeMap<Client, ClientLink>,
    pub(crate) up: bool,
    /// Bytes of blocks that never arrived.
    pub(crate) bytes_lost: u64,
}

impl Broker {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        let (retained, connections) = (BTreeMap::new(), BTreeMap::new());
        Self { weather, rng: Rng::with_seed(seed), retained, connections, up: true, bytes_lost: 0 }
    }

    pub(crate) fn is_up(&self, client: Client) -> bool {
        self.connections.get(&client).is_some_and(|connection| connection.up)
    }

    /// True if a message for this connection still arrives; otherwise it is counted as lost.
    pub(crate) fn arrives(&mut self, message: &OnTheWay) -> bool {
        let connection = self.connections.get(&message.to);
        let same = |connection: &ClientLink| connection.up && connection.generation == message.generation;
        let arrives = connection.is_some_and(same);
        if !arrives && !message.again {
            self.bytes_lost += block_bytes(&message.topic, &message.bytes);
        }
        arrives
    }

    /// Connects a client or cuts it off.
    pub(crate) fn set_link(&mut self, client: Client, up: bool) {
        let connection = self.connections.entry(client).or_default();
        connection.up = up;
        connection.generation += 1;
        connection.certain_at = 0;
    }

    /// Ends the broker: its connections are cut, and what it retained is gone.
    pub(crate) fn kill(&mut self) -> Vec<Client> {
        self.up = false;
        self.retained.clear();
        let clients: Vec<Client> =
            self.connections.keys().copied().filter(|client| self.is_up(*client)).collect();
        clients.iter().for_each(|client| self.set_link(*client, false));
        clients
    }

    /// Takes a message, from a client or as its Will, for those who subscribed to its topic.
    pub(crate) fn publish(
        &mut self,
        from: Option<Client>,
        topic: &Topic,
        bytes: &[u8],
        to: &[Client],
        now: u64,
    ) -> Vec<OnTheWay> {
        if !self.up || from.is_some_and(|from| !self.is_up(from)) {
            return Vec::new();
        }
        if topic.delivery().retain {
            self.retained.insert(topic.name().to_string(), (topic.clone(), bytes.to_vec()));
        }
        to.iter().flat_map(|to| self.deliver(*to, topic, bytes, now)).collect()
    }

    /// The retained messages that a client gets when it subscribes.
    pub(crate) fn retained(&mut self, to: Client, wants: impl Fn(&Topic) -> bool, now: u64) -> Vec<OnTheWay> {
        let wanted: Vec<(Topic, Vec<u8>)> =
            self.retained.values().filter(|(topic, _)| wants(topic)).cloned().collect();
        wanted.iter().flat_map(|(topic, bytes)| self.deliver(to, topic, bytes, now)).collect()
    }

    fn deliver(&mut self, to: Client, topic: &Topic, bytes: &[u8], now: u64) -> Vec<OnTheWay> {
        let Some(connection) = self.connections.get_mut(&to).filter(|connection| connection.up) else {
            self.bytes_lost += block_bytes(topic, bytes);
            return Vec::new();
        };
        let certain = topic.delivery().qos == Qos::AtLeastOnce;
        let lost = !certain && self.rng.f64() < self.weather.loss;
        let twice = self.rng.f64() < self.weather.twice;
        if lost {
            self.bytes_lost += block_bytes(topic, bytes);
        }
        let copies = if lost { 0 } else { 1 + u64::from(twice) };
        (0..copies)
            .map(|copy| {
                let delay = self.weather.delay_ms + self.rng.u64(..=self.weather.jitter_ms);
                let mut at = now + delay * 1000;
                if certain {
                    at = at.max(connection.certain_at);
                    connection.certain_at = at;
                }
                let (topic, bytes) = (topic.clone(), bytes.to_vec());
                OnTheWay { at, to, generation: connection.generation, topic, bytes, again: copy > 0 }
            })
            .collect()
    }
}

/// Bytes of an object in a message.
fn block_bytes(topic: &Topic, bytes: &[u8]) -> u64 {
    match topic {
        Topic::Block(_) => ObjectBlock::decode(bytes).map_or(0, |block| block.bytes.len() as u64),
        _ => 0,
    }
}
