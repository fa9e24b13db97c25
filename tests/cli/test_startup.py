"""Starting up imports what the command uses, and nothing else."""

import subprocess
import sys

HEAVY = ("rich", "huggingface_hub", "httpx", "torch", "numpy", "asyncio", "yaml")


def loaded_after(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(' '.join(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_fit_as_json_imports_no_heavy_library():
    modules = loaded_after(
        "from kvplan.cli import main\nmain(['fit', 'llama-3-70b', '--gpu', '48GB', '--ctx', '32k', '--json'])"
    )
    assert modules.isdisjoint(HEAVY)
    assert "kvplan.cli.show" not in modules


def test_importing_the_package_imports_almost_nothing():
    modules = loaded_after("import kvplan")
    assert modules.isdisjoint((*HEAVY, "typer", "pydantic", "json"))


def test_the_public_names_are_there():
    import kvplan

    for name in kvplan.__all__:
        assert getattr(kvplan, name) is not None


def test_help_shows_every_command_and_how_to_complete(kvplan):
    code, out, _ = kvplan("--help")
    assert code == 0
    assert {"fit", "show", "sweep", "doctor", "--install-completion", "--version"} <= set(out.split())
    code, out, _ = kvplan("fit", "--help")
    assert code == 0
    assert "--min-headroom" in out
