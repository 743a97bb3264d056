//! The client: tonic on one thread, one connection for all calls, as a kubelet has.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::ensure;
use hyper_util::rt::TokioIo;
use kubelet::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, Empty, PreferredAllocationRequest,
    device_plugin_client::DevicePluginClient,
};
use tokio::{net::UnixStream, task::JoinSet};
use tonic::transport::{Channel, Endpoint};

/// A plugin's answers are a few kilobytes; this many wait at once where many do.
pub(crate) const AT_ONCE: usize = 16;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// GetDevicePluginOptions: what a call costs that does nothing.
    Empty,
    /// One device.
    Allocate,
    /// Seven of all, in an order that is another each time.
    Preferred,
}

impl Call {
    pub(crate) const ALL: [Self; 3] = [Self::Empty, Self::Allocate, Self::Preferred];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty call",
            Self::Allocate => "Allocate",
            Self::Preferred => "GetPreferredAllocation",
        }
    }
}

/// A connection to a plugin that offers `ids`.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    plugin: DevicePluginClient<Channel>,
    ids: Vec<String>,
    /// Of a generator that needs no more than to be the same each time.
    seed: usize,
}

impl Client {
    pub(crate) async fn connect(socket: &Path, ids: Vec<String>) -> anyhow::Result<Self> {
        let socket = socket.to_owned();
        let dial = tower::service_fn(move |_| {
            let socket: PathBuf = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(dial).await?;
        Ok(Self { plugin: DevicePluginClient::new(channel), ids, seed: 1 })
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below.max(1)
    }

    /// One call, from before its message is encoded until its answer is decoded. The request is made before.
    async fn time(&mut self, call: Call) -> anyhow::Result<Duration> {
        match call {
            Call::Empty => {
                let began = Instant::now();
                self.plugin.get_device_plugin_options(Empty {}).await?;
                Ok(began.elapsed())
            }
            Call::Allocate => {
                let place = self.random(self.ids.len());
                let ids = self.ids.get(place).cloned().into_iter().collect();
                let request = AllocateRequest { containers: vec![ContainerAllocateRequest { ids }] };
                let began = Instant::now();
                let answer = self.plugin.allocate(request).await?;
                let took = began.elapsed();
                ensure!(answer.get_ref().containers.len() == 1, "Allocate answers nothing");
                Ok(took)
            }
            Call::Preferred => self.prefer().await.map(|(took, _)| took),
        }
    }

    /// Seven of all: how long it took, and which.
    pub(crate) async fn prefer(&mut self) -> anyhow::Result<(Duration, Vec<String>)> {
        let mut available_ids = self.ids.clone();
        for last in (1..available_ids.len()).rev() {
            let other = self.random(last + 1);
            available_ids.swap(last, other);
        }
        let containers =
            vec![ContainerPreferredAllocationRequest { available_ids, must_include_ids: Vec::new(), size: 7 }];
        let began = Instant::now();
        let answer = self.plugin.get_preferred_allocation(PreferredAllocationRequest { containers }).await?;
        let took = began.elapsed();
        let chosen = answer.into_inner().containers.into_iter().next().map(|first| first.ids).unwrap_or_default();
        ensure!(chosen.len() == 7, "GetPreferredAllocation chose {} instead of 7", chosen.len());
        Ok((took, chosen))
    }

    /// One call after the other.
    pub(crate) async fn in_turn(&mut self, call: Call, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            times.push(self.time(call).await?);
        }
        Ok(times)
    }

    /// `AT_ONCE` callers, each with the next call as soon as it has an answer.
    pub(crate) async fn at_once(&self, call: Call, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut callers = JoinSet::new();
        for number in 0..AT_ONCE {
            let mut caller = Self { seed: number, ..self.clone() };
            callers.spawn(async move { caller.in_turn(call, count / AT_ONCE).await });
        }
        let mut times = Vec::with_capacity(count);
        while let Some(ended) = callers.join_next().await {
            times.append(&mut ended??);
        }
        Ok(times)
    }
}
