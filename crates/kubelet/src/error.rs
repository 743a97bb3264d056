use std::error::Error;
use std::path::PathBuf;

/// A call to the kubelet that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers at the socket.
    #[error("unable to reach the kubelet at {}", socket.display())]
    Connect {
        /// The kubelet's socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: tonic::transport::Error,
    },
    /// The kubelet answered with an error.
    #[error("the kubelet refused {call} ({:?}): {}", status.code(), status.message())]
    Refused {
        /// The RPC's name.
        call: &'static str,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// The kubelet did not answer in time.
    #[error("the kubelet did not answer {call} within {seconds} s")]
    Late {
        /// The RPC's name.
        call: &'static str,
        /// How long we waited.
        seconds: u64,
    },
}

/// An error with its causes in one line: "a: b: c".
pub fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // tonic and hyper often repeat their cause.
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line
}
