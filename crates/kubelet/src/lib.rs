//! The kubelet's side of the wire (being written).

/// The device-plugin API.
pub mod deviceplugin {
    #![allow(missing_docs, unreachable_pub, clippy::allow_attributes_without_reason, reason = "generated code")]
    tonic::include_proto!("v1beta1");
}

/// The podresources API.
pub mod podresources {
    #![allow(missing_docs, unreachable_pub, clippy::allow_attributes_without_reason, reason = "generated code")]
    tonic::include_proto!("v1");
}
