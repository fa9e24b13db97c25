"""Check a folder of real deployment files, and the same files cut off anywhere: no traceback, ever.

    python tests/calibration/check_deployments.py FOLDER [--every N]

Prints the rows of each file as read with nothing given, then cuts every file after each N-th byte
(default 97) and drops each of its lines, and counts what came of it. Not run by the tests: the files
are other people's and are not part of the repository.
"""

import sys
import traceback
from collections import Counter
from pathlib import Path

from kvplan.deploy.checking import check_file
from kvplan.deploy.files import SourceFile, read
from kvplan.deploy.model_names import Models
from kvplan.deploy.settings import Settings
from kvplan.errors import UnreadableDeployment
from kvplan.sources import open_model

MODELS = Models(lambda ref, _: open_model(ref, offline=True))


def outcome(name, text, settings):
    """Return what a text comes to: counts of verdicts, or why it cannot be read."""
    try:
        result = check_file(SourceFile(name, text), lambda _: settings, MODELS, {})
    except UnreadableDeployment as error:
        return Counter({f"unreadable: {error.problem[:60]}": 1})
    return Counter(row.status for row in result.rows) or Counter({"no engine": 1})


def variants(text, every):
    """Yield the text cut off after every N-th byte, then with each line gone."""
    for end in range(0, len(text), every):
        yield text[:end]
    lines = text.splitlines(keepends=True)
    for gone in range(len(lines)):
        yield "".join(lines[:gone] + lines[gone + 1 :])


def main():
    folder = Path(sys.argv[1])
    every = int(sys.argv[sys.argv.index("--every") + 1]) if "--every" in sys.argv else 97
    bare, placed = Settings(offline=True), Settings(offline=True, gpus=("h100",))
    crashes = 0
    for path in sorted(folder.iterdir()):
        if path.suffix == ".tsv" or not path.is_file():
            continue
        try:
            text = read(path, path.name)
        except UnreadableDeployment as error:
            print(f"{path.name}: {error.message}")
            text = path.read_text(encoding="utf-8", errors="replace")
        print(f"{path.name}: {dict(outcome(path.name, text, bare))}")
        total = Counter()
        for cut in variants(text, every):
            try:
                total.update(outcome(path.name, cut, placed))
            except Exception:
                crashes += 1
                traceback.print_exc()
        print(f"    {sum(total.values())} mutilated: {dict(total.most_common(4))}")
    print(f"{crashes} tracebacks")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
