/* A stand-in for libnvidia-ml.so.1, for machines without GPUs: three of them, of which the first is well, the second
 * has broken memory and a narrow link, and the third has fallen off the bus. Only what ff2 asks for is there; types and
 * numbers are those of nvml.h. */
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15 };
enum { GPUS = 3 };

typedef struct { unsigned index; } *device_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info_t;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type, answer;
    unsigned long long value;
} field_value_t;

static struct { unsigned index; } devices[GPUS] = { { 0 }, { 1 }, { 2 } };

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "550.1");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if (index >= GPUS) return INVALID_ARGUMENT;
    if (index == 2) return GPU_IS_LOST;
    *device = (device_t)&devices[index];
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) { *minor = device->index; return SUCCESS; }

int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%08x", device->index);
    return SUCCESS;
}

int nvmlDeviceGetName(device_t device, char *name, unsigned length) {
    snprintf(name, length, "NVIDIA A100-PCIE-40GB");
    (void)device;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(device_t device, memory_t *memory) {
    (void)device;
    if (memory->version != (sizeof *memory | 2u << 24)) return INVALID_ARGUMENT;
    memory->reserved = 0;
    memory->total = 40960ull << 20;
    memory->used = 0;
    memory->free = memory->total;
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(device_t device, pci_info_t *info) {
    memset(info, 0, sizeof *info);
    info->bus = 0x3b + device->index;
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "0000:%02X:00.0", info->bus);
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(device_t device, int kind, int counter, unsigned long long *count) {
    (void)kind;
    (void)counter;
    *count = device->index == 1 ? 5 : 0;
    return SUCCESS;
}

/* As on Ampere: rows are remapped, pages are not retired. */
int nvmlDeviceGetRetiredPages(device_t device, int cause, unsigned *count, unsigned long long *addresses) {
    (void)device; (void)cause; (void)count; (void)addresses;
    return NOT_SUPPORTED;
}

int nvmlDeviceGetRetiredPagesPendingStatus(device_t device, int *pending) {
    (void)device; (void)pending;
    return NOT_SUPPORTED;
}

int nvmlDeviceGetFieldValues(device_t device, int count, field_value_t *values) {
    for (int i = 0; i < count; i++) {
        values[i].type = 1; /* unsigned int */
        values[i].answer = values[i].field == 144 || values[i].field == 145 ? SUCCESS : NOT_SUPPORTED;
        values[i].value = values[i].field == 144 && device->index == 1; /* remapping pending */
    }
    return SUCCESS;
}

int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 40 + device->index;
    return SUCCESS;
}

int nvmlDeviceGetTemperatureThreshold(device_t device, int kind, unsigned *celsius) {
    (void)device; (void)kind;
    *celsius = 92;
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkWidth(device_t device, unsigned *lanes) {
    *lanes = device->index == 1 ? 8 : 16;
    return SUCCESS;
}

int nvmlDeviceGetMaxPcieLinkWidth(device_t device, unsigned *lanes) { (void)device; *lanes = 16; return SUCCESS; }
