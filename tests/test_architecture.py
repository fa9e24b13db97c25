"""The house rules that a machine can check: sizes of files, words, and what stands at the top."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "kvplan").rglob("*.py"))


def _is_generated(path: Path) -> bool:
    """Tables of facts that a script writes may be long."""
    return path.name.startswith("_") and "generated" in path.read_text()[:400].lower()


def test_files_stay_small():
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in PACKAGE
        if not _is_generated(path) and len(path.read_text().splitlines()) > 400
    }
    assert not long


def test_the_readme_names_every_room_once():
    text = (ROOT / "README.md").read_text().partition("\n## Architecture\n")[2]
    lines = [line.partition(": ")[0] for line in text.splitlines() if line.startswith("- `")]
    named = [name for line in lines for name in re.findall(r"`([a-z_]+(?:\.py|/))`", line)]
    rooms = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "kvplan").iterdir()
        if not path.name.startswith(("_", ".")) and (path.is_dir() or path.suffix == ".py")
    ]
    also = re.findall(r"`(quality\.py)` has", text)
    assert sorted([*named, *also]) == sorted(rooms)


def test_every_module_and_public_function_says_what_it_is():
    silent = []
    for path in PACKAGE:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            silent.append(str(path))
        silent += [
            f"{path.name}:{node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        ]
    assert not silent


def test_no_vague_modules_and_nothing_left_for_later():
    names = {path.stem for path in PACKAGE}
    assert names.isdisjoint({"utils", "helpers", "common", "manager", "misc"})
    later = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert not [path.name for path in PACKAGE if later.search(path.read_text())]


def test_click_is_never_imported():
    assert not [
        path.name for path in PACKAGE if re.search(r"^\s*(from|import) click\b", path.read_text(), re.M)
    ]


def test_the_top_level_is_the_owners():
    allowed = {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "kvplan",
        "model_specs",
        "tests",
        "action.yml",
    }
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "dist", "build"))}
    assert {name for name in found if not name.endswith(".egg-info")} <= allowed
