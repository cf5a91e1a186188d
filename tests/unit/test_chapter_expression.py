"""Chapters of gene tests and markers: what they show, what they say when there is nothing, names from outside escaped."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from scresist import io, keys, report, status
from scresist.chapter_expression import expression, marker
from scresist.layout import Bar, Context, Heat

HOSTILE = '<script>alert("x")</script>'
PNG = b"\x89PNG\r\n\x1a\n"


def context(folder: Path, rows: list[status.StatusRow] | None = None) -> Context:
    design = pd.DataFrame({"sample": ["A1", "B1"], "patient": ["A", "B"], "phase": ["PRE", "POST"]})
    frame = status.table(rows or []).astype(object)
    nothing = pd.DataFrame()
    return Context(report.Tables(folder), frame, nothing, design, None, nothing, "", nothing, [])


def summary_row(contrast: str, cell_type: str, tested: bool = True) -> dict[str, object]:
    return {
        "contrast": contrast, "level": "main_type", "cell_type": cell_type, "n_cells_a": 1200, "n_cells_b": 900,
        "n_patients_used_a": 4 if tested else 1, "n_patients_used_b": 3, "n_up_pseudobulk": 12 if tested else None,
        "n_down_pseudobulk": 0 if tested else None, "n_up_cells": 310, "n_down_cells": 90, "n_both": 11 if tested else None,
        "evidence": keys.REPLICATED if tested else keys.CELL_LEVEL, "status": keys.OK if tested else keys.NO_REPLICATES,
        "reason": "" if tested else "patients with enough cells: 1 against 3, 2 needed on each side",
    }  # fmt: skip


def top_row(contrast: str, cell_type: str, gene: str, rank: int = 1) -> dict[str, object]:
    return {
        "contrast": contrast, "cell_type": cell_type, "rank": rank, "side": "up", "gene": gene, "log2fc_patients": 1.5,
        "padj_patients": 1e-4, "log2fc_cells": 1.2, "padj_cells": 1e-90, "pct_a": 61.2, "pct_b": 20.0,
        "n_patients_same_sign": 4, "n_patients_compared": 7, "evidence": keys.REPLICATED,
    }  # fmt: skip


def html(chapter) -> str:
    return chapter.intro + "".join(s.before + s.after + s.reading for s in chapter.sections)


@pytest.fixture
def tables(tmp_path):
    rows = [summary_row("POST_vs_PRE", "tumour"), summary_row("POST_vs_PRE", "B"), summary_row("POST_vs_PRE", HOSTILE, False)]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "POST_vs_PRE.de_summary.tsv")
    io.write_tsv(pd.DataFrame([summary_row("RES_vs_PRE", "tumour", False)]), tmp_path / "RES_vs_PRE.de_summary.tsv")
    top = [top_row("POST_vs_PRE", "tumour", HOSTILE), top_row("POST_vs_PRE", "B", "LATE", 9), top_row("POST_vs_PRE", "B", "CD74")]
    io.write_tsv(pd.DataFrame(top), tmp_path / "POST_vs_PRE.de_top.tsv")
    used = {"cell_type": ["B", "B"], "sample": ["A1", "B1"], "patient": ["A", "B"], "n_cells": [3, 40], "counts": [400, 90000]}
    used |= {"used": [False, True], "reason": ["fewer than 10 cells", ""]}
    io.write_tsv(pd.DataFrame(used), tmp_path / "POST_vs_PRE.pseudobulk_samples.tsv")
    (tmp_path / "POST_vs_PRE.volcano.png").write_bytes(PNG)
    return tmp_path


def test_expression_tells_patients_from_cells(tables):
    chapter = expression(context(tables))
    assert [section.id for section in chapter.sections] == [
        f"sc_expression_{name}" for name in ("summary", "counts", "volcano", "genes", "samples")
    ]
    text = html(chapter)
    assert "POST_vs_PRE: 12 genes higher and 0 lower in tumour cells (4 against 3 patients, a finding)" in text
    assert "cell by cell 400 genes, exploratory" in text
    assert "RES_vs_PRE: no test of patients in tumour cells (patients with enough cells: 1 against 3" in text
    heat = chapter.sections[1].plot
    assert isinstance(heat, Heat) and heat.values == [[12, None], [12, None], [None, None]]  # no test is no zero
    assert "4 of 7" in text and "CD74" in text and "LATE" not in text
    assert "fewer than 10 cells" in text and "data:image/png;base64" in text


def test_hostile_names_are_escaped(tables):
    (tables / f"{HOSTILE[:8].replace('<', 'x')}.volcano.png").write_bytes(PNG)
    text = html(expression(context(tables)))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_expression_without_tables_says_why(tmp_path):
    reason = "no cell type with enough cells on both sides"
    row = status.StatusRow("test_expression", "contrast", "POST_vs_PRE", keys.SKIPPED_TOO_FEW_CELLS, reason)
    chapter = expression(context(tmp_path, [row]))
    assert html(chapter).count(reason) >= 3 and chapter.sections[1].plot is None
    assert "no status row was written" in html(expression(context(tmp_path)))
    (tmp_path / "POST_vs_PRE.volcano.png").write_bytes(b"")  # as a stub leaves it
    (tmp_path / "POST_vs_PRE.de_summary.tsv").write_bytes(b"")
    assert "data:image" not in html(expression(context(tmp_path)))


@pytest.fixture
def markers(tmp_path):
    share = {"marker": ["MUC3A"] * 2, "sample": ["B1", "A1"], "patient": ["B", "A"], "phase": ["POST", "PRE"], "n": [400, 100]}
    share |= {"n_positive": [40, 30], "share": [0.1, 0.3], "ci_low": [0.07, 0.22], "ci_high": [0.13, 0.4]}
    io.write_tsv(pd.DataFrame(share | {"n_matched": [38, 25], "used": [False, True]}), tmp_path / "MUC3A.marker_share.tsv")
    top = {"marker": "MUC3A", "rank": 1, "side": "up", "gene": HOSTILE, "log2fc_patients": None, "padj_patients": None}
    top |= {"log2fc_cells": 0.6, "padj_cells": 1e-5, "padj_unmatched": 1e-40, "n_samples_same_sign": 2, "n_samples_compared": 2}
    io.write_tsv(pd.DataFrame([top | {"evidence": keys.CELL_LEVEL}]), tmp_path / "MUC3A.marker_top.tsv")
    io.write_tsv(pd.DataFrame({"phase": ["PRE", "POST"]}), tmp_path / "phases.tsv")
    scores = {"marker": ["MUC3A"] * 2, "score": ["module_M4"] * 2, "sample": ["A1", "all"], "mean_pos": [0.5, 0.4]}
    scores |= {"mean_neg": [0.1, 0.2], "effect": [0.4, 0.2], "n_patients_a": [1, 2], "p_value": [0.01, 0.5]}
    scores |= {"p_min_attainable": [None, 0.5], "evidence": [keys.CELL_LEVEL, keys.LIMITED], "status": [keys.OK] * 2}
    io.write_tsv(pd.DataFrame(scores), tmp_path / "MUC3A.marker_scores.tsv")
    groups = {"marker": ["MUC3A"] * 2, "grouping": ["clone", "phase"], "group": [HOSTILE, "PRE"], "n_cells": [10, 100]}
    groups |= {"share": [0.2, 0.3], "n_patients": [1, 1], "status": [keys.OK, keys.NO_REPLICATES], "p_value": [None, None]}
    io.write_tsv(pd.DataFrame(groups), tmp_path / "MUC3A.marker_groups.tsv")
    (tmp_path / "MUC3A.marker_volcano.png").write_bytes(PNG)
    return tmp_path


def test_marker_chapter(markers):
    chapter = marker(context(markers))
    assert [section.id for section in chapter.sections] == [
        f"sc_marker_{name}" for name in ("share", "volcano", "genes", "scores", "groups")
    ]
    text = html(chapter)
    assert "MUC3A: in 14 % of 500 cells; from 10 % to 30 % in 2 samples." in text
    bars = chapter.sections[0].plot
    assert isinstance(bars, Bar) and list(bars.data) == ["A1 (PRE, n=100)", "B1 (POST, n=400)"]  # by phase
    assert bars.data["A1 (PRE, n=100)"] == {"positive": 30, "negative": 70}
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "M4" in text and "module_M4" not in text and text.count('<td class="sc-short">M4</td>') == 1
    assert "data:image/png;base64" in text


def test_marker_without_result_says_why(tmp_path):
    reason = "gene_absent: MUC3A is not among 900 genes"
    row = status.StatusRow("stratify_marker", "contrast", "MUC3A", keys.NOT_ESTIMABLE, reason)
    chapter = marker(context(tmp_path, [row]))
    assert html(chapter).count("gene_absent") >= 3 and chapter.sections[0].plot is None
