//! A power sensor on a USB cable that is a socket: what a virtual machine takes for an I2C adapter with a chip on it.
//!
//! QEMU's `usb-redir` device connects to a [`peer`]; the [`redir`] protocol carries its control transfers to an
//! [`adapter`], and that to any I2C bus of embedded-hal, as the simulated INA219 is one. The guest's own kernel drives
//! it: nothing in the guest knows that it is not real.
//!
//! Invariant: what a peer sends can end its connection, and nothing else.

pub mod adapter;
pub mod dial;
pub mod peer;
pub mod redir;
pub mod session;
