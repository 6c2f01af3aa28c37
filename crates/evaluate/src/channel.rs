//! A channel's file, and its model of each message: bytes below MQTT, airtime, arrival.
//!
//! Invariant: the passage of a message depends only on the channel, the session's seed, the message's number and the
//! messages before it.

use super::dice::{mix, unit};
use anyhow::{Result, ensure};
use dunlin_board::{amount, rate, read};
use dunlin_sim::quiet::{Air, Passage};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::path::Path;

/// Most sends of one segment; the last one always arrives.
const ATTEMPTS_MAX: u32 = 8;
/// Highest accepted loss; beyond one half, retransmission timeouts would dominate everything.
const LOSS_MAX: f64 = 0.5;

/// A channel between a device and its broker. Powers are in addition to that of the idle board.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelledChannel {
    /// Its name in plans and reports.
    pub name: String,
    /// Bandwidth of a radio, Hz; `None` for a wire, which always carries its highest rate.
    #[serde(default, deserialize_with = "some_rate")]
    pub bandwidth_hz: Option<f64>,
    /// Mean signal-to-noise ratio of a radio, dB.
    #[serde(default, deserialize_with = "some_finite")]
    pub snr_db: Option<f64>,
    /// Highest rate of its modulations, bit/s.
    #[serde(deserialize_with = "rate")]
    pub rate_bps_max: f64,
    /// Lowest rate, bit/s, which a deep fade still allows.
    #[serde(deserialize_with = "rate")]
    pub rate_bps_min: f64,
    /// Variation of the signal's power.
    pub fading: ChannelFading,
    /// Round trip of an empty message, ms.
    #[serde(deserialize_with = "amount")]
    pub rtt_ms: f64,
    /// Probability that a segment is lost, 0..=0.5.
    #[serde(deserialize_with = "loss")]
    pub loss: f64,
    /// Power of sending, W.
    #[serde(deserialize_with = "amount")]
    pub send_w: f64,
    /// Power of receiving, W.
    #[serde(deserialize_with = "amount")]
    pub receive_w: f64,
    /// Power of listening while awake, W.
    #[serde(deserialize_with = "amount")]
    pub wait_w: f64,
    /// Time for which the radio keeps listening after an answer, ms.
    #[serde(deserialize_with = "amount")]
    pub tail_ms: f64,
    /// The protocols below MQTT.
    pub stack: Stack,
}

/// Variation of a signal's power from message to message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelFading {
    /// No variation.
    None,
    /// `|h|²` is exponential with mean 1, one draw for each message.
    Rayleigh,
}

/// The protocols between MQTT and the air.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stack {
    /// Headers of a segment, bytes.
    pub header_bytes: usize,
    /// Size of an acknowledgement, bytes; sent for every second segment and for the last.
    pub ack_bytes: usize,
    /// Most data of a segment, bytes.
    #[serde(deserialize_with = "count")]
    pub segment_bytes: usize,
    /// Bytes that encryption adds to a message; 0 for none.
    pub tls_bytes: usize,
    /// Time until a lost segment is sent again, ms; doubled each time.
    #[serde(deserialize_with = "amount")]
    pub timeout_ms: f64,
}

impl ModelledChannel {
    /// Reads a channel's file.
    ///
    /// # Errors
    /// Names the file, line and key that is wrong, or the two that contradict each other.
    pub fn load(path: &Path) -> Result<Self> {
        let channel: Self = read(path)?;
        let at = path.display();
        let radio = channel.bandwidth_hz.is_some();
        ensure!(radio == channel.snr_db.is_some(), "{at}: a radio needs both bandwidth_hz and snr_db");
        ensure!(
            radio || channel.fading == ChannelFading::None,
            "{at}: fading without bandwidth_hz and snr_db"
        );
        ensure!(channel.rate_bps_min <= channel.rate_bps_max, "{at}: rate_bps_min is above rate_bps_max");
        Ok(channel)
    }

