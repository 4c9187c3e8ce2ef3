//! Connections to the store.
