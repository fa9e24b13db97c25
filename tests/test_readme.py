"""The README says what the program does: outputs, commands and options."""

import re
import shlex

import pytest
from readme_outputs import BLOCK, ROOT, filled

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND_NAMES = ("fit", "show", "list", "compare", "find", "sweep", "capacity", "check", "diff", "verify")
COMMANDS = sorted({line.split(" | ")[0] for line in re.findall(r"^kvplan [^\n]*", TEXT, re.MULTILINE)})


def test_outputs_are_what_the_program_prints():
    assert len(BLOCK.findall(TEXT)) >= 2
    assert filled(TEXT) == TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(kvplan, command):
    code, _, err = kvplan(*shlex.split(command)[1:])
    assert code in (0, 1), err


def test_options_named_in_the_text_exist(kvplan):
    helps = "".join(kvplan(name, "--help")[1] for name in COMMAND_NAMES)
    engine_flags = {"--max-num-seqs", "--enforce-eager", "--config", "--"}
    for option in set(re.findall(r"`(--[a-z-]+)", TEXT)) - engine_flags:
        assert option in helps, option


def test_the_python_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("fits")
