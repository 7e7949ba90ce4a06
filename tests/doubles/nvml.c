/*
 * A stand-in libnvidia-ml.so.1 for machines without a GPU, to be loaded by the real nvidia-ml-py binding.
 *
 * Energy is integrated here from power over CLOCK_MONOTONIC (or over the page's own clock), so that power and energy
 * agree. This file answers for boards; nvml_mig.c for MIG devices and their activity.
 */
#define _GNU_SOURCE
#include "nvml_double.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };
enum { TYPE_UINT = 1, TYPE_ULONG_LONG = 3 };

struct process_info { uint32_t pid; uint64_t memory; uint32_t gpu_instance, compute_instance; };
struct utilization { uint32_t pid; uint64_t stamp_us; uint32_t sm, memory, encoder, decoder; };
struct field {
    uint32_t id, scope;
    int64_t stamp_us, latency_us;
    uint32_t type;
    int32_t error;
    union { uint32_t ui; uint64_t ull; } value;
};

static struct page *page;
static int sessions;
static uint32_t session_generation;
static int device = -1; /* open while there is a session, as /dev/nvidiactl is: a file "nvidiactl" beside the library */

static int open_beside(const char *name, int flags) {
    Dl_info self;
    char path[4096];
    if (!dladdr((void *)open_beside, &self)) return -1;
    const char *slash = strrchr(self.dli_fname, '/');
    int length = slash ? (int)(slash - self.dli_fname) : 1;
    snprintf(path, sizeof path, "%.*s/%s", length, slash ? self.dli_fname : ".", name);
    return open(path, flags | O_CLOEXEC, 0600);
}

static struct page *map_page(void) {
    int fd = open_beside("state", O_RDWR);
    if (fd < 0) return NULL;
    void *mapped = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED || ((struct page *)mapped)->magic != MAGIC) return NULL;
    return mapped;
}

static void nap(uint64_t delay_us) {
    struct timespec left = { (time_t)(delay_us / 1000000), (long)(delay_us % 1000000) * 1000 };
    while (nanosleep(&left, &left) != 0) { }
}

int entered(int function) {
    if (!page && !(page = map_page())) return DRIVER_NOT_LOADED;
    __atomic_add_fetch(&page->calls[function], 1, __ATOMIC_RELAXED);
    if (page->delay_us[function]) nap(page->delay_us[function]);
    if (function != F_INIT && (!sessions || session_generation != page->generation)) return UNINITIALIZED;
    return page->errors[function];
}

/* A consistent copy of one GPU, however the writer is interleaved. */
static void copy_gpu(unsigned index, struct found *found) {
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t before = __atomic_load_n(&page->sequence, __ATOMIC_ACQUIRE);
        if (!(before & 1)) {
            found->gpu = page->gpus[index];
            found->now_ns = page->now_ns;
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (__atomic_load_n(&page->sequence, __ATOMIC_RELAXED) == before) break;
        }
        nap(10);
    }
    if (!found->now_ns) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        found->now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
}

/* A handle, from the lowest byte: 1 + the board; 1 + the place of a MIG device, or 0; its epoch; the generation. */
static void *handle_of(unsigned index) {
    return (void *)(((uintptr_t)page->generation << 24) | (index + 1));
}

void *mig_handle_of(void *board, const struct gpu *gpu, unsigned place) {
    return (void *)((uintptr_t)board | (uintptr_t)(gpu->mig_epoch & 0xff) << 16 | (uintptr_t)(place + 1) << 8);
}

