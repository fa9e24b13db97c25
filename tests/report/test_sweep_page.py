"""The pictures of a sweep: sound SVG, and the page as a real browser shows it."""

import csv
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from kvplan.cli import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SVG = "{http://www.w3.org/2000/svg}"
WORDS = (
    "sweep",
    "llama-3.1-8b",
    "--gpu",
    "rtx-4090,l40s",
    "--ctx",
    "4k..128k",
    "--batch",
    "1,8",
    "--kv",
    "auto,fp8",
)

# What a reader would see: anything cut off, any two texts of a chart over each other, what hovering shows.
PROBE = """
<script>
const problems = [];
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) problems.push('page wider than window');
for (const chart of document.querySelectorAll('.chart svg')) {
  const frame = chart.getBoundingClientRect();
  const measured = (text) => [text.textContent, text.getBoundingClientRect()];
  const texts = [...chart.querySelectorAll('text')].map(measured);
  for (const [word, box] of texts)
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
      problems.push('cut: ' + word);
  for (const [i, [one, a]] of texts.entries())
    for (const [other, b] of texts.slice(i + 1))
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
        problems.push(one + ' over ' + other);
}
const svg = document.querySelector('.chart svg'), box = svg.getBoundingClientRect();
const place = {clientX: box.left + box.width * 0.74, clientY: box.top + 90};
svg.dispatchEvent(new PointerEvent('pointermove', place));
const tip = document.querySelector('.tip');
const style = getComputedStyle(document.body);
document.title = JSON.stringify({problems, tip: getComputedStyle(tip).visibility + ' ' + tip.textContent,
  page: style.backgroundColor, ink: style.color});
</script>
"""


@pytest.fixture(scope="module")
def exported():
    with tempfile.TemporaryDirectory() as folder:
        names = {name: Path(folder) / f"sweep.{name}" for name in ("svg", "html", "csv")}
        exports = [
            word for name, path in names.items() if name != "csv" for word in ("--export", f"{name}={path}")
        ]
        assert main([*WORDS, "--format", "csv", "-o", str(names["csv"]), *exports]) == 0
        yield names


def test_the_svg_opens_on_its_own(exported):
    root = ElementTree.fromstring(exported["svg"].read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg"
    assert len(root.findall(f"{SVG}g")) == 8
    text = exported["svg"].read_text(encoding="utf-8")
    assert "prefers-color-scheme" in text
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(re.findall(r'id="([^"]+)"', text))


def test_areas_lie_on_each_other_and_the_budget_is_a_line(exported):
    root = ElementTree.fromstring(exported["svg"].read_text(encoding="utf-8"))
    for chart in root.findall(f"{SVG}g"):
        below = None
        for area in chart.findall(f"{SVG}polygon"):
            corners = [tuple(map(float, pair.split(","))) for pair in area.get("points").split()]
            half = len(corners) // 2
            above, under = corners[:half], corners[half:][::-1]
            assert all(top[1] <= bottom[1] for top, bottom in zip(above, under, strict=True))
            assert below is None or under == below
            below = above
        assert len([line for line in chart.findall(f"{SVG}polyline") if line.get("class") == "limit"]) == 1


def test_the_page_is_self_contained(exported):
    text = exported["html"].read_text(encoding="utf-8")
    without_namespace = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(?:https?:)?//[a-z]", without_namespace)
    assert " src=" not in text
    assert "<link" not in text


def rendered(page, folder, *flags, width=1040):
    probed = Path(folder) / "probed.html"
    probed.write_text(
        page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8"
    )
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
            f"--window-size={width},1400", *flags, "--virtual-time-budget=3000", "--dump-dom",
            probed.as_uri(),
        ],
        capture_output=True, encoding="utf-8", check=True, timeout=120,
    )  # fmt: skip
    import json
    from html import unescape

    return json.loads(unescape(re.search(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL).group(1)))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize(("dark", "width"), [(False, 1040), (True, 1040), (False, 520)])
def test_a_browser_shows_it_whole(exported, tmp_path, dark, width):
    flags = (
        ("--blink-settings=preferredColorScheme=0",) if dark else ("--blink-settings=preferredColorScheme=1",)
    )
    seen = rendered(exported["html"], tmp_path, *flags, width=width)
    assert seen["problems"] == []
    assert seen["page"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert seen["tip"].startswith("visible 131,072 tokens: no")
    with exported["csv"].open(encoding="utf-8", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["ctx"] == "131072")
    assert f"weights {int(row['weights_bytes']) / 2**30:,.2f}" in seen["tip"]
    assert f"KV cache {int(row['kv_cache_bytes']) / 2**30:,.2f}" in seen["tip"]
