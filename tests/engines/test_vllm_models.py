"""vLLM's own classes on a card: layers, backends' blocks and pools equal the plan for that card."""

import pytest
from oracle_tables import oracle
from vllm_models import differences, model_of

from kvplan.engines import engine_named
from kvplan.engines.vllm.checkpoints import NONE, Checkpoints, checkpoints_of
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.workload import Workload

ROWS = oracle("vllm_models.jsonl")


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['id']}-{row['model']}" for row in ROWS])
def test_the_plan_equals_vllms_model_classes(row):
    assert model_of(row) is not None
    assert differences(row) == {}


@pytest.mark.parametrize(
    ("name", "generation", "version", "expected"),
    [
        ("qwen3-next-80b-a3b", 9, (0, 33), Checkpoints(1, 64)),
        ("qwen3-next-80b-a3b", 12, (0, 33), Checkpoints(1, 64)),
        ("qwen3-next-80b-a3b", 8, (0, 33), NONE),
        ("qwen3-next-80b-a3b", 9, (0, 32), NONE),
        ("nemotron-3-nano-30b-a3b", 8, (0, 32), Checkpoints(1)),
        ("nemotron-3-nano-30b-a3b", 9, (0, 31), NONE),
        ("kimi-k3", 10, (0, 30), Checkpoints(1)),
        ("kimi-k3", 8, (0, 33), NONE),
        ("kimi-linear-48b-a3b", 9, (0, 33), NONE),
        ("llama-3.1-8b", 9, (0, 33), NONE),
    ],
)
def test_only_some_kernels_hand_out_states_inside_a_prompt(name, generation, version, expected):
    assert checkpoints_of(find(name), generation, version) == expected


def test_expert_parallelism_of_a_dense_model_is_refused():
    workload = Workload(context_tokens=4096, engine_options=(("enable_expert_parallel", True),))
    dense, sparse = (
        plan(find(name), workload, parse_gpus(("h100",)), engine_named("vllm"))
        for name in ("llama-3.1-8b", "gpt-oss-20b")
    )
    assert [each.code for each in dense.refusals] == ["no-experts"]
    assert sparse.refusals == ()


def test_a_class_that_a_version_dropped_is_said():
    model, gpus = find("minimax-text-01"), parse_gpus(("8xh200",))
    new, old = (
        plan(model, Workload(context_tokens=4096), gpus, engine_named(name)).warnings
        for name in ("vllm@0.33", "vllm@0.23")
    )
    assert [each.code for each in new] == ["class-removed"]
    assert old == ()
