//! One datagram as a SIP message: see `sipfilter_fuzz::message`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(message);
