"""``kvplan verify --log`` on real start-ups of TensorRT-LLM, LMDeploy and TGI."""

import pytest
from oracle_tables import oracle

ROWS = oracle("server_startups.jsonl")


@pytest.fixture
def verified(answer, tmp_path):
    def run(row):
        path = tmp_path / "server.log"
        path.write_text("\n".join(row["lines"]), encoding="utf-8")
        words = ("verify", row["model"], "--log", str(path), "--gpu", row["gpu"], *row["arguments"])
        return answer(*words)

    return run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['engine']}-{row['model']}")
def test_real_start_ups_agree_with_the_plan(row, verified):
    code, said = verified(row)
    rows = {each["name"]: each for each in said["comparisons"]}
    assert said["engine"]["name"] == row["engine"]
    assert [name for name in row["agrees"] if rows.get(name, {}).get("status") != "agrees"] == [], rows
    assert (code, said["verdict"]) == (0, "agrees"), rows
    if row["tokens"]:
        assert rows["kv_cache_tokens"]["measured"] == row["tokens"]