    /// Shannon's rate B·log₂(1 + SNR·|h|²) at `gain` = |h|², bit/s, clamped to the rates of the modulations.
    pub fn rate_bps(&self, gain: f64) -> f64 {
        let (Some(bandwidth), Some(snr_db)) = (self.bandwidth_hz, self.snr_db) else {
            return self.rate_bps_max;
        };
        let snr = 10f64.powf(snr_db / 10.0);
        (bandwidth * (snr * gain).ln_1p() / std::f64::consts::LN_2)
            .clamp(self.rate_bps_min, self.rate_bps_max)
    }

    /// |h|² of message `number`.
    fn gain(&self, seed: u64, number: u64) -> f64 {
        match self.fading {
            ChannelFading::None => 1.0,
            ChannelFading::Rayleigh => -unit(&[seed, number]).ln(),
        }
    }
}

/// A channel in use by one session.
#[derive(Debug)]
pub struct ModelledLink<'a> {
    channel: &'a ModelledChannel,
    seed: u64,
    number: u64,
    up: Way,
    down: Way,
}

/// One direction of a channel: messages are sent one after the other and arrive in that order.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    free_us: u64,
    arrived_us: u64,
}

impl<'a> ModelledLink<'a> {
    /// A session on `channel`; `seed` determines its fades and losses.
    pub fn new(channel: &'a ModelledChannel, seed: u64) -> Self {
        Self { channel, seed, number: 0, up: Way::default(), down: Way::default() }
    }

    /// The channel.
    pub fn channel(&self) -> &ModelledChannel {
        self.channel
    }

    /// Sends a packet of `bytes` MQTT bytes at `now_us`.
    pub fn carry(&mut self, up: bool, bytes: usize, now_us: u64) -> Passage {
        let (channel, stack) = (self.channel, &self.channel.stack);
        self.number += 1;
        let rate = channel.rate_bps(channel.gain(self.seed, self.number));
        let attempts = |segment| self.attempts(segment);
        let (ip, _) = stack.cut(bytes, attempts);
        let (tls, lost) = stack.cut(bytes + stack.tls_bytes, attempts);
        let sent = Air { ip, tls, busy_us: airtime_us(tls, rate) };
        let acks = stack.segments(bytes + stack.tls_bytes).div_ceil(2) * stack.ack_bytes;
        let back = Air { ip: acks, tls: acks, busy_us: airtime_us(acks, rate) };

        let again_ms = stack.timeout_ms * f64::from((1u32 << lost) - 1);
        let flight_us = ((channel.rtt_ms / 2.0 + again_ms) * 1e3).round() as u64;
        let way = if up { &mut self.up } else { &mut self.down };
        way.free_us = way.free_us.max(now_us) + sent.busy_us;
        way.arrived_us = way.arrived_us.max(way.free_us + flight_us);
        let arrives_us = way.arrived_us;
        let (up, down) = if up { (sent, back) } else { (back, sent) };
        Passage { arrives_us, up, down }
    }

    /// Number of sends of a segment of the current message until it arrives.
    fn attempts(&self, segment: usize) -> u32 {
        let lost = |attempt: &u32| {
            let words = [self.seed, self.number, segment as u64, u64::from(*attempt)];
            unit(&[mix(&words), 1]) < self.channel.loss
        };
        1 + (1..ATTEMPTS_MAX).take_while(lost).count() as u32
    }
}

impl Stack {
    fn segments(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.segment_bytes)
    }

    /// Bytes of all segments with their headers, repetitions included, and the most losses of any one segment.
    fn cut(&self, bytes: usize, attempts: impl Fn(usize) -> u32) -> (usize, u32) {
        (0..self.segments(bytes)).fold((0, 0), |(total, lost), segment| {
            let size = self.segment_bytes.min(bytes - segment * self.segment_bytes) + self.header_bytes;
            let attempts = attempts(segment);
            (total + size * attempts as usize, lost.max(attempts - 1))
        })
    }
}

fn airtime_us(bytes: usize, rate_bps: f64) -> u64 {
    (bytes as f64 * 8.0 / rate_bps * 1e6).round() as u64
}

