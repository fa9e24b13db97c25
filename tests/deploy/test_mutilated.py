"""Files cut off at any byte, or with any line gone, are read or refused: never a traceback."""

import pytest
from deploy.shapes import SHAPES
from hypothesis import given
from hypothesis import strategies as st

from kvplan.deploy.checking import check_file
from kvplan.deploy.files import SourceFile
from kvplan.deploy.model_names import Models
from kvplan.deploy.settings import Settings
from kvplan.errors import UnreadableDeployment
from kvplan.sources import open_model

MODELS = Models(lambda ref, _: open_model(ref, offline=True))
SETTINGS = Settings(offline=True, gpus=("h100",))


def survives(name, text):
    try:
        result = check_file(SourceFile(name, text), lambda _: SETTINGS, MODELS, {})
    except UnreadableDeployment as error:
        assert error.message.startswith(name)
        return
    for row in result.rows:
        assert row.at.file == name
        assert 0 <= row.at.line <= text.count("\n") + 1
        assert row.exit_code in (0, 1, 3)
        assert row.exit_code == 0 or row.why


@pytest.mark.parametrize("name", SHAPES)
def test_cut_off_at_a_byte(name):
    text = SHAPES[name]
    for end in range(0, len(text), 5):
        survives(name, text[:end])


@pytest.mark.parametrize("name", SHAPES)
def test_with_a_line_gone(name):
    lines = SHAPES[name].splitlines(keepends=True)
    for gone in range(len(lines)):
        survives(name, "".join(lines[:gone] + lines[gone + 1 :]))


@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(min_value=0, max_value=2000),
    st.text(alphabet="{}[]'\"$&*!|>-:# \n\t\\%@`0aé\x85", max_size=4),
    st.integers(min_value=0, max_value=3),
)
def test_with_something_else_in_the_middle(name, at, inserted, removed):
    text = SHAPES[name]
    at %= len(text)
    survives(name, text[:at] + inserted + text[at + removed :])
