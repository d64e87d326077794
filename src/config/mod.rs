//! The configuration file: schema, defaults, errors that name file, key and line.
