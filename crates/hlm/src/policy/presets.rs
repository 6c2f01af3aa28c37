//! Presets: the rules behind each policy's name.

use super::{
    Combine, Coupling, DRAFT_TOKENS_MAX, HeldTokens, ImportanceForm, Payload, PayloadForm, Policy, Rules,
};
use crate::importance::AdaptiveThreshold;
use crate::uncertainty::{Form, Unit};

/// Only the stop rule, up to a full frame, with uncertainty by quadrature.
const LOSSLESS: Rules = Rules {
    draft_tokens_max: DRAFT_TOKENS_MAX,
    stop_rule: true,
    uncertainty_max: None,
    importance: None,
    combine: Combine::Any,
    random_rate: None,
    uncertainty_form: Form::Quadrature,
    importance_form: ImportanceForm::Row,
    held: HeldTokens::Verified,
    epsilon: Unit::ZERO,
    payload: Payload::IDS,
    coupling: Coupling::SharedSeed,
    credit_tokens_max: 0,
    auto: false,
    second_joules: 0.0,
};

/// Trusted tokens and no trigger: the common part of the policies from the literature.
const TRUSTING: Rules = Rules {
    stop_rule: false,
    held: HeldTokens::Trusted,
    payload: Payload::of(PayloadForm::TopKSampled),
    coupling: Coupling::Rejection,
    ..LOSSLESS
};

/// No drafts: the target's next token, one for each frame.
const REMOTE: Rules = Rules { draft_tokens_max: 0, stop_rule: false, ..LOSSLESS };

/// Tokens of a credit (*ours*): half of it must outlast a round trip, or the text stops flowing at each renewal.
const CREDIT_TOKENS: u16 = 64;
/// Uncertainty above which a token is sent; a starting value, since thresholds don't transfer between model pairs
/// (*ours*).
const UNCERTAINTY_MAX: f64 = 0.3;
/// Probability of the random trigger (*ours*).
const RANDOM_RATE: f64 = 0.5;
/// Share of audited tokens that may differ from the target's choice (*ours*).
const EPSILON: f64 = 0.01;

impl Policy {
    /// The rules of this preset, with its default settings.
    pub fn rules(self) -> Rules {
        let payload = Payload::of;
        let uncertain = Rules { uncertainty_max: Some(Unit::clamped(UNCERTAINTY_MAX)), ..TRUSTING };
        let important = Rules { importance: Some(AdaptiveThreshold::MEAN), ..uncertain };
        match self {
            Self::Hlm => Rules { draft_tokens_max: 1, payload: payload(PayloadForm::Full), ..TRUSTING },
            Self::UHlm => Rules { payload: payload(PayloadForm::Full), ..uncertain },
            Self::CuHlm => Rules { payload: payload(PayloadForm::TopK), ..uncertain },
            Self::Importance => Rules { combine: Combine::Both, ..important },
            Self::ImportanceOr => important,
            Self::Random => Rules { random_rate: Some(Unit::clamped(RANDOM_RATE)), ..TRUSTING },
            Self::Lossless => LOSSLESS,
            Self::LosslessSparse => {
                Rules { payload: payload(PayloadForm::Lattice), coupling: Coupling::Rejection, ..LOSSLESS }
            }
            Self::Risk => Rules { held: HeldTokens::Audited, epsilon: Unit::clamped(EPSILON), ..LOSSLESS },
            Self::Local => Rules { payload: Payload::IDS, coupling: Coupling::SharedSeed, ..TRUSTING },
            Self::Remote => REMOTE,
            Self::Auto => Rules { credit_tokens_max: CREDIT_TOKENS, auto: true, ..LOSSLESS },
            Self::Stream => Rules { credit_tokens_max: CREDIT_TOKENS, ..REMOTE },
        }
    }
}
