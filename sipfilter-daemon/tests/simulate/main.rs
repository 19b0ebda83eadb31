//! `simulate`: captures made here, packet by packet, and what the report must say of them.

mod cli;
mod film;
mod formats;
mod misses;
mod stories;
