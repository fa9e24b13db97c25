"""SGLang's command line: every flag of its parser is read, known to be harmless, or said."""

import pytest
from oracle_tables import oracle

from kvplan.deploy.flags import read_flags, table_of
from kvplan.deploy.flags.without_effect import WITHOUT_EFFECT
from kvplan.engines import engine_named
from kvplan.engines.sglang.unplanned import NOT_PLANNED
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources.catalog import find
from kvplan.workload import Workload

ROWS = oracle("sglang_server_args.jsonl")
VALUES = {"switch": [], "toggle": [], "one": ["8"], "many": ["8", "16"]}
READ = {spelling: flag for flag in table_of("sglang") for spelling in flag[0]}


def test_the_table_is_the_whole_parser():
    assert len(ROWS) > 500
    assert {row["takes"] for row in ROWS} == set(VALUES)


@pytest.mark.parametrize("takes", VALUES)
def test_every_flag_is_known_with_its_values(takes):
    """A flag that takes more or fewer words than its parser would eat the next flag or leave a word."""
    unknown = {}
    for row in ROWS:
        if row["takes"] != takes:
            continue
        spellings = [row["flag"], *row["aliases"]]
        if takes == "toggle":
            spellings.append(f"--no-{row['flag'][2:]}")
        for spelling in spellings:
            if spelling in READ and READ[spelling][2] is not None:
                continue  # Its own reader may refuse these words: the next test's rows have theirs.
            flags = read_flags("sglang", [spelling, *VALUES[takes], "--tp-size", "2"])
            if flags.unknown or flags.get("tp_size") != 2:
                unknown[spelling] = flags.unknown
    # A toggle that is planned for, or said, is read where it is turned on.
    assert {name for name in unknown if not (name.startswith("--no-") and takes == "toggle")} == set()


def test_what_is_not_planned_is_read_under_its_own_name():
    options = {flag[1] for flag in table_of("sglang")}
    assert set(NOT_PLANNED) - {"lora_target_modules"} <= options
    assert not {f"--{name.replace('_', '-')}" for name in NOT_PLANNED} & set(WITHOUT_EFFECT["sglang"])


def warned(words):
    flags = read_flags("sglang", words)
    assert not flags.unknown
    workload = Workload(context_tokens=8192, engine_options=flags.options)
    result = plan(find("llama-3.1-8b"), workload, parse_gpus(("h100",)), engine_named("sglang"))
    return [notice.message for notice in result.warnings if notice.code == "flag-not-planned"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ep-num-redundant-experts", "4"], "--ep-num-redundant-experts: redundant experts not counted"),
        (
            ["--moe-dense-tp-size", "1"],
            "--moe-dense-tp-size: dense layers divided over other ranks not counted",
        ),
        (["--enable-symm-mem"], "--enable-symm-mem: buffers of symmetric memory not counted"),
        (
            ["--cuda-graph-bs-decode", "1", "2", "4"],
            "--cuda-graph-bs-decode: CUDA graphs of other sizes not counted",
        ),
    ],
)
def test_what_is_not_planned_is_said(words, says):
    assert warned(words) == [says]


def test_the_default_of_a_flag_is_not_worth_a_word():
    assert (
        warned(["--ep-num-redundant-experts", "0", "--weight-cache-mode", "off", "--moe-dp-size", "1"]) == []
    )


def test_adapters_that_are_named_turn_lora_on():
    """SGLang sets enable_lora where --lora-paths names any (srt/server_args.py)."""
    flags = read_flags("sglang", ["--lora-paths", "a=one/a", "b=one/b"])
    workload = Workload(context_tokens=8192, engine_options=flags.options)
    result = plan(find("llama-3.1-8b"), workload, parse_gpus(("h100",)), engine_named("sglang"))
    assert any(part.name == "adapters" for part in result.devices[0].components)
