"""From pages to what was served: of each engine's own page, and over restarts, gaps and garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.engine_server import PAGES, vllm

from wattribute.collectors.engines.counters import SERIES_KEPT, Counters, Work
from wattribute.collectors.engines.mappings import MAPPINGS, told_by
from wattribute.collectors.engines.page import read_page

TOLD: dict[str, dict[str, float]] = {
    "vllm_v1": {
        "request": 300,
        "aborted": 5,
        "prompt_token": 162_000,
        "output_token": 43_600,
        "prefill_s": 42,
        "decode_s": 800,
        "in_flight": 6,
    },
    "vllm_v0": {"request": 12, "aborted": 0, "prompt_token": 1024, "output_token": 256, "in_flight": 2},
    "tgi": {
        "request": 240,
        "aborted": 4,
        "prompt_token": 9640,
        "output_token": 4800,
        "prefill_s": 3.5,
        "decode_s": 96.5,
        "in_flight": 6,
    },
    "sglang": {
        "request": 15_200,
        "aborted": 7,
        "prompt_token": 4_500_000,
        "output_token": 1_250_000,
        "prefill_s": 120,
        "decode_s": 880,
        "in_flight": 10,
    },
    "triton": {"request": 192, "aborted": 3, "inference": 708, "in_flight": 3},
    "llamacpp": {
        "prompt_token": 52_110,
        "output_token": 9120,
        "prefill_s": 41.5,
        "decode_s": 208.25,
        "in_flight": 1,
    },
}


class Pages:
    """An engine's counters, and the pages that they are shown."""

    def __init__(self, kind: str = "vllm", **counters: str) -> None:
        self.counters = Counters(told_by(kind, counters))
        self.at_ns = 0

    def show(self, text: str) -> Work | None:
        self.at_ns += 1
        return self.counters.take(read_page(text.encode(), self.counters.wanted), self.at_ns)

    def served(self, text: str) -> dict[str, float]:
        work = self.show(text)
        assert work is not None
        return {name: value for name, value in work.served.items() if value}


@pytest.mark.parametrize("page", TOLD)
def test_what_each_engine_tells(page: str) -> None:
    """An engine that begins while it is watched: its page without any series comes first."""
    kind = page.partition("_")[0]
    text = (PAGES / f"{page}.txt").read_text()
    pages = Pages(kind)
    first = pages.show(text)
    assert first is not None
    assert first.served == {}
    assert not first.restarted
    expected = {name: value for name, value in TOLD[page].items() if name != "in_flight"}
    assert first.told == TOLD[page].keys()
    assert first.in_flight == TOLD[page]["in_flight"]
    empty = Pages(kind)
    empty.show("\n".join(line for line in text.splitlines() if line.startswith("# TYPE")))
    work = empty.show(text)
    assert work is not None
    assert work.served == pytest.approx(expected)
    assert pages.served(text) == {}


def test_of_an_ensemble_one_model_is_named() -> None:
    pages = Pages("triton", request='nv_inference_request_success{model="ensemble"}')
    text = (PAGES / "triton.txt").read_text()
    work = pages.show(text)
    assert work is not None
    assert work.summed["request"] == 1
    assert pages.served(text.replace('{model="ensemble",version="1"} 64', '{model="ensemble",version="1"} 70')) == {
        "request": 6
    }


def test_a_restarted_engine_counts_from_0() -> None:
    pages = Pages()
    pages.show(vllm(100, 5000, 900))
    assert pages.served(vllm(103, 5300, 960)) == {"request": 3, "prompt_token": 300, "output_token": 60}
    work = pages.show(vllm(2, 150, 40))
    assert work is not None
    assert work.restarted
    assert work.served == {"request": 2, "aborted": 0, "prompt_token": 150, "output_token": 40}
    again = pages.show(vllm(3, 200, 40))
    assert again is not None
    assert not again.restarted
    assert again.served["request"] == 1


