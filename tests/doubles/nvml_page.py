"""The page that the stand-in NVIDIA driver shares with its library: nvml_double.h, mirrored."""

import ctypes

MAX_GPUS, MAX_PROCESSES, MAX_SAMPLES, MAX_INSTANCES = 16, 32, 128, 8
FUNCTIONS = (
    "init",
    "shutdown",
    "count",
    "driver",
    "handle",
    "uuid",
    "name",
    "capability",
    "power",
    "limit",
    "energy",
    "fields",
    "compute",
    "graphics",
    "utilization",
    "mig",
    "mig_count",
    "mig_handle",
    "gpu_instance",
    "compute_instance",
    "attributes",
    "gpm_support",
    "gpm_alloc",
    "gpm_free",
    "gpm_sample",
    "gpm_metrics",
)
MAGIC = 0x77617474
MADE_UP, LAID_DOWN, EMPTY_SUCCESS, MERGED = range(4)


class RawProcess(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("sm_percent", ctypes.c_uint32),
        ("graphics", ctypes.c_uint32),
        ("instance", ctypes.c_uint32),
        ("memory_bytes", ctypes.c_uint64),
    )


class RawSample(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint32), ("sm_percent", ctypes.c_uint32), ("stamp_us", ctypes.c_uint64))


class RawInstance(ctypes.Structure):
    _fields_ = (
        ("uuid", ctypes.c_char * 96),
        ("gpu_instance", ctypes.c_uint32),
        ("compute_instance", ctypes.c_uint32),
        ("slices", ctypes.c_uint32),
        ("sms", ctypes.c_uint32),
        ("base_ns", ctypes.c_int64),
        ("base_active_ns", ctypes.c_uint64),
        ("active_ppm", ctypes.c_uint64),
        ("errors", ctypes.c_int32 * len(FUNCTIONS)),
    )


class RawGpu(ctypes.Structure):
    _fields_ = (
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("base_ns", ctypes.c_int64),
        ("base_uj", ctypes.c_uint64),
        ("power_mw", ctypes.c_uint64),
        ("limit_mw", ctypes.c_uint32),
        ("capability_major", ctypes.c_uint32),
        ("capability_minor", ctypes.c_uint32),
        ("mig", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("errors", ctypes.c_int32 * len(FUNCTIONS)),
        ("field_error", ctypes.c_int32),
        ("field_type", ctypes.c_uint32),
        ("process_count", ctypes.c_uint32),
        ("sample_count", ctypes.c_uint32),
        ("sampling", ctypes.c_uint32),
        ("mig_slices", ctypes.c_uint32),
        ("mig_epoch", ctypes.c_uint32),
        ("instance_count", ctypes.c_uint32),
        ("gpm", ctypes.c_uint32),
        ("metric_error", ctypes.c_int32),
        ("processes", RawProcess * MAX_PROCESSES),
        ("samples", RawSample * MAX_SAMPLES),
        ("instances", RawInstance * MAX_INSTANCES),
    )


class RawPage(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("sequence", ctypes.c_uint32),
        ("gpu_count", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
        ("now_ns", ctypes.c_int64),
        ("refresh_ns", ctypes.c_int64),
        ("driver", ctypes.c_char * 80),
        ("errors", ctypes.c_int32 * len(FUNCTIONS)),
        ("delay_us", ctypes.c_uint64 * len(FUNCTIONS)),
        ("calls", ctypes.c_uint64 * len(FUNCTIONS)),
        ("gpus", RawGpu * MAX_GPUS),
    )
