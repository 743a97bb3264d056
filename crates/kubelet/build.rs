//! Generates the kubelet's two gRPC APIs from `proto/`, with a compiler written in Rust: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = "../../proto";
    let files = ["deviceplugin.proto", "podresources.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={folder}/{file}");
        let descriptors = protox::compile([file], [folder])?;
        // Without tonic's own transport: every connection here is a Unix socket dialled by hand.
        tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    }
    Ok(())
}