int find(int function, void *handle, struct found *found) {
    int error = entered(function);
    if (error) return error;
    uintptr_t bits = (uintptr_t)handle, index = (bits & 0xff) - 1, place = bits >> 8 & 0xff;
    if (bits >> 24 != page->generation || index >= page->gpu_count) return INVALID_ARGUMENT;
    copy_gpu((unsigned)index, found);
    const struct gpu *gpu = &found->gpu;
    found->instance = NULL;
    if (gpu->error || gpu->errors[function]) return gpu->error ? gpu->error : gpu->errors[function];
    if (!place) return SUCCESS;
    found->instance = &found->gpu.instances[place - 1];
    if (!gpu->mig || place > gpu->instance_count || !found->instance->slices) return INVALID_ARGUMENT;
    if ((bits >> 16 & 0xff) != (gpu->mig_epoch & 0xff)) return INVALID_ARGUMENT;
    return found->instance->errors[function];
}

int find_board(int function, void *handle, struct found *found) {
    int error = find(function, handle, found);
    return error ? error : found->instance ? NOT_SUPPORTED : SUCCESS;
}

static uint64_t energy_uj(const struct found *found) {
    const struct gpu *gpu = &found->gpu;
    int64_t now_ns = found->now_ns;
    if (page->refresh_ns) now_ns -= now_ns % page->refresh_ns;
    int64_t elapsed_ns = now_ns > gpu->base_ns ? now_ns - gpu->base_ns : 0;
    return gpu->base_uj + (uint64_t)((unsigned __int128)gpu->power_mw * (uint64_t)elapsed_ns / 1000000);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int error = entered(F_INIT);
    if (error) return error;
    if (session_generation != page->generation) sessions = 0;
    session_generation = page->generation;
    if (device < 0) device = open_beside("nvidiactl", O_RDWR | O_CREAT);
    sessions++;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    int error = entered(F_SHUTDOWN);
    if (error) return error;
    if (--sessions == 0 && device >= 0) {
        close(device);
        device = -1;
    }
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    default: return "Error of the stand-in library";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    int error = entered(F_DRIVER);
    if (!error) snprintf(version, length, "%s", page->driver);
    return error;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    int error = entered(F_COUNT);
    if (!error) *count = page->gpu_count;
    return error;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    struct found found;
    int error = entered(F_HANDLE);
    if (error) return error;
    if (index >= page->gpu_count) return INVALID_ARGUMENT;
    copy_gpu(index, &found);
    *handle = handle_of(index);
    return found.gpu.error ? found.gpu.error : found.gpu.errors[F_HANDLE];
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    struct found found;
    int error = entered(F_HANDLE);
    if (error) return error;
    for (unsigned index = 0; index < page->gpu_count; index++) {
        copy_gpu(index, &found);
        if (strcmp(found.gpu.uuid, uuid) == 0) {
            *handle = handle_of(index);
            return found.gpu.error ? found.gpu.error : found.gpu.errors[F_HANDLE];
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
    struct found found;
    int error = find(F_UUID, handle, &found);
    if (!error) snprintf(uuid, length, "%s", found.instance ? found.instance->uuid : found.gpu.uuid);
    return error;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    struct found found;
    int error = find_board(F_NAME, handle, &found);
    if (!error) snprintf(name, length, "%s", found.gpu.name);
    return error;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    struct found found;
    int error = find_board(F_CAPABILITY, handle, &found);
    if (error) return error;
    *major = (int)found.gpu.capability_major;
    *minor = (int)found.gpu.capability_minor;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power_mw) {
    struct found found;
    int error = find_board(F_POWER, handle, &found);
    if (!error) *power_mw = (unsigned)found.gpu.power_mw;
    return error;
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, unsigned *least_mw, unsigned *most_mw) {
    struct found found;
    int error = find_board(F_LIMIT, handle, &found);
    if (error) return error;
    *least_mw = found.gpu.limit_mw / 4;
    *most_mw = found.gpu.limit_mw;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj) {
    struct found found;
    int error = find_board(F_ENERGY, handle, &found);
    if (!error) *energy_mj = energy_uj(&found) / 1000;
    return error;
}

int nvmlDeviceGetFieldValues(void *handle, int count, struct field *fields) {
    struct found found;
    int error = find_board(F_FIELDS, handle, &found);
    if (error) return error;
    for (int i = 0; i < count; i++) {
        struct field *field = &fields[i];
        field->stamp_us = found.now_ns / 1000;
        field->latency_us = 1;
        field->error = found.gpu.field_error;
        if (field->id == FIELD_ENERGY) {
            field->type = TYPE_ULONG_LONG;
            field->value.ull = energy_uj(&found) / 1000;
        } else if (field->id == FIELD_AVERAGE || field->id == FIELD_INSTANT) {
            field->type = found.gpu.field_type;
            field->value.ull = found.gpu.power_mw;
        } else {
            field->error = NOT_SUPPORTED;
        }
    }
    return SUCCESS;
}

/* A MIG device tells its own processes; a board in MIG mode all, and where they are. */
static int running(int function, void *handle, unsigned *count, struct process_info *infos) {
    struct found found;
    int error = find(function, handle, &found);
    if (error) return error;
    unsigned room = infos ? *count : 0, listed = 0;
    for (unsigned i = 0; i < found.gpu.process_count; i++) {
        const struct process *process = &found.gpu.processes[i];
        const struct instance *on = NULL;
        if (found.gpu.mig && process->instance) on = &found.gpu.instances[process->instance - 1];
        if (process->graphics != (function == F_GRAPHICS) || (found.instance && on != found.instance)) continue;
        if (listed < room) {
            struct process_info info = { process->pid, process->memory_bytes, on ? on->gpu_instance : 0xffffffff,
                                         on ? on->compute_instance : 0xffffffff };
            infos[listed] = info;
        }
        listed++;
    }
    *count = listed;
    return listed > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process_info *infos) {
    return running(F_COMPUTE, handle, count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, struct process_info *infos) {
    return running(F_GRAPHICS, handle, count, infos);
}

/* Makes up one sample per busy process at each 100 ms boundary. */
static void make_up_samples(struct found *found) {
    struct gpu *gpu = &found->gpu;
    gpu->sample_count = 0;
    for (unsigned i = 0; i < gpu->process_count; i++) {
        if (!gpu->processes[i].sm_percent) continue;
        struct sample sample = { gpu->processes[i].pid, gpu->processes[i].sm_percent,
                                 (uint64_t)(found->now_ns - found->now_ns % 100000000) / 1000 };
        gpu->samples[gpu->sample_count++] = sample;
    }
}

/* Samples newer than last_seen_us; merged, they are one per process, averaged, with the newest stamp. */
int nvmlDeviceGetProcessUtilization(void *handle, struct utilization *out, unsigned *count,
                                    unsigned long long last_seen_us) {
    struct found found;
    int error = find_board(F_UTILIZATION, handle, &found);
    if (error) return error;
    if (found.gpu.mig) return NOT_SUPPORTED;
    if (!out) { /* the real library reports its whole buffer's size whatever there is to read */
        *count = 100;
        return INSUFFICIENT_SIZE;
    }
    if (found.gpu.sampling == MADE_UP) make_up_samples(&found);
    unsigned listed = 0, merged[MAX_SAMPLES] = { 0 };
    for (unsigned i = 0; i < found.gpu.sample_count && listed < *count; i++) {
        const struct sample *sample = &found.gpu.samples[i];
        if (sample->stamp_us <= last_seen_us) continue;
        unsigned place = listed;
        for (unsigned j = 0; j < listed && found.gpu.sampling == MERGED; j++)
            if (out[j].pid == sample->pid) place = j;
        struct utilization one = { sample->pid, sample->stamp_us, sample->sm_percent, 0, 0, 0 };
        if (place < listed) one.sm = (out[place].sm * merged[place] + sample->sm_percent) / (merged[place] + 1);
        else listed++;
        out[place] = one;
        merged[place]++;
    }
    *count = listed;
    return listed || found.gpu.sampling == EMPTY_SUCCESS ? SUCCESS : NOT_FOUND;
}
