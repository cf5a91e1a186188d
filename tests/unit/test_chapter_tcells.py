"""The chapter on T-cell states: from tables to sections, with hostile names and without tables."""

from __future__ import annotations

import pandas as pd
import pytest

from scresist import io, keys, panels, report, status, tcells
from scresist.chapter_tcells import tcells as chapter
from scresist.layout import Context, Heat, Line

NASTY = "<img src=x onerror=alert(1)>"
DESIGN = pd.DataFrame(
    {"sample": ["a", "b", "c", "d"], "patient": ["P1", "P2", "P1", NASTY], "phase": ["PRE", "PRE", "POST", "PRE-R"]}
)


@pytest.fixture
def context(tmp_path):
    """A context on the tables of a folder: P1 with two phases, two patients with one."""

    def make(**tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name}.tsv")
        phases = pd.DataFrame(
            {"phase": ["PRE", "POST", "PRE-R"], "time": [0, 2, None], "order": [1, 2, 3], "colour": ["#000000"] * 3}
        )
        io.write_tsv(phases, tmp_path / "phases.tsv")
        rows = status.table([status.StatusRow("score_tcells", "cohort", "cohort", keys.SKIPPED_NO_INPUT, f"0 cells {NASTY}")])
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, DESIGN, None, empty, "", empty, [])

    return make


def values():
    rows = []
    for score, cell_type, means in (
        ("exhaustion_score", "t_cell", (0.2, 0.4, 0.9, None)),
        ("cytotoxic_score", "NK", (1.0, 1.1, 1.2, 1.3)),
        ("naive_score", NASTY, (0.1, 0.1, 0.1, 0.1)),
    ):
        for record, mean in zip(DESIGN.to_dict("records"), means, strict=True):
            rows.append(
                (score, cell_type, record["sample"], record["patient"], record["phase"], 30, mean, mean, mean, mean, 5, "ok", "")
            )
    return pd.DataFrame(rows, columns=list(tcells.VALUE_COLUMNS))


def drawn_tests():
    def row(score, cell_type, contrast, p, **more):
        made = {**dict.fromkeys(tcells.TEST_COLUMNS), "score": score, "cell_type": cell_type, "contrast": contrast}
        return {
            **made, "unit": "patient", "test": "rank_sum_exact", "effect": 0.6, "p_value": p, "p_adjusted": p,
            "evidence": "replicated", "status": "ok", "p_min_attainable": 0.02, **more,
        }  # fmt: skip

    rows = [
        row("exhaustion_score", "t_cell", "POST_vs_PRE", 0.01),
        row("cytotoxic_score", "NK", "POST_vs_PRE", 0.2),
        row("naive_score", NASTY, "RES_vs_PRE", None, status="no_replicates", p_min_attainable=None),
        row("exhaustion_score", "t_cell", "phases", 0.3, test="kruskal_wallis", p_min_attainable=None),
        row("exhaustion_score", "t_cell", "POST_vs_PRE", 0.00012, test="dunn"),
    ]
    return pd.DataFrame(rows, columns=list(tcells.TEST_COLUMNS))


def checkpoint():
    rows = [
        ("checkpoint", "PDCD1", "t_cell", r["sample"], r["patient"], r["phase"], 30, pct, 0.1, 0.1, "ok", "")
        for r, pct in zip(DESIGN.to_dict("records"), (10.0, 20.0, 50.0, None), strict=True)
    ]
    rows.append(("adc", "ERBB2", "tumour", "a", "P1", "PRE", 30, 90.0, 0.1, 0.1, "ok", ""))
    return pd.DataFrame(rows, columns=list(panels.VALUE_COLUMNS))


def page_text(made):
    return made.intro + "".join(section.before + section.after for section in made.sections)


def test_sections_from_tables(context):
    made = chapter(context(tcell_values=values(), tcell_tests=drawn_tests(), panel_values=checkpoint()))
    assert made.id == "sc_tcells"
    sections = {section.id: section for section in made.sections}
    assert len(sections) == 5
    assert all(name.startswith("sc_tcells_") for name in sections)
    text = page_text(made)
    assert NASTY not in text
    assert "&lt;img src=x" in text
    assert "POST against PRE: exhaustion, all T cells higher; adjusted p below 0.05." in made.intro
    assert "RES_vs_PRE: fewer than two patients on a side; effects only, exploratory." in made.intro
    heat = sections["sc_tcells_phases"].plot
    assert isinstance(heat, Heat)
    assert heat.columns == ["PRE", "POST", "PRE-R"]
    assert heat.rows[:2] == ["exhaustion, all T cells", "cytotoxic, NK"]
    assert heat.values[0] == [0.3, 0.9, None]
    beside = sections["sc_tcells_checkpoint"].plot
    assert beside.rows == ["PDCD1, all T cells"]
    assert beside.values == [[15.0, 50.0]]
    line = sections["sc_tcells_patients"].plot
    assert isinstance(line, Line)
    assert line.data["exhaustion, all T cells"] == {"P1": {0.0: 0.2, 2.0: 0.9}}  # PRE-R is not on the axis
    table = sections["sc_tcells_tests"].before
    assert table.index("exhaustion") < table.index("cytotoxic")
    assert "0.00012" not in text  # Dunn's pairs stay in the file
    assert text.count("<svg") == 3


def test_without_panels_and_findings(context):
    made = chapter(context(tcell_values=values(), tcell_tests=drawn_tests().assign(p_adjusted=0.8)))
    assert "No state changed with an adjusted p below 0.05 between patients." in made.intro
    sections = {section.id: section for section in made.sections}
    assert "No checkpoint genes were followed: no status row was written" in sections["sc_tcells_checkpoint"].before


def test_without_tables(context):
    for tables in ({}, {"tcell_values": values().assign(mean=None)}, {"tcell_values": values().iloc[:0]}):
        made = chapter(context(**tables))
        assert [section.id for section in made.sections] == ["sc_tcells_phases"]
        text = page_text(made)
        assert "0 cells &lt;img" in text
        assert NASTY not in text


def test_no_contrast(context):
    made = chapter(context(tcell_values=values(), tcell_tests=drawn_tests().iloc[:0]))
    assert "No contrast could be compared" in made.sections[-1].before
