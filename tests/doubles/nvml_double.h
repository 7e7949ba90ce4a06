/*
 * What the stand-in libnvidia-ml.so.1 keeps: the shared page that nvml_page.py mirrors, and how a call finds its GPU.
 *
 * All state lies in a file "state" beside the library, mapped shared: nvml.py writes it, the library only counts its
 * calls there. Layouts of answers are those of nvml.h (API 13) on 64-bit machines.
 */
#ifndef NVML_DOUBLE_H
#define NVML_DOUBLE_H

#include <stdint.h>

enum { MAX_GPUS = 16, MAX_PROCESSES = 32, MAX_SAMPLES = 128, MAX_INSTANCES = 8 };
enum { MAGIC = 0x77617474 };
/* The functions whose calls can be counted, delayed or made to fail; the same order as FUNCTIONS in nvml_page.py. */
enum {
    F_INIT, F_SHUTDOWN, F_COUNT, F_DRIVER, F_HANDLE, F_UUID, F_NAME, F_CAPABILITY, F_POWER, F_LIMIT, F_ENERGY,
    F_FIELDS, F_COMPUTE, F_GRAPHICS, F_UTILIZATION, F_MIG, F_MIG_COUNT, F_MIG_HANDLE, F_GPU_INSTANCE,
    F_COMPUTE_INSTANCE, F_ATTRIBUTES, F_GPM_SUPPORT, F_GPM_ALLOC, F_GPM_FREE, F_GPM_SAMPLE, F_GPM_METRICS, FUNCTIONS
};
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9
};

struct process {
    uint32_t pid, sm_percent, graphics, instance; /* instance: 1 + its place among the GPU's instances; 0: none */
    uint64_t memory_bytes;
};
struct sample { uint32_t pid, sm_percent; uint64_t stamp_us; };

/* A compute instance; several may share one GPU instance, whose slices and activity they then all state. */
struct instance {
    char uuid[96];
    uint32_t gpu_instance, compute_instance, slices, sms; /* slices 0: a place that isn't in use */
    int64_t base_ns;                  /* when base_active_ns and active_ppm were set */
    uint64_t base_active_ns, active_ppm;
    int32_t errors[FUNCTIONS];        /* answers one function on this instance */
};

struct gpu {
    char uuid[96], name[96];
    int64_t base_ns;                  /* when base_uj and power_mw were set */
    uint64_t base_uj, power_mw;
    uint32_t limit_mw, capability_major, capability_minor, mig;
    int32_t error;                    /* answers every call and look-up of this GPU */
    int32_t errors[FUNCTIONS];        /* answers one function */
    int32_t field_error;              /* nvmlReturn of each field value, while the call itself succeeds */
    uint32_t field_type;              /* valueType of power fields */
    uint32_t process_count, sample_count, sampling, mig_slices;
    uint32_t mig_epoch;               /* a rebuild of the instances is another epoch: older handles are void */
    uint32_t instance_count, gpm;
    int32_t metric_error;             /* nvmlReturn of SM_UTIL, while the call itself succeeds */
    struct process processes[MAX_PROCESSES];
    struct sample samples[MAX_SAMPLES];
    struct instance instances[MAX_INSTANCES];
};

/* Where utilization samples come from: made up at each 100 ms boundary, or laid down in the page. */
enum { MADE_UP, LAID_DOWN, EMPTY_SUCCESS, MERGED }; /* MERGED: one per process, averaged since last seen */

struct page {
    uint32_t magic, sequence;         /* odd while the writer is at work */
    uint32_t gpu_count, generation;   /* a driver reload is another generation */
    int64_t now_ns, refresh_ns;       /* now_ns 0: CLOCK_MONOTONIC; refresh_ns: the counter moves only that often */
    char driver[80];
    int32_t errors[FUNCTIONS];        /* answers one function on all GPUs */
    uint64_t delay_us[FUNCTIONS], calls[FUNCTIONS];
    struct gpu gpus[MAX_GPUS];
};

/* A copy of the GPU behind a handle, and of the moment it was made; `instance` is NULL for the board itself. */
struct found {
    struct gpu gpu;
    const struct instance *instance;
    int64_t now_ns;
};

/* Counts and delays a call; what it has to answer when it isn't SUCCESS. */
int entered(int function);
/* The same for a call on a handle of a board or of a MIG device. */
int find(int function, void *handle, struct found *found);
/* The same for a call that MIG devices don't have. */
int find_board(int function, void *handle, struct found *found);
/* The handle of a MIG device of the board behind a handle. */
void *mig_handle_of(void *board, const struct gpu *gpu, unsigned place);

#endif
