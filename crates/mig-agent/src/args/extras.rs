//! NVIDIA's switches for what goes with GPUs.

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use mig_device_plugin::Extra;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExtraArgs {
    /// Containers get what GDRCopy needs: NVIDIA_GDRCOPY=enabled for NVIDIA's runtime; by CDI, and with
    /// --pass-device-specs, /dev/gdrdrv
    #[arg(long, env = "GDRCOPY_ENABLED", value_name = "BOOL", num_args = 0..=1, default_value = "false",
        default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    gdrcopy_enabled: bool,

    /// What GPUDirect Storage needs: NVIDIA_GDS=enabled; /dev/nvidia-fs*, and by CDI /etc/cufile.json and /run/udev
    #[arg(long, env = "GDS_ENABLED", value_name = "BOOL", num_args = 0..=1, default_value = "false",
        default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    gds_enabled: bool,

    /// What Mellanox OFED needs: NVIDIA_MOFED=enabled; /dev/infiniband/uverbs* and rdma_cm
    #[arg(long, env = "MOFED_ENABLED", value_name = "BOOL", num_args = 0..=1, default_value = "false",
        default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    mofed_enabled: bool,
}

impl ExtraArgs {
    /// Each with its field's name and whether it is asked for.
    pub(crate) fn all(&self) -> [(Extra, &'static str, bool); 3] {
        [
            (Extra::GdrCopy, "gdrcopy_enabled", self.gdrcopy_enabled),
            (Extra::Gds, "gds_enabled", self.gds_enabled),
            (Extra::Mofed, "mofed_enabled", self.mofed_enabled),
        ]
    }
}
