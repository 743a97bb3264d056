//! What lies on each GPU, whichever resource it belongs to: a choice of one resource's slices leaves room, or takes it, for
//! what other resources' slices could be cut into.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mig_model::{Placement, ResourceName};

use crate::prepare::Prepared;

/// The node's slices by their GPU's UUID.
type Slices = HashMap<String, Vec<Slice>>;

#[derive(Debug)]
struct Slice {
    resource: ResourceName,
    id: String,
    placement: Placement,
}

/// What is offered at present.
#[derive(Debug, Default)]
pub(crate) struct Ground(Mutex<Arc<Slices>>);

/// A slice of another resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) placement: Placement,
    /// A pod may hold it.
    pub(crate) is_in_use: bool,
}

impl Ground {
    pub(crate) fn update(&self, prepared: &Prepared) {
        let mut slices = Slices::new();
        for (resource, offered) in &prepared.resources {
            for device in offered.iter().map(|offered| &offered.device) {
                let Some(placement) = device.placement else { continue };
                let slice = Slice { resource: resource.clone(), id: device.id.clone(), placement };
                slices.entry(device.gpu.clone()).or_default().push(slice);
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(slices);
    }

    /// The slices of other resources, by GPU, and whether each is in use: what is unknown is.
    pub(crate) fn neighbours<'a>(
        &self,
        resource: &'a ResourceName,
        is_held: impl Fn(&str) -> Option<bool> + 'a,
    ) -> impl Fn(&str) -> Vec<Neighbour> + 'a {
        let slices = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        move |gpu| {
            let others = slices.get(gpu).into_iter().flatten().filter(|slice| slice.resource != *resource);
            let neighbour =
                |slice: &Slice| Neighbour { placement: slice.placement, is_in_use: is_held(&slice.id) != Some(false) };
            others.map(neighbour).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mig_model::{Device, ResourceDomain};

    use super::*;
    use crate::container::gift::Offered;
    use crate::roster::tests::device;

    #[test]
    fn neighbours_are_the_slices_of_other_resources_on_the_same_gpu() {
        let resource = |profile: &str| ResourceName::mig(&ResourceDomain::default(), &profile.parse().unwrap());
        let placed = |id: &str, gpu: &str, placement: Option<Placement>| {
            let offered = device(id, gpu);
            Offered { device: Device { placement, ..offered.device }, ..offered }
        };
        let half = |start| Some(Placement { start, size: 4 });
        let large = vec![
            placed("MIG-a", "GPU-0", half(0)),
            placed("MIG-b", "GPU-0", half(4)),
            placed("MIG-c", "GPU-1", half(4)),
            placed("MIG-d", "GPU-0", None),
        ];
        let small = vec![placed("MIG-e", "GPU-0", Some(Placement { start: 0, size: 1 }))];
        let resources = BTreeMap::from([(resource("3g.20gb"), large), (resource("1g.5gb"), small)]);
        let ground = Ground::default();
        ground.update(&Prepared { resources, ..Prepared::default() });

        let told = |of: &str, gpu: &str| -> Vec<(u32, bool)> {
            let (of, is_held) = (resource(of), |id: &str| (id != "MIG-b").then_some(id == "MIG-c"));
            let neighbours = ground.neighbours(&of, is_held)(gpu);
            neighbours.iter().map(|neighbour| (neighbour.placement.start, neighbour.is_in_use)).collect()
        };
        assert_eq!(told("1g.5gb", "GPU-0"), [(0, false), (4, true)], "what is unknown is in use");
        assert_eq!(told("1g.5gb", "GPU-1"), [(4, true)]);
        assert_eq!(told("3g.20gb", "GPU-0"), [(0, false)]);
        assert_eq!(told("3g.20gb", "GPU-1"), []);
        ground.update(&Prepared::default());
        assert_eq!(told("1g.5gb", "GPU-0"), []);
    }
}
