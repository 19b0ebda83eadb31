//! The packet policy, packet by packet: one table of cases that the host runs and the kernel runs, and both must agree on.

pub mod cases;
pub mod frame;
pub mod scenes;
