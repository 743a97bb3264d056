//! Layouts: how a node's GPUs shall be cut, as files say it. mig-parted's `version: v1` is read as it is; ours,
//! `version: mig-agent/v1`, adds placements, compute instances and more ways to say which GPU is meant.
