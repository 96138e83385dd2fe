//! Generated protocol code, and the checked conversions to and from the pure types.
//!
//! Both dialects share their messages: [`castore`] and [`store`] hold them and the services of the older one,
//! [`snix_castore`] and [`snix_store`] the services of the newer one over the same types. [`ranges`] is our own.

mod convert;

pub use convert::{
    castore::{NodeMessageError, named_node},
    path_info::PathInfoMessageError,
};
pub use generated::{
    lazystore::v1 as ranges,
    snix::{castore::v1 as snix_castore, store::v1 as snix_store},
    tvix::{castore::v1 as castore, store::v1 as store},
};

/// The compiled protocol of the older dialect, for reflection: a `FileDescriptorSet`.
pub const TVIX_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tvix.descriptors"));

/// The compiled protocol of the newer dialect, for reflection: a `FileDescriptorSet`.
pub const SNIX_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/snix.descriptors"));

/// The compiled protocol of our own service, for reflection: a `FileDescriptorSet`.
pub const LAZYSTORE_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/lazystore.descriptors"));

/// Nested as the packages are, because the generated code refers from one to the other by relative paths.
#[allow(missing_docs, clippy::all)]
mod generated {
    pub mod lazystore {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/lazystore.v1.rs"));
        }
    }
    pub mod tvix {
        pub mod castore {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/tvix.castore.v1.rs"));
            }
        }
        pub mod store {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/tvix.store.v1.rs"));
            }
        }
    }
    pub mod snix {
        pub mod castore {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/snix.castore.v1.rs"));
            }
        }
        pub mod store {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/snix.store.v1.rs"));
            }
        }
    }
}
