/*
 * A stand-in libnvidia-ml.so.1 for machines without a GPU, to be loaded by the real nvidia-ml-py binding.
 *
 * All state lies in a file "state" beside the library, mapped shared: nvml.py writes it, this library only counts
 * its calls there. Energy is integrated here from power over CLOCK_MONOTONIC (or over the page's own clock), so that
 * power and energy agree. Layouts are those of nvml.h (API 13) on 64-bit machines; nvml.py mirrors the page.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GPUS = 16, MAX_PROCESSES = 32, MAX_SAMPLES = 128 };
enum { MAGIC = 0x77617474 };
/* The functions whose calls can be counted, delayed or made to fail; the same order as FUNCTIONS in nvml.py. */
enum {
    F_INIT, F_SHUTDOWN, F_COUNT, F_DRIVER, F_HANDLE, F_UUID, F_NAME, F_CAPABILITY, F_POWER, F_LIMIT, F_ENERGY,
    F_FIELDS, F_COMPUTE, F_GRAPHICS, F_UTILIZATION, F_MIG, FUNCTIONS
};
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9
};
enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };
enum { TYPE_UINT = 1, TYPE_ULONG_LONG = 3 };

struct process { uint32_t pid, sm_percent, graphics, reserved; uint64_t memory_bytes; };
struct sample { uint32_t pid, sm_percent; uint64_t stamp_us; };

struct gpu {
    char uuid[96], name[96];
    int64_t base_ns;                  /* when base_uj and power_mw were set */
    uint64_t base_uj, power_mw;
    uint32_t limit_mw, capability_major, capability_minor, mig;
    int32_t error;                    /* answers every call and look-up of this GPU */
    int32_t errors[FUNCTIONS];        /* answers one function */
    int32_t field_error;              /* nvmlReturn of each field value, while the call itself succeeds */
    uint32_t field_type;              /* valueType of power fields */
    uint32_t process_count, sample_count, fixed_samples, reserved;
    struct process processes[MAX_PROCESSES];
    struct sample samples[MAX_SAMPLES];
};

struct page {
    uint32_t magic, sequence;         /* odd while the writer is at work */
    uint32_t gpu_count, generation;   /* a driver reload is another generation */
    int64_t now_ns, refresh_ns;       /* now_ns 0: CLOCK_MONOTONIC; refresh_ns: the counter moves only that often */
    char driver[80];
    int32_t errors[FUNCTIONS];        /* answers one function on all GPUs */
    uint64_t delay_us[FUNCTIONS], calls[FUNCTIONS];
    struct gpu gpus[MAX_GPUS];
};

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

static struct page *map_page(void) {
    Dl_info self;
    char path[4096];
    if (!dladdr((void *)map_page, &self)) return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    int length = slash ? (int)(slash - self.dli_fname) : 0;
    if (slash) snprintf(path, sizeof path, "%.*s/state", length, self.dli_fname);
    else snprintf(path, sizeof path, "state");
    int fd = open(path, O_RDWR | O_CLOEXEC);
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

/* Counts and delays a call; the error set for this function on all GPUs. */
static int entered(int function) {
    if (!page && !(page = map_page())) return DRIVER_NOT_LOADED;
    __atomic_add_fetch(&page->calls[function], 1, __ATOMIC_RELAXED);
    if (page->delay_us[function]) nap(page->delay_us[function]);
    if (function != F_INIT && (!sessions || session_generation != page->generation)) return UNINITIALIZED;
    return page->errors[function];
}

/* A consistent copy of one GPU, however the writer is interleaved. */
static void copy_gpu(unsigned index, struct gpu *copy, int64_t *now_ns) {
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t before = __atomic_load_n(&page->sequence, __ATOMIC_ACQUIRE);
        if (!(before & 1)) {
            *copy = page->gpus[index];
            *now_ns = page->now_ns;
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (__atomic_load_n(&page->sequence, __ATOMIC_RELAXED) == before) break;
        }
        nap(10);
    }
    if (!*now_ns) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
}

static void *handle_of(unsigned index) {
    return (void *)(((uintptr_t)page->generation << 8) | (index + 1));
}

/* Copies the GPU behind a handle; what the call has to answer when it isn't SUCCESS. */
static int device(int function, void *handle, struct gpu *copy, int64_t *now_ns) {
    int error = entered(function);
    if (error) return error;
    uintptr_t index = ((uintptr_t)handle & 0xff) - 1;
    if ((uintptr_t)handle >> 8 != page->generation || index >= page->gpu_count) return INVALID_ARGUMENT;
    copy_gpu((unsigned)index, copy, now_ns);
    return copy->error ? copy->error : copy->errors[function];
}

