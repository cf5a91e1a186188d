"""The check of pages finds what it is there to find: an error of a script, a request to another host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import browser
import report_tables

pytestmark = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium on this machine")

BAD = """<html><body><p>A page that does what a report must not do: it fetches, and one of its scripts fails.</p>
<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=X"><img src="http://example.invalid/x.png">
<script>noSuchThing.call()</script></body></html>"""


def test_a_bad_page_is_caught(tmp_path):
    (tmp_path / "bad.html").write_text(BAD, encoding="utf-8")
    found = browser.inspect(tmp_path / "bad.html", wait_ms=3000)
    assert found["foreign_requests"] == ["http://example.invalid/x.png", "https://fonts.googleapis.com/css?family=X"]
    assert len(found["console_errors"]) == 1 and "noSuchThing is not defined" in found["console_errors"][0]


def test_the_report_draws_its_plots_and_asks_nobody(tmp_path, run_script):
    made = report_tables.write(tmp_path / "in")
    run_script(
        *("build_report", "--tables", made["tables"], "--status", *sorted(made["status"].iterdir())),
        *("--provenance", *sorted(made["provenance"].iterdir()), "--cells", made["cells"]),
        cwd=tmp_path,
    )
    found = browser.inspect(tmp_path / "report.html")
    assert found["console_errors"] == [] and found["foreign_requests"] == []
    # Plotly puts one such element into the page for every plot that it has drawn
    assert found["dom"].count('class="main-svg"') >= 6
    taken = browser.inspect(tmp_path / "report.html", tmp_path / "page.png")
    assert taken["screenshot"].stat().st_size > 50_000
