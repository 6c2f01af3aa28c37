//! All limits of the protocol. Each one is reached by a test.

/// Drafted tokens in one frame.
pub const DRAFT_TOKENS_MAX: usize = 16;
/// Highest send count of a frame; later sends keep it.
pub const SENDS_MAX: u8 = 255;
/// Stop ids (tokens that end a text) in a frame's credit.
pub const STOP_IDS_MAX: usize = 8;
/// Bits of one token id.
pub const TOKEN_BITS_MAX: u8 = 18;
/// Least bits of one token id, chosen so that its width and the count of a frame's drafts fit one byte together.
pub const TOKEN_BITS_MIN: u8 = 8;
/// Entries of a vocabulary: every id fits [`TOKEN_BITS_MAX`] bits.
pub const VOCABULARY_SIZE_MAX: u32 = 1 << TOKEN_BITS_MAX;
/// Tokens in one [`Continuation`](crate::Continuation): as many as fit [`MESSAGE_BYTES_MAX`].
pub const CONTINUATION_TOKENS_MAX: usize = 64;
/// Tokens in one [`Context`](crate::Context) chunk.
pub const CONTEXT_CHUNK_TOKENS_MAX: usize = 256;
/// Tokens of a session, prompt and text together.
pub const SESSION_TOKENS_MAX: u32 = 1 << 17;
/// Bytes of an encoded plain [`DraftFrame`](crate::DraftFrame): 15 of header at most, then 26 bits a token.
pub const DRAFT_BYTES_MAX: usize = 15 + (DRAFT_TOKENS_MAX * (TOKEN_BITS_MAX as usize + 8)).div_ceil(8);
/// Bytes of an encoded [`Context`](crate::Context): 10 of header at most, then 18 bits a token.
pub const CONTEXT_BYTES_MAX: usize = 10 + (CONTEXT_CHUNK_TOKENS_MAX * TOKEN_BITS_MAX as usize).div_ceil(8);
/// Tokens listed in one [`Row`](crate::Row).
pub const ROW_ENTRIES_MAX: usize = 64;
/// Weights in one [`Codes`](crate::Codes) message.
pub const CODES_MAX: usize = 1024;
/// Bytes before the tail of a [`DraftFrame`](crate::DraftFrame) with rows: the plain header, and the mode.
pub const ANNOTATED_HEADER_BYTES_MAX: usize = 16;
/// Bytes of an encoded [`DraftFrame`](crate::DraftFrame) that is not plain; with its topic it fits one IP packet of a
/// usual network.
pub const ANNOTATED_BYTES_MAX: usize = 1400;
/// Bytes of encoded [`Codes`](crate::Codes): 11 of header at most, then a byte a token.
pub const CODES_BYTES_MAX: usize = 11 + CODES_MAX;
/// Bytes of an encoded [`EnergyReport`](crate::EnergyReport): every number at its longest.
pub const ENERGY_BYTES_MAX: usize = 219;
/// Bytes of an encoded [`Telemetry`](crate::Telemetry): every number at its longest.
pub const TELEMETRY_BYTES_MAX: usize = 79;
/// Bytes of the text of a [`SetupReport`](crate::SetupReport).
pub const SETUP_TEXT_BYTES_MAX: usize = 1000;
/// Bytes of an encoded [`SetupReport`](crate::SetupReport): 7 of header at most, then its text.
pub const SETUP_BYTES_MAX: usize = 7 + SETUP_TEXT_BYTES_MAX;
/// Bytes of any message of this protocol; [`PACKET_BYTES_MAX`] leaves room for it.
pub const FRAME_BYTES_MAX: usize = ANNOTATED_BYTES_MAX;
/// Bytes of any message without a limit of its own. The longest is a verifier's presence: 33 bytes and three names with
/// their lengths.
pub const MESSAGE_BYTES_MAX: usize = 33 + 1 + MODEL_NAME_BYTES_MAX + 2 * (1 + ENGINE_NAME_BYTES_MAX);
/// Bytes of a device or verifier id.
pub const ID_BYTES_MAX: usize = 32;
/// Bytes of a model's name in a verifier's presence.
pub const MODEL_NAME_BYTES_MAX: usize = 64;
/// Bytes of the name of an engine, and of its numerics, in a verifier's presence.
pub const ENGINE_NAME_BYTES_MAX: usize = 32;
/// Bytes of any topic or filter built by [`topic`](crate::topic). The longest is a device's open topic: 12 bytes and
/// two ids.
pub const TOPIC_BYTES_MAX: usize = 12 + 2 * ID_BYTES_MAX;
/// Bytes of an MQTT packet with any message: header, topic, properties, payload. A receiver drops larger ones.
pub const PACKET_BYTES_MAX: u32 = 2048;
/// Maximum packet size announced to the broker, as large as any packet that a broker should let through. Mosquitto
/// never sends a packet above a client's limit, but never removes it from the few that may be under way to that client
/// either.
pub const PACKET_BYTES_ANNOUNCED: u32 = 65_536;
