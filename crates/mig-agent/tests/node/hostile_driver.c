// A driver whose texts are made to end up where they do harm: in the log, in pages, in metrics and labels.
#include <string.h>

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

// As much as there is room for, and no end.
static int fill(char *text, unsigned length, const char *with) {
  memset(text, 'A', length);
  memcpy(text, with, strlen(with) < length ? strlen(with) : length);
  return 0;
}

static void *const gpus[] = {(void *)1, (void *)2, (void *)3};

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  return fill(text, length, "580\n2026-01-01T00:00:00Z ERROR forged\x1b[2J\ninjected 1\n\xff\xfe<script>alert(1)</script>");
}
int nvmlSystemGetNVMLVersion(char *text, unsigned length) { return fill(text, length, "\"}\r\ninjected{a=\"b\"} 1\r\n"); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index > 2) return 2;
  *device = gpus[index];
  return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
  if (device == gpus[1]) return fill(text, length, "GPU-1\ninjected 2");
  if (device == gpus[2]) return fill(text, length, "GPU-2,GPU-3 <script>");
  strncpy(text, "GPU-0a0a0a0a-0000-1111-2222-333333333333", length);
  return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
  return fill(text, length, "Tesla\n{\"level\":\"ERROR\"}\ninjected=1\n<script>\x1b]0;x\x07\xc3\x28 \"\\");
}
int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) { *minor = 0; return 0; }
int nvmlDeviceGetPciInfo_v3(void *device, struct pci *info) {
  memset(info, 'A', sizeof *info);
  strcpy(info->bus_id, "0000/../../etc\n:0");
  return 0;
}
