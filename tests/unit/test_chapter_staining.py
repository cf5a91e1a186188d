"""The chapter on staining: from tables to sections, hostile names, empty tables."""

from __future__ import annotations

import html

import pandas as pd
import pytest

from scresist import io, keys, report, staining, status
from scresist.chapter_staining import staining as chapter
from scresist.layout import Box, Context

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
def context(tmp_path):
    def make(**tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name}.tsv")
        io.write_tsv(pd.DataFrame({"phase": ["PRE", "POST"], "colour": ["#000000"] * 2}), tmp_path / "phases.tsv")
        design = pd.DataFrame({"sample": ["a", "b"], "patient": ["P1", "P2"], "phase": ["PRE", "POST"]})
        rows = status.table([status.StatusRow("compare_staining", "cohort", "cohort", keys.SKIPPED_NO_INPUT, f"none {NASTY}")])
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, design, None, empty, "", empty, [])

    return make


def values():
    rows = []
    for marker in ("HER2", NASTY):
        for patient, sample, phase, value in (("P2", "b", "POST", 0.2), ("P1", "a", "PRE", 0.8), (NASTY, NASTY, NASTY, 0.5)):
            row = dict.fromkeys(staining.VALUE_COLUMNS)
            row.update(marker=marker, gene="ERBB2", kind="share", patient=patient, sample=sample, phase=phase, n_fields=5)
            row.update(dict.fromkeys(("value", "min", "q1", "median", "q3", "max"), value), status="ok")
            rows.append(row)
    return pd.DataFrame(rows)


def drawn_tests():
    base = dict.fromkeys(staining.TEST_COLUMNS)
    rows = [
        {**base, "marker": "HER2", "contrast": "phases", "unit": "field", "patient": NASTY, "test": "anova", "p_value": 1e-6,
         "p_adjusted": 1e-6, "evidence": "single_patient", "status": "ok"},
        {**base, "marker": "HER2", "contrast": "POST_vs_PRE", "unit": "patient", "test": "rank_sum_exact", "effect": -0.6,
         "p_value": 0.03, "p_adjusted": 0.04, "evidence": "replicated", "status": "ok"},
        {**base, "marker": NASTY, "contrast": "RES_vs_PRE", "unit": "patient", "test": "rank_sum", "effect": 0.1,
         "evidence": "single_patient", "status": "no_replicates"},
    ]  # fmt: skip
    return pd.DataFrame(rows)


def matches():
    base = dict.fromkeys(staining.CONCORDANCE_COLUMNS)
    rows = [
        {**base, "marker": "HER2", "gene": "ERBB2", "contrast": "POST_vs_PRE", "unit": "patient", "agree": "yes"},
        {**base, "marker": NASTY, "gene": NASTY, "contrast": "POST_vs_PRE", "unit": "patient", "agree": ""},
    ]
    return pd.DataFrame(rows)


def page_text(made):
    return made.intro + "".join(section.before + section.after for section in made.sections)


def test_sections(context, tmp_path):
    (tmp_path / "HER2.staining.png").write_bytes(b"\x89PNG")
    made = chapter(context(staining_values=values(), staining_tests=drawn_tests(), staining_concordance=matches()))
    assert made.id == "sc_staining"
    assert [s.id for s in made.sections] == [f"sc_staining_{name}" for name in ("values", "pictures", "tests", "concordance")]
    text = page_text(made)
    assert NASTY not in text
    assert "&lt;img src=x" in text
    assert "Unit patient: 1 of 1 comparison with an adjusted p below 0.05." in made.intro
    assert "HER2, POST_vs_PRE: lower by 0.6." in made.intro
    assert "alone (exploratory): 1 of 1 marker differ between phases (HER2)." in made.intro
    assert "in the same direction in 1 of 1 comparison." in made.intro
    box = made.sections[0].plot
    assert isinstance(box, Box)
    assert list(box.data["HER2"])[:2] == ["a (PRE, n = 5)", "b (POST, n = 5)"]  # the order of phases
    assert box.data["HER2"]["a (PRE, n = 5)"]["median"] == 0.8
    shown = made.sections[2].before
    assert shown.index("rank sum exact") < shown.index("anova")  # what stands behind patients comes first


@pytest.mark.parametrize("bad", [NASTY, '</script><script>alert("x")</script>', '" onmouseover="alert(1)', "a & b < c"])
def test_every_word_of_the_tables_is_text(context, tmp_path, bad):
    (tmp_path / "HER2.staining.png").write_bytes(b"\x89PNG")
    words = dict.fromkeys(("marker", "gene", "patient", "contrast", "reason", "cell_type"), bad)
    made = chapter(
        context(
            staining_values=values().assign(**dict.fromkeys(("marker", "gene", "patient", "sample", "phase", "reason"), bad)),
            staining_tests=drawn_tests().assign(**{name: bad for name in words if name != "gene" and name != "cell_type"}),
            staining_concordance=matches().assign(**words),
        )
    )
    text = page_text(made) + "".join(section.reading for section in made.sections)
    assert bad not in text
    assert html.escape(bad, quote=True) in made.intro
    for name, section in zip(("values", "pictures", "tests", "concordance"), made.sections, strict=True):
        assert name == "pictures" or html.escape(bad, quote=True) in section.before + section.after, name


def test_without_tables(context):
    made = chapter(context())
    assert "none &lt;img" in page_text(made)
    made = chapter(
        context(
            staining_values=values(), staining_tests=drawn_tests().iloc[:0], staining_concordance=matches().iloc[:0]
        )
    )  # fmt: skip
    text = page_text(made)
    assert "no transcript was compared" in text
    assert "No picture was drawn" in text
