//! A board as data: the settings that depend on the hardware, not on the user. `boards/` has one file per board.
//! Scripts read it to build programs, packages and images; the agent reads it on the board.
//!
//! Invariant: no code here depends on a board's name. A new board is a file.

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