static uint64_t energy_uj(const struct gpu *gpu, int64_t now_ns) {
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
    sessions++;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    int error = entered(F_SHUTDOWN);
    if (error) return error;
    sessions--;
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
    struct gpu gpu;
    int64_t now_ns;
    int error = entered(F_HANDLE);
    if (error) return error;
    if (index >= page->gpu_count) return INVALID_ARGUMENT;
    copy_gpu(index, &gpu, &now_ns);
    *handle = handle_of(index);
    return gpu.error ? gpu.error : gpu.errors[F_HANDLE];
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    struct gpu gpu;
    int64_t now_ns;
    int error = entered(F_HANDLE);
    if (error) return error;
    for (unsigned index = 0; index < page->gpu_count; index++) {
        copy_gpu(index, &gpu, &now_ns);
        if (strcmp(gpu.uuid, uuid) == 0) {
            *handle = handle_of(index);
            return gpu.error ? gpu.error : gpu.errors[F_HANDLE];
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_UUID, handle, &gpu, &now_ns);
    if (!error) snprintf(uuid, length, "%s", gpu.uuid);
    return error;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_NAME, handle, &gpu, &now_ns);
    if (!error) snprintf(name, length, "%s", gpu.name);
    return error;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_CAPABILITY, handle, &gpu, &now_ns);
    if (error) return error;
    *major = (int)gpu.capability_major;
    *minor = (int)gpu.capability_minor;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power_mw) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_POWER, handle, &gpu, &now_ns);
    if (!error) *power_mw = (unsigned)gpu.power_mw;
    return error;
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, unsigned *least_mw, unsigned *most_mw) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_LIMIT, handle, &gpu, &now_ns);
    if (error) return error;
    *least_mw = gpu.limit_mw / 4;
    *most_mw = gpu.limit_mw;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_ENERGY, handle, &gpu, &now_ns);
    if (!error) *energy_mj = energy_uj(&gpu, now_ns) / 1000;
    return error;
}

int nvmlDeviceGetFieldValues(void *handle, int count, struct field *fields) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_FIELDS, handle, &gpu, &now_ns);
    if (error) return error;
    for (int i = 0; i < count; i++) {
        struct field *field = &fields[i];
        field->stamp_us = now_ns / 1000;
        field->latency_us = 1;
        field->error = gpu.field_error;
        if (field->id == FIELD_ENERGY) {
            field->type = TYPE_ULONG_LONG;
            field->value.ull = energy_uj(&gpu, now_ns) / 1000;
        } else if (field->id == FIELD_AVERAGE || field->id == FIELD_INSTANT) {
            field->type = gpu.field_type;
            field->value.ull = gpu.power_mw;
        } else {
            field->error = NOT_SUPPORTED;
        }
    }
    return SUCCESS;
}

static int running(int function, void *handle, unsigned *count, struct process_info *infos) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(function, handle, &gpu, &now_ns);
    if (error) return error;
    unsigned room = infos ? *count : 0, found = 0;
    for (unsigned i = 0; i < gpu.process_count; i++) {
        const struct process *process = &gpu.processes[i];
        if (process->graphics != (function == F_GRAPHICS)) continue;
        if (found < room) {
            struct process_info info = { process->pid, process->memory_bytes, 0xffffffff, 0xffffffff };
            infos[found] = info;
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process_info *infos) {
    return running(F_COMPUTE, handle, count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, struct process_info *infos) {
    return running(F_GRAPHICS, handle, count, infos);
}

/* One sample per busy process each 100 ms boundary, or the samples that were laid down; newer than last_seen_us. */
int nvmlDeviceGetProcessUtilization(void *handle, struct utilization *out, unsigned *count,
                                    unsigned long long last_seen_us) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_UTILIZATION, handle, &gpu, &now_ns);
    if (error) return error;
    if (!out) { /* the real library reports its whole buffer's size whatever there is to read */
        *count = 100;
        return INSUFFICIENT_SIZE;
    }
    if (!gpu.fixed_samples) {
        gpu.sample_count = 0;
        for (unsigned i = 0; i < gpu.process_count; i++) {
            if (!gpu.processes[i].sm_percent) continue;
            struct sample sample = { gpu.processes[i].pid, gpu.processes[i].sm_percent,
                                     (uint64_t)(now_ns - now_ns % 100000000) / 1000 };
            gpu.samples[gpu.sample_count++] = sample;
        }
    }
    unsigned found = 0;
    for (unsigned i = 0; i < gpu.sample_count && found < *count; i++) {
        const struct sample *sample = &gpu.samples[i];
        if (sample->stamp_us <= last_seen_us) continue;
        struct utilization one = { sample->pid, sample->stamp_us, sample->sm_percent, 0, 0, 0 };
        out[found++] = one;
    }
    *count = found;
    /* fixed_samples 2: SUCCESS with nothing in it, as some drivers answer */
    return found || gpu.fixed_samples == 2 ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    struct gpu gpu;
    int64_t now_ns;
    int error = device(F_MIG, handle, &gpu, &now_ns);
    if (error) return error;
    *current = *pending = gpu.mig;
    return SUCCESS;
}
