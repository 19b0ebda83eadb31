//! `sipfilterctl`: the operator's commands.
