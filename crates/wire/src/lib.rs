//! The wire protocol: frames, verdicts, session messages, presence, energy, set-up, updates, topics, and all limits by
//! name.
//!
//! Invariant: no other crate knows a byte layout or a topic string. Nothing here allocates or reads a clock, a socket,
//! a file or a random number. Bytes are decoded once, at the edge: a decoded value is valid, and encoding it again
//! gives the same bytes. `docs/wire.md` is the specification and contains the golden vectors that the tests read.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod access;
mod annotated;
mod bits;
mod codec;
mod codes;
mod continuation;
mod digest;
mod energy;
mod enrol;
mod enumerative;
mod error;
mod fleet;
mod frame;
mod id;
mod identity;
pub mod limits;
mod object;
mod presence;
mod rollout;
mod rows;
mod session;
mod setup;
mod signed;
mod target;
pub mod topic;
mod verdict;
mod wide;

pub use codec::VERSION;
pub use codes::Codes;
pub use continuation::Continuation;
pub use digest::{Digest, PREFIX_EMPTY, Prefix, PrefixDigest};
pub use energy::{EnergyReport, MeterFaults, PhaseTotal, PhaseTotals, PowerSource, Telemetry, Throttling};
pub use enrol::{EnrolAnswer, EnrolRequest, EnrolVerdict};
pub use error::{DecodeError, EncodeError};
pub use fleet::{FleetDetail, FleetPhase, FleetReason, FleetReport, SystemSlot};
pub use frame::{
    Close, Context, Credit, Draft, DraftFrame, Score, Up, check_of, count_send, frame_check, frame_digest,
    token_bits,
};
pub use id::{BoardId, DeviceId, EnrolTokenId, IdError, RingId, StoreId, VerifierId};
pub use identity::{BrokerRole, Identity, RoleNameError};
pub use object::{BlockForm, ObjectBlock, PieceSpan, StorePresence, WantedPieces};
pub use presence::{DevicePresence, EngineName, Liveness, ModelName, VerifierPresence, fitting_name};
pub use rollout::{
    BoardCommand, CommandFields, CommandVerb, FleetTime, ObjectId, Rollout, RolloutFields, RolloutScope,
    RootNotice, TimeFields,
};
pub use rows::{Entry, Row, Rows, judged_drafts_max, row_bits_max};
pub use session::{Lease, Open, Refusal, RefusalReason, Reply, SamplingParams, Vocabulary};
pub use setup::SetupReport;
pub use signed::{KeyId, Signature, SignatureBytes, Signatures, SignedText, put_signatures, take_signatures};
pub use target::{CouplingProfile, LogTime, Price, Promise, TargetId};
pub use verdict::{CloseReason, Closed, Down, Resync, Verdict, Working};

/// A token id of the vocabulary that both sides share.
pub type TokenId = u32;
