"""The chapter on dose-response: from tables to sections, hostile names, empty tables."""

from __future__ import annotations

import html

import pandas as pd
import pytest

from scresist import chapter_dose_response, dose_response, io, keys, report, status
from scresist.chapter_dose_response import dose_response as chapter
from scresist.layout import Context

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
def context(tmp_path):
    def make(**tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name}.tsv")
        rows = status.table([status.StatusRow("fit_dose_response", "cohort", "cohort", keys.SKIPPED_NO_INPUT, f"none {NASTY}")])
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, empty, None, empty, "", empty, [])

    return make


def fits():
    base = dict.fromkeys(dose_response.FIT_COLUMNS)
    rows = [
        {**base, "curve": "L / kd / X", "line": "L", "treatment": "kd", "compound": "X", "replicate": "all", "ic50": 10.0,
         "ic50_text": "10", "unit": "nM", "status": "ok"},
        {**base, "curve": NASTY, "line": NASTY, "treatment": NASTY, "compound": NASTY, "replicate": "all", "ic50_text": "> 12500",
         "unit": "nM", "status": "out_of_range"},
        {**base, "curve": "L / up / X", "line": "L", "treatment": "up", "compound": "X", "replicate": "all",
         "status": keys.NOT_ESTIMABLE, "reason": "rising"},
        {**base, "curve": "L / kd / X", "line": "L", "treatment": "kd", "compound": "X", "replicate": "R1", "ic50": 11.0,
         "ic50_text": "11.5", "status": "ok"},
    ]  # fmt: skip
    return pd.DataFrame(rows)


def drawn_tests():
    base = dict.fromkeys(dose_response.TEST_COLUMNS)
    pair = {**base, "comparison": "treatments", "line": "L", "compound": "X", "contrast": "kd_vs_ctl", "unit": "replicate",
            "test": "tukey_hsd", "p_value": 0.001, "p_adjusted": 0.001, "fold_change": 0.125, "fold_low": 0.1, "fold_high": 0.15,
            "status": "ok"}  # fmt: skip
    whole = {**base, "comparison": "treatments", "line": "L", "compound": "X", "contrast": "treatments", "unit": "replicate",
             "test": "anova", "p_value": 0.001, "p_adjusted": 0.001, "status": "ok"}  # fmt: skip
    wells = {**pair, "contrast": "other_vs_ctl", "unit": "well", "test": "wald_wells", "p_value": None, "p_adjusted": None,
             "status": keys.NO_REPLICATES}  # fmt: skip
    untested = {**whole, "p_value": None, "p_adjusted": None, "status": keys.NO_REPLICATES}
    return pd.DataFrame(
        [whole, untested, pair, {**pair, "contrast": f"{NASTY}_vs_ctl", "p_value": 0.5, "p_adjusted": 0.5}, wells]
    )


def page_text(made):
    return made.intro + "".join(section.before + section.after for section in made.sections)


def test_sections(context, tmp_path):
    (tmp_path / "X.dose_response.png").write_bytes(b"\x89PNG")
    made = chapter(context(dose_fits=fits(), dose_tests=drawn_tests()))
    assert made.id == "sc_dose_response"
    assert [s.id for s in made.sections] == [f"sc_dose_response_{name}" for name in ("curves", "fits", "tests", "replicates")]
    text = page_text(made)
    assert NASTY not in text
    assert "&lt;img src=x" in text
    assert "1 of 3 curves have an IC50 within the tested doses." in made.intro
    assert "(&gt; 12500 nM)" in made.intro
    assert "No IC50 can be given, not even a limit: L / up / X." in made.intro
    assert "IC50s of replicates differ in 1 of 1 comparison of treatments or lines (analysis of variance, adjusted" in made.intro
    assert "other" not in made.intro  # over wells only: not a result to begin with
    assert "L, X: IC50 of kd is 0.125 times that of ctl (95 % 0.1 to 0.15)." in made.intro
    assert 'class="sc-picture"' in made.sections[0].before
    assert "11.5" in made.sections[3].before
    assert "11.5" not in made.sections[1].before


@pytest.mark.parametrize("bad", [NASTY, '</script><script>alert("x")</script>', '" onmouseover="alert(1)', "a & b < c"])
def test_every_word_of_the_tables_is_text(context, tmp_path, bad):
    (tmp_path / "X.dose_response.png").write_bytes(b"\x89PNG")
    names = dict.fromkeys(("curve", "line", "treatment", "compound", "unit", "ic50_text", "reason"), bad)
    tests = drawn_tests().assign(line=bad, compound=bad, treatment=bad, contrast=f"{bad}_vs_{bad}", reason=bad)
    made = chapter(context(dose_fits=fits().assign(**names), dose_tests=tests))
    text = page_text(made) + "".join(section.reading for section in made.sections)
    assert bad not in text
    assert html.escape(bad, quote=True) in made.intro
    assert all(html.escape(bad, quote=True) in section.before for section in made.sections[1:])


def test_nothing_was_tested(context):
    tests = drawn_tests()
    text = page_text(chapter(context(dose_fits=fits(), dose_tests=tests[tests["status"] == keys.NO_REPLICATES])))
    assert "No comparison has replicates enough for a test between them." in text
    assert "0 of 0" not in text


def test_as_many_pictures_as_are_drawn(root):
    text = (root / "bin" / "fit_dose_response.py").read_text(encoding="utf-8")
    assert f"MAX_PICTURES = {chapter_dose_response.MAX_PICTURES} " in text


def test_without_tests_or_tables(context):
    made = chapter(context())
    assert len(made.sections) == 1
    assert "none &lt;img" in page_text(made)
    made = chapter(context(dose_fits=fits().iloc[:1], dose_tests=drawn_tests().iloc[:0]))
    text = page_text(made)
    assert "nothing to compare" in text
    assert "no curve has two replicates" in text
    assert "No picture was drawn" in text
