//! Connections to the store.

mod settings;

pub use self::settings::{Address, Place, Settings};
