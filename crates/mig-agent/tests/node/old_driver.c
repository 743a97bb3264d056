// A driver from before MIG: one GPU, and none of the functions that came with R450.
#include <string.h>

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "418.226.00", length); return 0; }
int nvmlSystemGetNVMLVersion(char *text, unsigned length) { strncpy(text, "10.418.226.00", length); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(index + 1UL); return index ? 2 : 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) { strncpy(text, "GPU-0a0a0a0a-0000-1111-2222-333333333333", length); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) { strncpy(text, "Tesla V100-SXM2-16GB", length); return 0; }
int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) { *minor = 0; return 0; }
int nvmlDeviceGetPciInfo_v3(void *device, struct pci *info) {
  memset(info, 0, sizeof *info);
  strcpy(info->bus_id, "00000000:07:00.0");
  return 0;
}
