/*
 * MIG devices of the stand-in library, and GPM: what a GPU instance's SMs did between two samples.
 *
 * Activity is integrated over the same clock as energy, so two samples taken at any two moments tell its mean.
 */
#include "nvml_double.h"

#include <math.h>
#include <stdlib.h>

enum { METRIC_GRAPHICS = 1, METRIC_SM = 2 };
enum { GPM_VERSION = 1 };

struct attributes {
    uint32_t sms, copy_engines, decoders, encoders, jpegs, ofas, gpu_instance_slices, compute_instance_slices;
    uint64_t memory_mib;
};
struct gpm_support { uint32_t version, supported; };
struct gpm_sample { int64_t at_ns; uint64_t active_ns; int32_t metric_error; };
struct gpm_metric { uint32_t id; int32_t error; double value; const char *short_name, *long_name, *unit; };
struct gpm_metrics {
    uint32_t version, count;
    struct gpm_sample *older, *newer;
    struct gpm_metric metrics[];
};

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    struct found found;
    int error = find_board(F_MIG, handle, &found);
    if (!error) *current = *pending = found.gpu.mig;
    return error;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    struct found found;
    int error = find_board(F_MIG_COUNT, handle, &found);
    if (!error) *count = found.gpu.mig ? found.gpu.mig_slices : 0;
    return error;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **mig) {
    struct found found;
    int error = find_board(F_MIG_HANDLE, handle, &found);
    if (error) return error;
    if (!found.gpu.mig || index >= found.gpu.mig_slices) return INVALID_ARGUMENT;
    if (index >= found.gpu.instance_count || !found.gpu.instances[index].slices) return NOT_FOUND;
    *mig = mig_handle_of(handle, &found.gpu, index);
    return found.gpu.instances[index].errors[F_MIG_HANDLE];
}

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *id) {
    struct found found;
    int error = find(F_GPU_INSTANCE, handle, &found);
    if (error) return error;
    if (!found.instance) return NOT_SUPPORTED;
    *id = found.instance->gpu_instance;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *id) {
    struct found found;
    int error = find(F_COMPUTE_INSTANCE, handle, &found);
    if (error) return error;
    if (!found.instance) return NOT_SUPPORTED;
    *id = found.instance->compute_instance;
    return SUCCESS;
}

int nvmlDeviceGetAttributes_v2(void *handle, struct attributes *attributes) {
    struct found found;
    int error = find(F_ATTRIBUTES, handle, &found);
    if (error) return error;
    if (!found.instance) return NOT_SUPPORTED;
    struct attributes own = { .sms = found.instance->sms, .gpu_instance_slices = found.instance->slices };
    *attributes = own;
    return SUCCESS;
}

int nvmlGpmQueryDeviceSupport(void *handle, struct gpm_support *support) {
    struct found found;
    int error = find_board(F_GPM_SUPPORT, handle, &found);
    if (!error) support->supported = found.gpu.gpm;
    return error;
}

int nvmlGpmSampleAlloc(struct gpm_sample **sample) {
    int error = entered(F_GPM_ALLOC);
    if (!error) *sample = calloc(1, sizeof **sample);
    return error;
}

int nvmlGpmSampleFree(struct gpm_sample *sample) {
    int error = entered(F_GPM_FREE);
    if (!error) free(sample);
    return error;
}

int nvmlGpmMigSampleGet(void *handle, unsigned gpu_instance, struct gpm_sample *sample) {
    struct found found;
    int error = find_board(F_GPM_SAMPLE, handle, &found);
    if (error) return error;
    if (!found.gpu.gpm) return NOT_SUPPORTED;
    for (unsigned i = 0; i < found.gpu.instance_count; i++) {
        const struct instance *one = &found.gpu.instances[i];
        if (!one->slices || one->gpu_instance != gpu_instance) continue;
        if (one->errors[F_GPM_SAMPLE]) return one->errors[F_GPM_SAMPLE];
        sample->at_ns = found.now_ns;
        sample->active_ns = one->base_active_ns + one->active_ppm * (uint64_t)(found.now_ns - one->base_ns) / 1000000;
        sample->metric_error = found.gpu.metric_error;
        return SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlGpmMetricsGet(struct gpm_metrics *question) {
    int error = entered(F_GPM_METRICS);
    if (error) return error;
    if (question->version != GPM_VERSION || !question->older || !question->newer) return INVALID_ARGUMENT;
    int64_t elapsed_ns = question->newer->at_ns - question->older->at_ns;
    double percent = elapsed_ns > 0 ? 100.0 * (double)(question->newer->active_ns - question->older->active_ns)
                                      / (double)elapsed_ns : NAN;
    for (unsigned i = 0; i < question->count; i++) {
        struct gpm_metric *metric = &question->metrics[i];
        metric->error = metric->id == METRIC_SM ? question->newer->metric_error
                        : metric->id == METRIC_GRAPHICS ? SUCCESS : NOT_SUPPORTED;
        metric->value = percent;
    }
    return SUCCESS;
}
