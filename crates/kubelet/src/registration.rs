use std::path::Path;
use std::time::Duration;

use crate::deviceplugin::registration_client::RegistrationClient;
use crate::deviceplugin::{DevicePluginOptions, RegisterRequest};
use crate::error::CallError;
use crate::socket::connect;

/// The only version that kubelets speak.
pub const API_VERSION: &str = "v1beta1";

/// Longer than the ten seconds for which the kubelet waits for the plugin while it is being asked.
const DEADLINE: Duration = Duration::from_secs(15);

/// What a plugin tells the kubelet.
#[derive(Debug, Clone)]
pub struct Registration {
    /// File name of the plugin's socket in the kubelet's device-plugins directory.
    pub endpoint: String,
    /// The resource as pods ask for it.
    pub resource_name: String,
    /// What the plugin supports.
    pub options: DevicePluginOptions,
}

/// Registers one resource. The kubelet dials the plugin back before it answers, so the plugin must serve already.
pub async fn register(kubelet_socket: &Path, registration: Registration) -> Result<(), CallError> {
    let request = RegisterRequest {
        version: API_VERSION.to_owned(),
        endpoint: registration.endpoint,
        resource_name: registration.resource_name,
        options: Some(registration.options),
    };
    let call = async {
        let channel = connect(kubelet_socket, DEADLINE).await?;
        let answer = RegistrationClient::new(channel).register(request).await;
        answer.map(|_| ()).map_err(|status| CallError::Refused { call: "Register", status: Box::new(status) })
    };
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::Late { call: "Register", seconds: DEADLINE.as_secs() }),
    }
}
