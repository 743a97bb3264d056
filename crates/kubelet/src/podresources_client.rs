use std::path::Path;
use std::time::Duration;

use tonic::Code;

use crate::error::CallError;
use crate::podresources::ListRequest;
use crate::podresources::pod_resources_lister_client::PodResourcesListerClient;
use crate::socket::connect;

const DEADLINE: Duration = Duration::from_secs(5);

/// While it has been asked too often.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A node may run hundreds of pods, each with many devices; the default of 4 MiB has been seen to be too small.
const LONGEST_ANSWER: usize = 64 << 20;

/// Devices of one resource that one container holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The resource.
    pub resource: String,
    /// What it holds of it.
    pub ids: Vec<String>,
}

/// Who holds what on this node now. Init containers that have ended are not in it, though their pod still holds
/// their devices: not being listed is not the same as being free.
pub async fn list_holdings(pod_resources_socket: &Path) -> Result<Vec<Holding>, CallError> {
    let call = async {
        let channel = connect(pod_resources_socket, DEADLINE).await?;
        let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(LONGEST_ANSWER);
        let mut pause = FIRST_PAUSE;
        loop {
            match client.list(ListRequest {}).await {
                // The kubelet answers so many calls a second, of all its clients: it is a matter of milliseconds.
                Err(status) if status.code() == Code::ResourceExhausted && pause < LAST_PAUSE => {
                    tokio::time::sleep(pause).await;
                }
                answer => {
                    let refused = |status| CallError::Refused { call: "PodResources.List", status: Box::new(status) };
                    return answer.map_err(refused);
                }
            }
            pause *= 2;
        }
    };
    let pods = match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer?.into_inner().pods,
        Err(_) => return Err(CallError::Late { call: "PodResources.List", seconds: DEADLINE.as_secs() }),
    };
    let mut holdings = Vec::new();
    for pod in pods {
        for container in pod.containers {
            for devices in container.devices {
                holdings.push(Holding {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container: container.name.clone(),
                    resource: devices.resource_name,
                    ids: devices.device_ids,
                });
            }
        }
    }
    Ok(holdings)
}
