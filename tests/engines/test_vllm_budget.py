"""What vLLM holds beside torch and in graphs: by the link between ranks, how many they are, the version."""

import pytest

from kvplan.engines import engine_named
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.units import GIB
from kvplan.workload import Workload


def part(name, gpu, version="0.19", *, tensor=1, pipeline=1, **options):
    """Return one component of Llama-3.1-70B's plan on the first of ``tensor`` x ``pipeline`` cards."""
    devices = parse_gpus([f"{tensor * pipeline}x{gpu}"])
    asked = Workload(
        context_tokens=4096,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        engine_options=tuple(options.items()),
    )
    result = plan(catalog.find("llama-3.1-70b"), asked, devices, engine_named(f"vllm@{version}"))
    return next(part.bytes for part in result.devices[0].components if part.name == name)


@pytest.mark.parametrize(("tensor", "logged"), [(2, (2.07, 2.11)), (4, (2.13, 2.21))])
def test_sxm_boards_of_hopper_hold_what_logs_print(tensor, logged):
    found = part("runtime", "h100", tensor=tensor)
    assert found.basis == "calibrated"
    assert logged[0] - 0.03 <= found.expected / GIB <= logged[1]
    assert found.low / GIB <= logged[0] <= logged[1] <= found.high / GIB


@pytest.mark.parametrize(
    ("gpu", "ranks"),
    [("h100-nvl", {"tensor": 2}), ("mi300x", {"tensor": 8}), ("mi300x", {}), ("h100", {"pipeline": 2})],
)
def test_links_that_no_log_shows_are_assumed_and_wide(gpu, ranks):
    found = part("runtime", gpu, **ranks)
    assert found.basis == "assumed"
    assert found.high - found.low >= 2 * GIB


def test_cards_other_than_logged_ones_have_a_wider_range_alone():
    logged, other = part("runtime", "h100"), part("runtime", "l40s")
    assert other.low < logged.low < logged.high < other.high


def test_more_ranks_never_hold_less():
    amounts = [part("runtime", "h200", tensor=ranks).expected for ranks in (1, 2, 4, 8)]
    assert amounts == sorted(amounts)


def test_graphs_inside_the_pool_are_what_vllm_estimates():
    # Llama-3.3-70B on one to four H100 under 0.19: 1.82 to 1.98 GiB estimated, 1.79 to 1.85 taken.
    found = part("cuda_graphs", "h100", "0.21", tensor=2)
    assert found.low / GIB <= 1.82 <= 1.98 <= found.high / GIB
    assert found.expected / GIB == pytest.approx(1.75, abs=0.1)


def test_graphs_of_the_runner_that_no_log_shows_are_wide():
    seen, unseen = (part("cuda_graphs", "h100", version, tensor=2) for version in ("0.21", "0.33"))
    assert unseen.high - unseen.low > seen.high - seen.low
