//! The kubelet's side of the wire: its device-plugin and podresources APIs, where its sockets are, and how to notice
//! that it has started anew. Knows nothing of GPUs.

mod error;
mod paths;
mod podresources_client;
mod registration;
mod socket;
mod watch;

pub use error::{CallError, causes};
pub use paths::KubeletPaths;
pub use podresources_client::{Holding, list_holdings};
pub use registration::{API_VERSION, Registration, register};
pub use socket::{SocketIdentity, is_plugin};
pub use watch::{DirectoryLost, DirectoryState, watch_directory};

/// `v1beta1`, the device-plugin API, generated from `proto/deviceplugin.proto`.
pub mod deviceplugin {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    tonic::include_proto!("v1beta1");
}

/// `v1`, the podresources API, generated from `proto/podresources.proto`.
pub mod podresources {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    tonic::include_proto!("v1");
}
