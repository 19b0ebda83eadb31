//! One datagram in IP fragments, in any order: see `sipfilter_fuzz::fragments`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(fragments);
