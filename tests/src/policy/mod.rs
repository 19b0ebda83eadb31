//! The packet policy, packet by packet: one table of cases that the host runs and the kernel runs, and both must agree on; and packets
//! and tables without number from a generator, that both must agree on as well.

pub mod cases;
pub mod frame;
pub mod generate;
pub mod oracle;
pub mod random;
pub mod scenes;
pub mod verifier;
