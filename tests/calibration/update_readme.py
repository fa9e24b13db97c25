"""Rewrite the outputs in README.md: ``python tests/calibration/update_readme.py``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from readme_outputs import filled  # noqa: E402 - the path is set above

README = ROOT / "README.md"
README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
