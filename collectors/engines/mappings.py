"""What each engine calls what it has served: for each field the selectors to try, the first that its page has.

Fields: `request` (answered), `aborted`, `prefill_s` and `decode_s` (seconds, only as a ratio to one another),
`in_flight` (a gauge: begun and not answered yet); any other name is a unit. An engine that doesn't tell a field has
no line for it. Where the names come from: docs/engines.md.
"""

from collections.abc import Mapping

Told = Mapping[str, tuple[str, ...]]

REQUEST, ABORTED, IN_FLIGHT = "request", "aborted", "in_flight"
STAGES = {"prefill_s": "prefill", "decode_s": "decode"}

_UNANSWERED = "abort|error"

MAPPINGS: Mapping[str, Told] = {
    "vllm": {
        "request": (f'vllm:request_success_total{{finished_reason!~"{_UNANSWERED}"}}',),
        "aborted": (f'vllm:request_success_total{{finished_reason=~"{_UNANSWERED}"}}',),
        "prompt_token": ("vllm:prompt_tokens_total", "vllm:request_prompt_tokens_sum"),
        "output_token": ("vllm:generation_tokens_total", "vllm:request_generation_tokens_sum"),
        "prefill_s": ("vllm:request_prefill_time_seconds_sum",),
        "decode_s": ("vllm:request_decode_time_seconds_sum",),
        "in_flight": ("vllm:num_requests_running + vllm:num_requests_waiting + vllm:num_requests_swapped",),
    },
    "tgi": {
        "request": ("tgi_request_success",),
        "aborted": ("tgi_request_failure",),
        "prompt_token": ("tgi_request_input_length_sum",),
        "output_token": ("tgi_request_generated_tokens_sum",),
        "prefill_s": ('tgi_batch_inference_duration_sum{method="prefill"}',),
        "decode_s": ('tgi_batch_inference_duration_sum{method=~"decode|next_token"}',),
        "in_flight": ("tgi_batch_current_size + tgi_queue_size",),
    },
    "sglang": {
        "request": ("sglang:num_requests_total", "sglang:e2e_request_latency_seconds_count"),
        "aborted": ("sglang:num_aborted_requests_total",),
        "prompt_token": ("sglang:prompt_tokens_total",),
        "output_token": ("sglang:generation_tokens_total",),
        "prefill_s": ('sglang:gpu_execution_seconds_total{category=~"forward_(extend|prefill)"}',),
        "decode_s": ('sglang:gpu_execution_seconds_total{category="forward_decode"}',),
        "in_flight": ("sglang:num_running_reqs + sglang:num_queue_reqs",),
    },
    "triton": {
        "request": ("nv_inference_request_success",),
        "aborted": ("nv_inference_request_failure",),
        "inference": ("nv_inference_count",),
        "prompt_token": ("vllm:prompt_tokens_total",),
        "output_token": ("vllm:generation_tokens_total",),
        "in_flight": ('nv_trt_llm_request_metrics{request_type="active"}', "nv_inference_pending_request_count"),
    },
    "llamacpp": {
        "prompt_token": ("llamacpp:prompt_tokens_total",),
        "output_token": ("llamacpp:tokens_predicted_total",),
        "prefill_s": ("llamacpp:prompt_seconds_total",),
        "decode_s": ("llamacpp:tokens_predicted_seconds_total",),
        "in_flight": ("llamacpp:requests_processing + llamacpp:requests_deferred",),
    },
    "other": {},
}

SWITCH: Mapping[str, str] = {
    "sglang": "start SGLang with --enable-metrics",
    "llamacpp": "start llama-server with --metrics",
    "triton": "don't start Triton with --allow-metrics=false; its page is on --metrics-port, 8002 by default",
}
"""What makes an engine show its page, where it doesn't by itself."""


def told_by(kind: str, counters: Mapping[str, str]) -> Told:
    """Which selectors to try for an engine's fields: its kind's, and in their place those of the configuration."""
    return {**MAPPINGS[kind], **{name: (selector,) for name, selector in counters.items()}}
