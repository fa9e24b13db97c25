"""Deployments whose outcome somebody wrote down: those that started fit, those that failed do not."""

import json
from pathlib import Path

import pytest

from kvplan.deploy.checking import check_file
from kvplan.deploy.files import SourceFile
from kvplan.deploy.model_names import Models
from kvplan.deploy.settings import Settings, parse_model_choice
from kvplan.sources import open_model

TABLE = Path(__file__).parent.parent / "oracles" / "deployment_outcomes.jsonl"
ROWS = [json.loads(line) for line in TABLE.read_text().splitlines()][1:]
MODELS = Models(lambda ref, _: open_model(ref, offline=True))


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_the_outcome_is_the_one_that_was_seen(row):
    text = f"services:\n  a:\n    image: {row['image']}\n    command: >\n      {row['command']}\n"
    choice = dict([parse_model_choice(row["model"])])
    settings = Settings(gpus=(row["gpu"],), models=choice, offline=True)
    (found,) = check_file(SourceFile("a.yml", text), lambda _: settings, MODELS, {}).rows
    assert found.status in (("fits", "tight") if row["starts"] else ("does_not_fit",)), found.why
