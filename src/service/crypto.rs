//! Which cryptography TLS uses.

/// Chooses it for the whole process, unless somebody has before: then it is that one. Whoever makes a client of HTTP calls
/// this first.
pub fn choose() {
    // An error says that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
