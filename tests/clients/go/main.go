// Does what mig-parted does, by the libraries that mig-parted is made of: applies, asserts, exports and clears MIG layouts.
//
// A layout is JSON, GPU index to profile to count: {"0": {"1g.5gb": 2, "3g.20gb": 1}}. Exit code 1: it is not so, or could
// not be made so; 2: the layout makes no sense for these GPUs.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

type layout map[int]map[string]int

var errSenseless = errors.New("the layout makes no sense here")

func main() {
	err := run(os.Args[1:])
	switch {
	case err == nil:
		return
	case errors.Is(err, errSenseless):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("usage: mode 0|1, apply LAYOUT, assert LAYOUT, export, clear")
	}
	lib := nvml.New()
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return fmt.Errorf("init: %w", ret)
	}
	defer lib.Shutdown()
	devices := device.New(lib)
	switch verb, rest := arguments[0], arguments[1:]; {
	case verb == "export" && len(rest) == 0:
		return export(devices)
	case verb == "clear" && len(rest) == 0:
		return devices.VisitDevices(func(_ int, gpu device.Device) error { return clearGPU(gpu) })
	case verb == "mode" && len(rest) == 1:
		return setMode(devices, rest[0] == "1")
	case (verb == "apply" || verb == "assert") && len(rest) == 1:
		wanted, err := parse(devices, rest[0])
		if err != nil {
			return err
		}
		if verb == "apply" {
			return apply(devices, wanted)
		}
		return assert(devices, wanted)
	default:
		return fmt.Errorf("no such verb, or not with these arguments: %v", arguments)
	}
}

// parse refuses a layout for GPUs that there are not, or of profiles that a GPU does not have.
func parse(devices device.Interface, text string) (layout, error) {
	wanted := layout{}
	if err := json.Unmarshal([]byte(text), &wanted); err != nil {
		return nil, fmt.Errorf("%w: %v", errSenseless, err)
	}
	gpus, err := devices.GetDevices()
	if err != nil {
		return nil, err
	}
	for index, profiles := range wanted {
		if index < 0 || index >= len(gpus) {
			return nil, fmt.Errorf("%w: no GPU %d", errSenseless, index)
		}
		for name := range profiles {
			if err := devices.AssertValidMigProfileFormat(name); err != nil {
				return nil, fmt.Errorf("%w: %v", errSenseless, err)
			}
			if _, err := profileOf(gpus[index], name); err != nil {
				return nil, err
			}
		}
	}
	return wanted, nil
}

func profileOf(gpu device.Device, name string) (device.MigProfile, error) {
	profiles, err := gpu.GetMigProfiles()
	if err != nil {
		return nil, err
	}
	for _, profile := range profiles {
		if profile.Matches(name) {
			return profile, nil
		}
	}
	return nil, fmt.Errorf("%w: this GPU has no %s", errSenseless, name)
}

