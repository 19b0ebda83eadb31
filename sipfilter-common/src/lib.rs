//! The contract of kernel and user space, and the whole packet policy as pure functions.
#![cfg_attr(not(test), no_std)]

pub mod value;
