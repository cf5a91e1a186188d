"""The chapter on planted truth: what was missed first, what was not judged neither reached nor missed."""

from __future__ import annotations

import pandas as pd

from scresist import chapters, io, report
from scresist.layout import Context


def test_verdicts_and_their_order(tmp_path):
    rows = pd.DataFrame(
        {
            "what": ["types", "subtypes", "ic50", "clones"], "planted": "p", "recovered": "r", "metric": "m",
            "value": [0.99, 0.5, 0.2, None], "floor": [0.97, None, 0.1, 0.85], "passed": [True, None, False, None], "n": 1,
            "explanation": "<b>why</b>",
        }
    ).astype({"passed": "boolean"})  # fmt: skip
    io.write_tsv(rows, tmp_path / "recovery.tsv")
    empty = pd.DataFrame()
    made = chapters.recovery(Context(report.Tables(tmp_path), empty, empty, empty, None, empty, "", empty, []))
    assert "1 of 2 planted things that were judged" in made.intro
    html = made.sections[0].before
    places = [html.index(f">{name}<") for name in ("ic50", "types", "subtypes", "clones")]
    assert places == sorted(places)
    assert [html.count(f">{word}<") for word in ("missed", "reached", "not judged")] == [1, 1, 2]
    assert "<b>why" not in html
