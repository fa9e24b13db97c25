"""A check in every format: valid under the formats' own rules, escaped, complete."""

import csv
import json
from importlib.resources import files
from io import StringIO
from xml.etree import ElementTree

import pytest
from deploy.shapes import SHAPES
from jsonschema import Draft202012Validator

from kvplan.deploy.rows import CheckResult, Place, Problem, Row, SharedGpu, Skipped
from kvplan.report import render
from kvplan.report.answer import Screen
from kvplan.report.check_answer import CheckAnswer

SCHEMA = json.loads(files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8"))
EVIL = "a|b\n::error::x%<script>&\"'\x07,:"


def row(name, status="does_not_fit", code=1, **more):
    return Row(
        name=name,
        at=Place("dir a/x,y.yml", 3),
        engine="vllm",
        engine_version="0.33",
        model="org/model",
        model_id="",
        gpu="h100",
        status=status,
        exit_code=code,
        why=more.pop("why", "too large"),
        **more,
    )


def answer(*rows, **more):
    result = CheckResult(rows=rows, **more)
    return CheckAnswer(result, result.exit_code)


EVERYTHING = answer(
    row("bad", flag="--max-model-len", flag_at=Place("dir a/x,y.yml", 9), headroom_bytes=-(2**30)),
    row("slow", "offload", 1),
    row("refused", "refused", 1),
    row("unsure", "unknown", 3),
    row("tight", "tight", 0),
    row("fine", "fits", 0, why=""),
    row("over", "fits", 1, why="", broken_budgets=("min_headroom 2.00 GiB: 1.00 GiB left",)),
    row(EVIL, why=EVIL),
    shared=(
        SharedGpu(
            "a.yml",
            "docker compose up",
            "h100",
            0,
            ("a", "b"),
            "does_not_fit",
            1,
            90,
            80,
            "no",
            Place("a.yml", 2),
        ),
    ),
    problems=(Problem(Place("broken.yml", 7), "not YAML", "mend it"),),
    skipped=(Skipped(Place("other.yml"), "no engine found"),),
)


def text(form, given=EVERYTHING, screen=None):
    return render(given, form, screen or Screen())


def test_sarif_is_valid():
    models = pytest.importorskip("pydantic_sarif.model", reason="pip install 'kvplan[test]'")
    log = models.StaticAnalysisResultsFormatSarifVersion210JsonSchema.model_validate_json(text("sarif"))
    results = log.runs[0].results
    assert len(results) == 10
    assert {item.ruleId for item in results} <= {rule.id for rule in log.runs[0].tool.driver.rules}


def test_sarif_points_at_the_line_that_decided():
    run = json.loads(text("sarif"))["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
    by_rule = {result["ruleId"]: result for result in run["results"]}
    uris = {item["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for item in run["results"]}
    assert uris == {"dir%20a/x%2Cy.yml", "broken.yml", "a.yml"}
    assert by_rule["unreadable"]["locations"][0]["physicalLocation"]["region"] == {"startLine": 7}
    assert by_rule["over_budget"]["level"] == "error"
    assert by_rule["unknown"]["level"] == "warning"


def test_junit_is_what_ci_systems_read():
    root = ElementTree.fromstring(text("junit"))
    assert root.tag == "testsuites"
    cases = root.findall("testsuite/testcase")
    assert len(cases) == 10
    assert int(root.get("tests")) == len(cases)
    assert int(root.get("failures")) == len(root.findall("testsuite/testcase/failure")) == 6
    assert int(root.get("errors")) == len(root.findall("testsuite/testcase/error")) == 1
    for suite in root:
        assert suite.get("name")
        assert int(suite.get("tests")) == len(suite)
        for case in suite:
            assert case.get("classname")
            assert case.get("name")
            assert {child.tag for child in case} <= {"failure", "error", "skipped", "system-out"}


def test_annotations_are_escaped_and_at_most_ten():
    lines = text("github").splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("::error file=broken.yml,line=7,title=kvplan%3A unreadable::")
    assert "file=dir a/x%2Cy.yml,line=9" in lines[1]
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)
    evil = next(line for line in lines if "script" in line)
    assert "%0A%3A%3Aerror%3A%3Ax%25" in evil.split("::")[1]
    assert "\n" not in evil
    many = text("github", answer(*(row(f"r{number}") for number in range(30)))).splitlines()
    assert len(many) == 11
    assert many[-1].endswith("20 more not shown here")


def test_markdown_keeps_its_table():
    lines = [line for line in text("markdown").split("\n") if line.startswith("| ")]
    assert len(lines) == 10
    assert all(line.replace("\\|", "").count("|") == 10 for line in lines)
    assert "<script>" not in text("markdown")


def test_csv_is_one_record_an_engine():
    records = list(csv.DictReader(StringIO(text("csv"))))
    assert [record["verdict"] for record in records][:3] == ["does_not_fit", "offload", "refused"]
    assert records[0]["headroom_bytes"] == str(-(2**30))


def test_json_is_valid_under_the_schema():
    data = json.loads(text("json"))
    Draft202012Validator(SCHEMA).validate(data)
    assert data["verdict"] == "refused"
    assert data["exit_code"] == 2
    assert data["deployments"][0]["flag"] == {"name": "--max-model-len", "file": "dir a/x,y.yml", "line": 9}


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("unicode", [True, False])
def test_tables_keep_to_the_screen(width, unicode):
    found = text("table", EVERYTHING, Screen(width=width, unicode=unicode))
    table = found.split("broken.yml")[0]
    assert all(len(line) <= width for line in table.splitlines())
    assert unicode or found.isascii()
    assert "OVER BUDGET" in text("table")


def test_plain_says_all_there_is():
    found = text("plain")
    assert "dir a/x,y.yml:9: bad: --max-model-len: too large" in found
    assert "other.yml: skipped: no engine found" in found
    assert "broken.yml:7: error: not YAML" in found


def test_real_checks_are_valid_in_every_format(tmp_path, monkeypatch, capsys):
    from kvplan.cli import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, content in SHAPES.items():
        (tmp_path / name).write_text(content)
    exports = [
        f"--export={form}={tmp_path / f'out.{form}'}"
        for form in ("json", "sarif", "junit", "markdown", "github")
    ]
    code = main(["check", str(tmp_path), "--gpu", "h100", "--quiet", *exports])
    assert code in (1, 3)
    assert capsys.readouterr().out == ""
    data = json.loads((tmp_path / "out.json").read_text())
    Draft202012Validator(SCHEMA).validate(data)
    assert data["exit_code"] == code
    assert any(item["plan"] for item in data["deployments"])
    ElementTree.parse(tmp_path / "out.junit")
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"
