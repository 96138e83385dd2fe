//! lazystore.
