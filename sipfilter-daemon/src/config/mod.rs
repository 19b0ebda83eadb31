//! Configuration: TOML files, the provider catalogue and PBX presets, turned into checked settings.
