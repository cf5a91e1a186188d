"""The chapter on states of the tumour cells: from tables to sections, with hostile names and without tables."""

from __future__ import annotations

import pandas as pd
import pytest

from scresist import epithelium, io, keys, report, status
from scresist.chapter_epithelium import epithelium as chapter
from scresist.layout import Bar, Context

NASTY = "<img src=x onerror=alert(1)>"
PNG = b"\x89PNG\r\n\x1a\nx"


@pytest.fixture
def context(tmp_path):
    """A context on the tables and pictures of a folder."""

    def make(pictures=(), **tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name}.tsv")
        for name in pictures:
            (tmp_path / f"{name}.epi_map.png").write_bytes(PNG)
        design = pd.DataFrame({"sample": ["b", "a"], "patient": ["P1", NASTY], "phase": ["POST", "PRE"]})
        phases = pd.DataFrame({"phase": ["PRE", "POST"], "time": [0, 1], "colour": ["#000000", "#111111"]})
        io.write_tsv(phases, tmp_path / "phases.tsv")
        word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"12 tumour cells {NASTY}, 100 needed"
        rows = status.table([status.StatusRow("subcluster_epithelium", "cohort", "cohort", word, reason)])
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, design, None, empty, "", empty, [])

    return make


def states():
    rows = [
        ("0", "CST3", 600, 2, 2, NASTY, 0.5, 2, "PRE", 0.5, 0.5, "shared", "", 0.1, 0.9),
        ("1", "TOP2A cycling", 300, 2, 2, "P1", 0.6, 2, "PRE", 0.97, 0.5, "exclusive", "PRE", 0.8, 0.5),
        ("2", f"FABP1{NASTY}", 100, 1, 1, NASTY, 1.0, 1, "PRE", 1.0, 0.5, "private", "", 0.1, 0.95),
    ]
    return pd.DataFrame(rows, columns=list(epithelium.CLUSTER_COLUMNS))


def shares():
    rows = [("sample", s, p, ph, c, n, 500, n / 500, 0.1, 0.9, 1, 1) for s, p, ph in (("a", NASTY, "PRE"), ("b", "P1", "POST"))
            for c, n in (("0", 300), ("1", 150), ("2", 50))]  # fmt: skip
    rows += [("phase", "", "", ph, c, 300, 500, share, None, None, 1, 1) for ph in ("POST", "PRE")
             for c, share in (("0", 0.6), ("1", 0.3), ("2", 0.1))]  # fmt: skip
    return pd.DataFrame(rows, columns=list(epithelium.COMPOSITION_COLUMNS))


def markers():
    rows = [(c, f"G{c}{i}", 2.0 - 0.1 * i, 80.0, 10.0, 1e-9, 1e-8, "cell_level") for c in "012" for i in range(12)]
    rows[0] = ("0", NASTY, *rows[0][2:])
    return pd.DataFrame(rows, columns=list(epithelium.MARKER_COLUMNS))


def test_sections_from_tables(context):
    compared = pd.DataFrame([("0.4", 3, 0.9, 1.0, 1, True)], columns=list(epithelium.RESOLUTION_COLUMNS))
    made = chapter(
        context(
            ("cluster", "phase"), epi_clusters=states(), epi_composition=shares(), epi_markers=markers(), epi_resolutions=compared
        )
    )
    assert made.id == "sc_epithelium"
    sections = {section.id: section for section in made.sections}
    assert all(name.startswith("sc_epithelium_") for name in sections)
    text = made.intro + "".join(section.before + section.after for section in made.sections)
    assert NASTY not in text
    assert "3 states" in made.intro
    assert (
        "State 1 (TOP2A cycling, 30 % of the cells): found almost only in PRE, in 2 patients; that phase gives 50 %" in made.intro
    )
    assert "State 2" in made.intro and "A trait of this patient; no phase can be named." in made.intro
    assert "State 0" not in made.intro
    bars = sections["sc_epithelium_samples"].plot
    assert isinstance(bars, Bar)
    assert list(bars.data) == ["a (PRE, n=500)", "b (POST, n=500)"]  # in the order of phases
    assert bars.data["a (PRE, n=500)"] == {"0": 300, "1": 150, "2": 50}
    assert bars.cats["1"][0] == "1 TOP2A cycling"
    phase = sections["sc_epithelium_phases"].plot
    assert list(phase.data) == ["PRE (n=1 patient)", "POST (n=1 patient)"]
    assert phase.data["PRE (n=1 patient)"] == {"0": 60.0, "1": 30.0, "2": 10.0}
    assert sections["sc_epithelium_map"].before.count("data:image/png;base64,") == 2
    shown = sections["sc_epithelium_markers"].before
    assert "G10, G11" in shown and "G18" not in shown  # eight per state
    assert "0.4" in sections["sc_epithelium_resolutions"].before


def test_empty_tables_say_why(context):
    for given in ({}, {"epi_clusters": states().iloc[:0]}):
        made = chapter(context(**given))
        text = "".join(section.before for section in made.sections)
        assert "12 tumour cells &lt;img" in text
        assert NASTY not in text


def test_states_alone(context):
    made = chapter(context(epi_clusters=states().iloc[:1]))
    assert "Every state occurs in several patients and phases." in made.intro
    assert [section.plot for section in made.sections] == [None] * 6
    assert all(section.before for section in made.sections)