fn loss<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let x = amount(from)?;
    if x <= LOSS_MAX { Ok(x) } else { Err(D::Error::custom(format!("{x} is above {LOSS_MAX}"))) }
}

fn count<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let n = usize::deserialize(from)?;
    if n > 0 { Ok(n) } else { Err(D::Error::custom("0 is not a number above 0")) }
}

fn some_rate<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    rate(from).map(Some)
}

fn some_finite<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let x = f64::deserialize(from)?;
    if x.is_finite() { Ok(Some(x)) } else { Err(D::Error::custom(format!("{x} is no finite number"))) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A radio of 1 MHz at 0 dB, which carries 1 Mbit/s without fading.
    pub(crate) fn radio() -> ModelledChannel {
        ModelledChannel {
            name: "radio".into(),
            bandwidth_hz: Some(1e6),
            snr_db: Some(0.0),
            rate_bps_max: 10e6,
            rate_bps_min: 1e3,
            fading: ChannelFading::None,
            rtt_ms: 20.0,
            loss: 0.0,
            send_w: 2.0,
            receive_w: 1.0,
            wait_w: 0.5,
            tail_ms: 0.0,
            stack: Stack {
                header_bytes: 40,
                ack_bytes: 40,
                segment_bytes: 100,
                tls_bytes: 22,
                timeout_ms: 200.0,
            },
        }
    }

    #[test]
    fn shannon_by_hand() {
        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-6 * y, "{x} {y}");
        // 0 dB: log2(2) = 1 bit/s/Hz; |h|² = 3 makes log2(4) = 2.
        close(radio().rate_bps(1.0), 1e6);
        close(radio().rate_bps(3.0), 2e6);
        // 20 dB: log2(101) = 6.6582115.
        close(ModelledChannel { snr_db: Some(20.0), ..radio() }.rate_bps(1.0), 6.658_211_5e6);
        // The modulations end at 10 Mbit/s, and a fade leaves 1 kbit/s.
        close(ModelledChannel { snr_db: Some(60.0), ..radio() }.rate_bps(1.0), 10e6);
        close(radio().rate_bps(1e-9), 1e3);
        close(ModelledChannel { bandwidth_hz: None, snr_db: None, ..radio() }.rate_bps(1.0), 10e6);
    }

    #[test]
    fn rayleigh_has_a_mean_of_one_and_is_exponential() {
        let channel = ModelledChannel { fading: ChannelFading::Rayleigh, ..radio() };
        let gains: Vec<f64> = (0..100_000).map(|number| channel.gain(5, number)).collect();
        let mean = gains.iter().sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        let deep = gains.iter().filter(|gain| **gain < 0.1).count() as f64 / 1e5;
        assert!((deep - (1.0 - (-0.1f64).exp())).abs() < 0.003, "{deep}");
        assert_eq!(radio().gain(5, 1), 1.0);
    }

    #[test]
    fn a_message_by_hand() {
        let channel = radio();
        let mut link = ModelledLink::new(&channel, 1);
        // 50 bytes are 72 with TLS and 112 on air: 896 µs at 1 Mbit/s, then half a round trip. An ACK of 40 bytes takes
        // 320 µs.
        let passage = link.carry(true, 50, 1_000);
        assert_eq!(passage.up, Air { ip: 90, tls: 112, busy_us: 896 });
        assert_eq!(passage.down, Air { ip: 40, tls: 40, busy_us: 320 });
        assert_eq!(passage.arrives_us, 1_000 + 896 + 10_000);
        // The next message waits for the air. 250 bytes, 272 with TLS, are three segments with two acknowledgements.
        let passage = link.carry(true, 250, 1_000);
        assert_eq!(passage.up, Air { ip: 370, tls: 392, busy_us: 3_136 });
        assert_eq!(passage.down.ip, 80);
        assert_eq!(passage.arrives_us, 1_896 + 3_136 + 10_000);
        // The other direction is free.
        assert_eq!(link.carry(false, 50, 2_000).arrives_us, 2_000 + 896 + 10_000);
    }

    #[test]
    fn a_lost_segment_costs_its_bytes_again_and_a_timeout_that_doubles() {
        let channel = ModelledChannel { loss: 0.5, ..radio() };
        let mut seen = [0; 3];
        for seed in 0..200 {
            let passage = ModelledLink::new(&channel, seed).carry(true, 50, 0);
            let times = passage.up.tls / 112;
            assert_eq!((passage.up.tls % 112, passage.up.ip), (0, 90 * times), "seed {seed}");
            assert_eq!(passage.up.busy_us, 896 * times as u64);
            let waited = 200_000 * ((1 << (times - 1)) - 1);
            assert_eq!(passage.arrives_us, passage.up.busy_us + waited + 10_000, "seed {seed}");
            if let Some(seen) = seen.get_mut(times - 1) {
                *seen += 1;
            }
        }
        assert!((80..120).contains(&seen[0]) && (35..65).contains(&seen[1]), "{seen:?}");
        let again = |seed| ModelledLink::new(&channel, seed).carry(true, 50, 0);
        assert_eq!(again(3), again(3));
    }

    #[test]
    fn what_was_lost_does_not_overtake() {
        let channel = ModelledChannel { loss: 0.5, ..radio() };
        for seed in 0..50 {
            let mut link = ModelledLink::new(&channel, seed);
            let arrivals: Vec<u64> = (0..10).map(|_| link.carry(false, 10, 0).arrives_us).collect();
            assert!(arrivals.is_sorted(), "seed {seed}: {arrivals:?}");
        }
    }

    const FILE: &str = "name = 'a'\nbandwidth_hz = 1e6\nsnr_db = 3\nrate_bps_max = 1e6\nrate_bps_min = 1e3\n\
        fading = 'rayleigh'\nrtt_ms = 5\nloss = 0.1\nsend_w = 1\nreceive_w = 1\nwait_w = 1\ntail_ms = 0\n[stack]\n\
        header_bytes = 40\nack_bytes = 40\nsegment_bytes = 1460\ntls_bytes = 22\ntimeout_ms = 200\n";

    fn load(text: &str) -> Result<ModelledChannel> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, text).unwrap();
        ModelledChannel::load(&path)
    }

    #[test]
    fn a_bad_channel_is_named_with_its_line_and_key() {
        assert_eq!(load(FILE).unwrap().snr_db, Some(3.0));
        let cases = [
            (
                "bandwidth_hz = 1e6",
                "bandwidth_hz = -1e6",
                "a.toml:2: -1000000 is not a number above 0 (bandwidth_hz",
            ),
            ("snr_db = 3", "snr_db = nan", "a.toml:3: NaN is no finite number (snr_db = nan)"),
            ("snr_db = 3\n", "", "a radio needs both bandwidth_hz and snr_db"),
            ("bandwidth_hz = 1e6\nsnr_db = 3\n", "", "fading without bandwidth_hz"),
            (
                "rate_bps_max = 1e6",
                "rate_bps_max = 0",
                "a.toml:4: 0 is not a number above 0 (rate_bps_max = 0)",
            ),
            ("rate_bps_min = 1e3", "rate_bps_min = 2e6", "rate_bps_min is above rate_bps_max"),
            ("loss = 0.1", "loss = 0.6", "a.toml:8: 0.6 is above 0.5 (loss = 0.6)"),
            ("rtt_ms = 5", "rtt_ms = -5", "a.toml:7: -5 is not a number of at least 0"),
            ("fading = 'rayleigh'", "fading = 'rice'", "a.toml:6: unknown variant `rice`"),
            (
                "segment_bytes = 1460",
                "segment_bytes = 0",
                "a.toml:16: 0 is not a number above 0 (segment_bytes = 0)",
            ),
            ("loss = 0.1", "lost = 0.1", "a.toml:8: unknown field `lost`"),
        ];
        for (from, to, expected) in cases {
            let error = load(&FILE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
