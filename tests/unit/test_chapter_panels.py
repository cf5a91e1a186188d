"""The chapter on panels: from tables to sections, with hostile names and without tables."""

from __future__ import annotations

import pandas as pd
import pytest

from scresist import comparison, io, keys, panels, report, status
from scresist.chapter_panels import panels as chapter
from scresist.layout import Context, Heat, Line

NASTY = "<img src=x onerror=alert(1)>"
PATIENTS, PHASES = ("P1", "P1", "P1", NASTY), ("PRE", "RES", "POST", "PRE-R")


@pytest.fixture
def context(tmp_path):
    """A context on the tables of a folder; samples P1 with three phases and P2 with one."""

    def make(**tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name}.tsv")
        phases = pd.DataFrame(
            {"phase": ["PRE", "RES", "POST", "PRE-R"], "time": [0, 1, 2, None], "order": [1, 2, 3, 4], "colour": ["#000000"] * 4}
        )
        io.write_tsv(phases, tmp_path / "phases.tsv")
        design = pd.DataFrame(
            {"sample": ["a", "b", "c", "d"], "patient": ["P1", "P1", "P1", NASTY], "phase": ["PRE", "RES", "POST", "PRE-R"]}
        )
        rows = status.table([status.StatusRow("track_panels", "cohort", "cohort", keys.SKIPPED_NO_INPUT, f"0 cells {NASTY}")])
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, design, None, empty, "", empty, [])

    return make


def values():
    rows = []
    for panel, gene, cell_type, means in (
        ("adc", "ERBB2", "tumour", (1.0, 0.6, 0.2, 0.9)),
        ("checkpoint", "PDCD1", "t_cell", (0.5, 0.2, 0.9, None)),
        ("mhc_1", "HLA-A", "tumour", (2.0, 3.0, 1.0, 2.0)),
        ("mhc_1", "HLA-A", "B", (2.0, 3.0, 1.0, 2.0)),
        ("mhc_1", "set_score", "tumour", (0.1, 0.4, -0.1, 0.0)),
        (NASTY, NASTY, NASTY, (0.1, 0.1, 0.1, 0.1)),
    ):
        for sample, patient, phase, mean in zip(
            "abcd", ("P1", "P1", "P1", NASTY), ("PRE", "RES", "POST", "PRE-R"), means, strict=True
        ):
            pct = None if mean is None or gene == "set_score" else 20 * mean
            rows.append((panel, gene, cell_type, sample, patient, phase, 30, pct, mean, None, "ok", ""))
    return pd.DataFrame(rows, columns=list(panels.VALUE_COLUMNS))


def drawn_tests():
    def row(gene, unit, test, contrast, effect, p, evidence, **more):
        made = {**dict.fromkeys(panels.TEST_COLUMNS), "panel": "adc", "gene": gene, "cell_type": "tumour", "measure": "mean"}
        return {**made, "unit": unit, "test": test, "contrast": contrast, "effect": effect, "p_value": p, "p_adjusted": p,
                "evidence": evidence, "status": "ok", **more}  # fmt: skip

    rows = [
        row("CST3", "patient", "rank_sum_exact", "POST_vs_PRE", 0.4, 0.5, "replicated", p_min_attainable=0.02),
        row("ERBB2", "patient", "rank_sum_exact", "POST_vs_PRE", -0.8, 0.01, "replicated", p_min_attainable=0.02),
        row("ERBB2", "patient", "rank_sum_exact", "PRE-R_vs_PRE", -0.1, 0.2, "limited", p_min_attainable=0.2),
        row("ERBB2", "patient", "dunn", "POST_vs_PRE", -0.8, 0.001, "replicated"),
        row(NASTY, "cell", "kruskal_wallis", "phases", 0.3, 1e-9, "cell_level", groups="PRE=30;POST=30"),
    ]
    return pd.DataFrame(rows, columns=list(panels.TEST_COLUMNS))


def trend():
    rows = [
        ("adc", "ERBB2", "tumour", "P1", "PRE,RES,POST", "1,0.6,0.2", "down", "down", "yes"),
        ("adc", "ERBB2", "tumour", "P3", "PRE,RES,POST", "1,0.6,0.2", "down", "down", "yes"),
        ("adc", "CST3", "tumour", "P1", "PRE,RES,POST", "1,0.6,0.9", "down-up", "up", "no"),
        ("mhc_1", "HLA-A", "B", NASTY, "PRE,RES,POST", "1,2,3", "up", "", ""),
    ]
    return pd.DataFrame(rows, columns=list(panels.TREND_COLUMNS))


