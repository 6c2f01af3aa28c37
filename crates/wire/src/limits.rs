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
/// Bytes of a piece of an object, the unit in which pieces are counted and asked for.
pub const PIECE_BYTES: usize = 4096;
/// Bytes of an object in one [`ObjectBlock`](crate::ObjectBlock).
pub const BLOCK_BYTES_MAX: usize = 8 * PIECE_BYTES;
/// Bytes of an encoded [`ObjectBlock`](crate::ObjectBlock): 20 of header at most, then the bytes.
pub const BLOCK_MESSAGE_BYTES_MAX: usize = 20 + BLOCK_BYTES_MAX;
/// Spans in one [`WantedPieces`](crate::WantedPieces).
pub const WANTED_SPANS_MAX: usize = 16;
/// Pieces that one [`WantedPieces`](crate::WantedPieces) asks for: 128 KiB, as much as a broker queues for a client.
pub const WANTED_PIECES_MAX: u32 = 32;
/// Bytes of an encoded [`WantedPieces`](crate::WantedPieces): 35 of header, then at most 6 a span.
pub const WANTED_BYTES_MAX: usize = 35 + 6 * WANTED_SPANS_MAX;
/// Bytes of a signed document: of `release.toml` and of `root.toml`.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024;
/// Signatures of one document or message.
pub const SIGNATURES_MAX: usize = 3;
/// Bytes of a key's id and its signature.
pub const SIGNATURE_ENTRY_BYTES: usize = 8 + 64;
/// Bytes of the signatures behind a document or in a message: their number, and each one with its key.
pub const SIGNATURES_BYTES_MAX: usize = 1 + SIGNATURES_MAX * SIGNATURE_ENTRY_BYTES;
/// Bytes of a document with its signatures.
pub const SIGNED_DOCUMENT_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + SIGNATURES_BYTES_MAX;
/// Bytes of the text that a message's signatures are of: purpose, topic and fields.
pub const SIGNED_TEXT_BYTES_MAX: usize = 192;
/// Permille of a whole.
pub const PERMILLE_MAX: u16 = 1000;
/// Bytes of the detail in a [`FleetReport`](crate::FleetReport).
pub const DETAIL_BYTES_MAX: usize = 160;
/// Bytes of an encoded [`FleetReport`](crate::FleetReport): every number and text at its longest.
pub const FLEET_BYTES_MAX: usize = 251;
/// Bytes of an encoded [`Rollout`](crate::Rollout): every number at its longest, and three signatures.
pub const ROLLOUT_BYTES_MAX: usize = 83 + SIGNATURES_BYTES_MAX;
/// Bytes of an encoded [`BoardCommand`](crate::BoardCommand).
pub const COMMAND_BYTES_MAX: usize = 18 + SIGNATURES_BYTES_MAX;
/// Bytes of an encoded [`FleetTime`](crate::FleetTime).
pub const TIME_BYTES_MAX: usize = 17 + SIGNATURES_BYTES_MAX;
/// Bytes of a request for a certificate (PKCS#10, DER).
pub const CSR_BYTES_MAX: usize = 1024;
/// Bytes of an encoded [`EnrolRequest`](crate::EnrolRequest).
pub const ENROL_BYTES_MAX: usize = 68 + CSR_BYTES_MAX;
/// Bytes of a chain of certificates (DER, one after the other).
pub const CHAIN_BYTES_MAX: usize = 3072;
/// Bytes of a certificate of keys for sealed sessions.
pub const SEAL_CERTIFICATE_BYTES_MAX: usize = 256;
/// Bytes of an encoded [`EnrolAnswer`](crate::EnrolAnswer).
pub const CERTIFICATE_BYTES_MAX: usize = 15 + SEAL_CERTIFICATE_BYTES_MAX + CHAIN_BYTES_MAX;
/// Bytes of any message of sessions, energy and set-up; [`PACKET_BYTES_MAX`] leaves room for it.
pub const FRAME_BYTES_MAX: usize = ANNOTATED_BYTES_MAX;
/// Bytes of any message without a limit of its own. The longest is a verifier's presence: 33 bytes and three names with
/// their lengths.
pub const MESSAGE_BYTES_MAX: usize = 33 + 1 + MODEL_NAME_BYTES_MAX + 2 * (1 + ENGINE_NAME_BYTES_MAX);
/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 32;
/// Bytes of a model's name in a verifier's presence.
pub const MODEL_NAME_BYTES_MAX: usize = 64;
/// Bytes of the name of an engine, and of its numerics, in a verifier's presence.
pub const ENGINE_NAME_BYTES_MAX: usize = 32;
/// Bytes of any topic or filter built by [`topic`](crate::topic). The longest is a device's open topic: 12 bytes and
/// two ids.
pub const TOPIC_BYTES_MAX: usize = 12 + 2 * ID_BYTES_MAX;
/// Bytes of an MQTT packet with any message of sessions: header, topic, properties, payload. A receiver drops larger ones.
pub const PACKET_BYTES_MAX: u32 = 2048;
/// Bytes of an MQTT packet with any message, updates included. Only a client of updates takes packets of this size.
pub const UPDATE_PACKET_BYTES_MAX: u32 = 34 * 1024;
/// Maximum packet size announced to the broker, as large as any packet that a broker should let through. Mosquitto
/// never sends a packet above a client's limit, but never removes it from the few that may be under way to that client
/// either.
pub const PACKET_BYTES_ANNOUNCED: u32 = 65_536;
