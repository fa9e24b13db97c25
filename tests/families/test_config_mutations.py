"""Whatever is done to a config, the answer is a model or an error that says what is wrong."""

import copy

from hypothesis import given
from hypothesis import strategies as st
from oracle_tables import oracle

from kvplan.engines import engine_named
from kvplan.errors import KvplanError
from kvplan.plan import plan
from kvplan.sources.config_model import model_from_config
from kvplan.workload import Workload

CONFIGS = [row["config"] for table in ("parameters.jsonl", "classes.jsonl") for row in oracle(table)]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=4),
    st.lists(st.sampled_from(["full_attention", "sliding_attention", "mamba", "?"]), max_size=70),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@st.composite
def mutated(draw):
    config = copy.deepcopy(draw(st.sampled_from(CONFIGS)))
    for _ in range(draw(st.integers(1, 3))):
        part = config
        key = draw(st.sampled_from(sorted(part)))
        if isinstance(part[key], dict) and part[key] and draw(st.booleans()):
            part = part[key]
            key = draw(st.sampled_from(sorted(part)))
        if draw(st.booleans()):
            part.pop(key)
            if not part:
                break
        else:
            part[key] = draw(VALUES)
        if not config:
            break
    return config


@given(mutated(), st.sampled_from(["ideal", "vllm", "llama.cpp", "transformers"]))
def test_a_mutated_config_plans_or_says_why_not(config, engine):
    try:
        model = model_from_config(config, name="mutated", source="test")
        result = plan(model, Workload(context_tokens=1024, context_source="flag"), (), engine_named(engine))
        assert result.cache.total.low >= 0
    except KvplanError as error:
        assert error.message
        assert error.hint
