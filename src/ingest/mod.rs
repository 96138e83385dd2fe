//! Trees into the services.
