//! A power sensor on an emulated USB cable: a socket at which a virtual machine finds an I2C adapter with a chip.
//!
//! QEMU's `usb-redir` device connects to a [`peer`]. The [`redir`] protocol carries its control transfers to an
//! [`adapter`], which passes them to any I2C bus of embedded-hal, such as the simulated INA219. The guest's own kernel
//! drives it; the guest can't tell that it is not real.
//!
//! Invariant: malformed data from a peer can only end its own connection.

pub mod adapter;
pub mod dial;
pub mod peer;
pub mod redir;
pub mod session;