// setMode sets the mode of every GPU that has one, and prints what the driver says is still needed.
func setMode(devices device.Interface, enabled bool) error {
	mode := nvml.DEVICE_MIG_DISABLE
	if enabled {
		mode = nvml.DEVICE_MIG_ENABLE
	}
	needed := map[string]string{}
	err := devices.VisitDevices(func(index int, gpu device.Device) error {
		if capable, err := gpu.IsMigCapable(); err != nil || !capable {
			return err
		}
		activation, ret := gpu.SetMigMode(mode)
		if ret != nvml.SUCCESS {
			return fmt.Errorf("mode of GPU %d: %w", index, ret)
		}
		needed[strconv.Itoa(index)] = nvml.ErrorString(activation)
		return nil
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(needed)
}

// apply clears each GPU of the layout and creates its profiles, in every order until one fits.
func apply(devices device.Interface, wanted layout) error {
	for index, counts := range wanted {
		gpu, err := gpuAt(devices, index)
		if err != nil {
			return err
		}
		var profiles []device.MigProfile
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			profile, err := profileOf(gpu, name)
			if err != nil {
				return err
			}
			for range counts[name] {
				profiles = append(profiles, profile)
			}
		}
		if err := permute(profiles, len(profiles), func(order []device.MigProfile) error { return create(gpu, order) }); err != nil {
			return fmt.Errorf("GPU %d: %w", index, err)
		}
	}
	return nil
}

// permute calls try with every order, the given one first, until it succeeds or fails other than for want of room.
func permute(profiles []device.MigProfile, count int, try func([]device.MigProfile) error) error {
	if count <= 1 {
		return try(profiles)
	}
	var err error
	tried := map[string]bool{}
	for i := range count {
		last := profiles[count-1-i].String()
		if tried[last] {
			continue
		}
		tried[last] = true
		order := slices.Clone(profiles)
		order[count-1], order[count-1-i] = order[count-1-i], order[count-1]
		if err = permute(order, count-1, try); !errors.Is(err, nvml.ERROR_INSUFFICIENT_RESOURCES) {
			return err
		}
	}
	return err
}

// create empties the GPU and fills it in this order; the driver chooses the places.
func create(gpu device.Device, order []device.MigProfile) error {
	if err := clearGPU(gpu); err != nil {
		return err
	}
	for _, profile := range order {
		wanted := profile.GetInfo()
		info, ret := gpu.GetGpuInstanceProfileInfo(wanted.GIProfileID)
		if ret != nvml.SUCCESS {
			return fmt.Errorf("profile of %s: %w", profile, ret)
		}
		instance, ret := gpu.CreateGpuInstance(&info)
		if ret != nvml.SUCCESS {
			return fmt.Errorf("GPU instance of %s: %w", profile, ret)
		}
		part, ret := instance.GetComputeInstanceProfileInfo(wanted.CIProfileID, wanted.CIEngProfileID)
		if ret != nvml.SUCCESS {
			return fmt.Errorf("compute profile of %s: %w", profile, ret)
		}
		if _, ret = instance.CreateComputeInstance(&part); ret != nvml.SUCCESS {
			return fmt.Errorf("compute instance of %s: %w", profile, ret)
		}
	}
	return nil
}

// clearGPU destroys every compute instance, then every GPU instance.
func clearGPU(gpu device.Device) error {
	if enabled, err := gpu.IsMigEnabled(); err != nil || !enabled {
		return err
	}
	for i := range nvml.GPU_INSTANCE_PROFILE_COUNT {
		info, ret := gpu.GetGpuInstanceProfileInfo(i)
		if ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_INVALID_ARGUMENT {
			continue
		} else if ret != nvml.SUCCESS {
			return fmt.Errorf("profile %d: %w", i, ret)
		}
		instances, ret := gpu.GetGpuInstances(&info)
		if ret != nvml.SUCCESS {
			return fmt.Errorf("GPU instances of profile %d: %w", i, ret)
		}
		for _, instance := range instances {
			if err := clearInstance(instance); err != nil {
				return err
			}
			if ret := instance.Destroy(); ret != nvml.SUCCESS {
				return fmt.Errorf("destroying a GPU instance: %w", ret)
			}
		}
	}
	return nil
}

func clearInstance(instance nvml.GpuInstance) error {
	for i := range nvml.COMPUTE_INSTANCE_PROFILE_COUNT {
		info, ret := instance.GetComputeInstanceProfileInfo(i, nvml.COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
		if ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_INVALID_ARGUMENT {
			continue
		} else if ret != nvml.SUCCESS {
			return fmt.Errorf("compute profile %d: %w", i, ret)
		}
		parts, ret := instance.GetComputeInstances(&info)
		if ret != nvml.SUCCESS {
			return fmt.Errorf("compute instances of profile %d: %w", i, ret)
		}
		for _, part := range parts {
			if ret := part.Destroy(); ret != nvml.SUCCESS {
				return fmt.Errorf("destroying a compute instance: %w", ret)
			}
		}
	}
	return nil
}

// assert says whether the GPUs of the layout have exactly what it says.
func assert(devices device.Interface, wanted layout) error {
	for index, counts := range wanted {
		gpu, err := gpuAt(devices, index)
		if err != nil {
			return err
		}
		found, err := countsOf(gpu)
		if err != nil {
			return err
		}
		if !maps.Equal(found, counts) {
			return fmt.Errorf("GPU %d: wanted %v, found %v", index, counts, found)
		}
	}
	return nil
}

func gpuAt(devices device.Interface, index int) (device.Device, error) {
	gpus, err := devices.GetDevices()
	if err != nil {
		return nil, err
	}
	return gpus[index], nil
}

func countsOf(gpu device.Device) (map[string]int, error) {
	migs, err := gpu.GetMigDevices()
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, mig := range migs {
		profile, err := mig.GetProfile()
		if err != nil {
			return nil, err
		}
		found[profile.String()]++
	}
	return found, nil
}

type exported struct {
	Index    int            `json:"index"`
	UUID     string         `json:"uuid"`
	Name     string         `json:"name"`
	PCI      string         `json:"pci"`
	Capable  bool           `json:"capable"`
	Enabled  bool           `json:"enabled"`
	Layout   map[string]int `json:"layout"`
	Profiles []string       `json:"profiles"`
	Devices  []migDevice    `json:"devices"`
}

type migDevice struct {
	Index    int    `json:"index"`
	UUID     string `json:"uuid"`
	Profile  string `json:"profile"`
	Instance int    `json:"instance"`
	Compute  int    `json:"compute"`
}

// export prints everything that the libraries tell of the GPUs.
func export(devices device.Interface) error {
	all := []exported{}
	err := devices.VisitDevices(func(index int, gpu device.Device) error {
		one, err := exportGPU(devices, index, gpu)
		all = append(all, one)
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

func exportGPU(devices device.Interface, index int, gpu device.Device) (exported, error) {
	one := exported{Index: index, Profiles: []string{}, Devices: []migDevice{}}
	var ret nvml.Return
	if one.UUID, ret = gpu.GetUUID(); ret != nvml.SUCCESS {
		return one, fmt.Errorf("UUID: %w", ret)
	}
	if one.Name, ret = gpu.GetName(); ret != nvml.SUCCESS {
		return one, fmt.Errorf("name: %w", ret)
	}
	var err error
	if one.PCI, err = gpu.GetPCIBusID(); err != nil {
		return one, err
	}
	if one.Capable, err = gpu.IsMigCapable(); err != nil {
		return one, err
	}
	if one.Enabled, err = gpu.IsMigEnabled(); err != nil {
		return one, err
	}
	if one.Layout, err = countsOf(gpu); err != nil {
		return one, err
	}
	profiles, err := gpu.GetMigProfiles()
	if err != nil {
		return one, err
	}
	for _, profile := range profiles {
		one.Profiles = append(one.Profiles, profile.String())
	}
	return one, gpu.VisitMigDevices(func(at int, mig device.MigDevice) error {
		found, err := exportDevice(devices, at, mig)
		one.Devices = append(one.Devices, found)
		return err
	})
}

// exportDevice finds the device again by its UUID: that has to be the same one.
func exportDevice(devices device.Interface, index int, mig device.MigDevice) (migDevice, error) {
	found := migDevice{Index: index}
	uuid, ret := mig.GetUUID()
	if ret != nvml.SUCCESS {
		return found, fmt.Errorf("UUID of MIG device %d: %w", index, ret)
	}
	found.UUID = uuid
	again, err := devices.NewMigDeviceByUUID(uuid)
	if err != nil {
		return found, err
	}
	profile, err := again.GetProfile()
	if err != nil {
		return found, err
	}
	found.Profile = profile.String()
	if found.Instance, ret = again.GetGpuInstanceId(); ret != nvml.SUCCESS {
		return found, fmt.Errorf("GPU instance of %s: %w", uuid, ret)
	}
	if found.Compute, ret = again.GetComputeInstanceId(); ret != nvml.SUCCESS {
		return found, fmt.Errorf("compute instance of %s: %w", uuid, ret)
	}
	return found, nil
}
