//! A board as data: what the hardware, not the user, decides. One file for each, in `boards/`, read while a board's
//! programs, packages and images are made and again by the agent that runs there.
//!
//! Invariant: nothing here knows a board by its name. A new one is a file.

mod board;
mod find;
mod flash;
mod keys;
mod modelled;
mod number;
mod power;
mod problem;
mod read;

pub use board::{
    AGENT_MIB, Board, Boot, BuildTable, DrafterTable, Emulated, ImageTable, KEEP_ALIVE_SECONDS_MAX,
    KEEP_ALIVE_SECONDS_MIN, LinkTable, Radio, TARGET_ARM64, TARGETS,
};
pub use find::{INSTALLED, UnknownBoard, find, listed};
pub use flash::{Places, Tell, flash};
pub use keys::{KEYS, UnknownKey, get};
pub use modelled::Modelled;
pub use number::{amount, rate};
pub use power::{ADDRESS_FIRST, ADDRESS_LAST, Choice, PowerTable};
pub use problem::Problem;
pub use read::{read, read_checked, wrong};
