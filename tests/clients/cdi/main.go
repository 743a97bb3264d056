// Reads CDI specs as a container runtime does, gives devices to an empty container, and prints what it has then: the OCI
// runtime's configuration as JSON.
//
//	cdi DIRECTORY NAME...
//
// Exit code 1: a spec is not valid, or a device is not to be had. The library has no schema by itself any more; the one
// that is used here is of CDI 0.5, which is the version that our specs state.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/container-orchestrated-devices/container-device-interface/schema"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(directory string, names []string) error {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(directory), cdi.WithAutoRefresh(false))
	if err != nil {
		return err
	}
	for path, errs := range cache.GetErrors() {
		return fmt.Errorf("%s: %v", path, errs)
	}
	for _, vendor := range cache.ListVendors() {
		for _, spec := range cache.GetVendorSpecs(vendor) {
			least, err := cdi.MinimumRequiredVersion(spec.Spec)
			if err != nil {
				return err
			}
			if err := schema.BuiltinSchema().ValidateFile(spec.GetPath()); err != nil {
				return fmt.Errorf("%s: %w", spec.GetPath(), err)
			}
			fmt.Fprintf(os.Stderr, "%s needs %s and states %s\n", spec.GetPath(), least, spec.Version)
		}
	}
	container := &oci.Spec{}
	if unresolved, err := cache.InjectDevices(container, names...); err != nil {
		return fmt.Errorf("%v: %w", unresolved, err)
	}
	return json.NewEncoder(os.Stdout).Encode(container)
}
