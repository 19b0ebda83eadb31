//! A byte stream of SIP messages, cut anywhere: see `sipfilter_fuzz::stream`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(stream);