def clones():
    rows = [
        ("P1", "P1.C1", "CD274", 0.0, "neutral", 40, 10.0, 0.2),
        ("P1", "P1.C1", "MYC", None, "", 40, 10.0, 0.2),
        (NASTY, "x.C1", "ERBB2", 0.4, "gain", 40, 60.0, 1.2),
    ]
    return pd.DataFrame(rows, columns=list(panels.CLONE_COLUMNS))


def page_text(made):
    return made.intro + "".join(section.before + section.after for section in made.sections)


def test_sections_from_tables(context):
    made = chapter(context(panel_values=values(), panel_tests=drawn_tests(), panel_trend=trend(), panel_clones=clones()))
    assert made.id == "sc_panels"
    sections = {section.id: section for section in made.sections}
    assert all(name.startswith("sc_panels_") for name in sections)
    text = page_text(made)
    assert NASTY not in text
    assert "&lt;img src=x" in text
    assert "1 of 3 tests between patients have an adjusted p below 0.05." in made.intro
    assert "PRE-R_vs_PRE: with so few patients no test can give p below 0.05" in made.intro
    assert "ERBB2 in tumour: down in all 2 courses, as stated beforehand." in made.intro
    assert "CST3 in" not in made.intro
    heat = sections["sc_panels_phases"].plot
    assert isinstance(heat, Heat)
    assert heat.columns == ["PRE", "RES", "POST", "PRE-R"]
    assert heat.rows[:3] == ["ERBB2, tumour", "PDCD1, t_cell", "HLA-A, tumour"]  # the first compartment of a gene
    assert heat.values[1] == [10.0, 4.0, 18.0, None]
    sets = sections["sc_panels_sets"].plot
    assert sets.rows == ["mhc_1 (set score), tumour"]
    line = sections["sc_panels_patients"].plot
    assert isinstance(line, Line)
    assert line.data["ERBB2, tumour"] == {"P1": {0.0: 1.0, 1.0: 0.6, 2.0: 0.2}}  # PRE-R is not on the axis
    assert "mhc_1 (set score), tumour" in line.data
    between = sections["sc_panels_tests"].before
    assert between.index("ERBB2") < between.index("CST3")
    assert "0.001" not in between  # Dunn's pairs stay in the file
    assert "exploratory" in sections["sc_panels_cells"].title
    assert "2 of 2" in sections["sc_panels_trend"].before
    shown = sections["sc_panels_clones"].before
    assert shown.index("ERBB2") < shown.index("CD274")
    assert "MYC" not in shown  # its locus was not measured


def test_patients_are_weighed_by_cells_within_and_equally_between(context):
    table = values()
    mine = table[(table["gene"] == "ERBB2") & (table["sample"] == "a")]
    more = pd.concat([mine.assign(sample="a2", n_cells=90, pct=100.0), mine.assign(sample="e", patient="P9", pct=0.0)])
    made = chapter(context(panel_values=pd.concat([table, more], ignore_index=True)))
    heat = next(s.plot for s in made.sections if s.id == "sc_panels_phases")
    # P1: (30 x 20 + 90 x 100) / 120 = 80; P9: 0
    assert heat.values[0][0] == pytest.approx(40.0)


def test_empty_tables_say_why(context):
    made = chapter(context())
    assert [section.plot for section in made.sections] == [None]
    assert "0 cells &lt;img" in page_text(made)
    assert NASTY not in page_text(made)
    assert "No values" in page_text(chapter(context(panel_values=values().iloc[:0])))


def test_values_without_anything_else(context):
    made = chapter(
        context(
            panel_values=values(),
            panel_tests=drawn_tests().iloc[:0],
            panel_trend=trend().iloc[:0],
            panel_clones=clones().iloc[:0],
        )
    )
    text = page_text(made)
    for part in ("No contrast could be compared", "no patient has three ordered phases", "no clone was traced"):
        assert part in text
    assert len(made.sections) == 7
    assert set(comparison.TEST_COLUMNS) <= set(panels.TEST_COLUMNS)