def test_a_restart_that_no_counter_shows_is_seen_by_the_start_of_the_process() -> None:
    pages = Pages()
    pages.show(vllm(1, 100, 10, start_s=1e9))
    pages.show(vllm(2, 200, 20, start_s=1e9 + 0.5))
    work = pages.show(vllm(9, 900, 90, start_s=1e9 + 60))
    assert work is not None
    assert work.restarted
    assert work.served["request"] == 9


def test_series_come_and_go_without_touching_each_other() -> None:
    pages = Pages("triton")
    one, two = 'nv_inference_request_success{model="a"}', 'nv_inference_request_success{model="b"}'
    pages.show(f"{one} 100\n")
    assert pages.served(f"{one} 101\n{two} 4\n") == {"request": 5}
    assert pages.served(f"{two} 6\n") == {"request": 2}
    assert pages.served(f"{one} 2\n{two} 6\n") == {"request": 2}  # the model was loaded again
    assert pages.served("# TYPE nv_inference_request_success counter\n") == {}
    assert pages.served(f"{one} 3\n{two} 6\n") == {"request": 1}


def test_what_a_garbled_line_hid_isnt_served_when_it_can_be_read_again() -> None:
    pages = Pages()
    page = vllm(100, 5000, 900)
    pages.show(page.replace("} 5000", "} 50oo"))
    assert pages.served(page) == {}
    assert pages.served(vllm(100, 5100, 900)) == {"prompt_token": 100}
    work = pages.show(vllm(101, 5200, 900).replace("} 5200", "} NaN"))
    assert work is not None
    assert (work.skipped, work.served["request"]) == (1, 1)
    assert pages.served(vllm(101, 5300, 900)) == {"prompt_token": 200}


def test_other_series_in_the_place_of_those_before_are_looked_at_first() -> None:
    pages = Pages()
    old = 'vllm:request_prompt_tokens_sum{model_name="m"}'
    pages.show(f"{old} 70\n")
    assert pages.served(f"{old} 80\n") == {"prompt_token": 10}
    assert pages.served(f"{old} 85\nvllm:prompt_tokens_total 990\n") == {"prompt_token": 5}
    assert pages.served("vllm:prompt_tokens_total 1000\n") == {}
    assert pages.served("vllm:prompt_tokens_total 1003\n") == {"prompt_token": 3}


def test_labels_without_end_are_forgotten_when_they_are_gone() -> None:
    pages = Pages("triton")
    many = "".join(f'nv_inference_request_success{{model="{n}"}} 1\n' for n in range(SERIES_KEPT + 1))
    pages.show(many)
    pages.show('nv_inference_request_success{model="0"} 1\n')
    assert pages.served('nv_inference_request_success{model="0"} 2\n') == {"request": 1}
    assert pages.served('nv_inference_request_success{model="1"} 1\n') == {"request": 1}


def test_a_missing_metric_is_no_zero_and_a_page_of_something_else_is_none() -> None:
    pages = Pages()
    work = pages.show("vllm:generation_tokens_total 5\n")
    assert work is not None
    assert work.told == {"output_token"}
    assert work.in_flight is None
    assert pages.show("node_cpu_seconds_total 1\n") is None
    assert pages.show("vllm:num_requests_running 1\nvllm:request_decode_time_seconds_sum 4\n") is None
    assert pages.served("vllm:generation_tokens_total 7\n") == {"output_token": 2}


@given(st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=6), min_size=1, max_size=5))
def test_all_that_was_served_while_it_was_watched_is_counted(lives: list[list[int]]) -> None:
    """Each life of the engine begins at 0, and is told by its start."""
    pages = Pages()
    total = counted = first = 0
    for life, steps in enumerate(lives):
        sum_ = 0
        for step in steps:
            sum_ += step
            work = pages.show(vllm(sum_, start_s=1e9 + 10 * life))
            assert work is not None
            if work.served:
                counted += round(work.served["request"])
            else:
                first = sum_
        total += sum_
    assert counted == total - first


def test_every_kind_has_a_unit_or_requests() -> None:
    for kind, told in MAPPINGS.items():
        assert kind == "other" or told.keys() & {"request", "output_token"}
