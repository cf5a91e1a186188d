"""The chapter of clones: planted patients, empty tables, hostile names."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from scresist import clones as kernel
from scresist import figures, io, keys, report
from scresist.chapter_clones import clones
from scresist.layout import Context
from scresist.status import COLUMNS

SECTIONS = ["patients", "changes", "flow", "heatmap", "tree", "events", "diversity", "shares", "without"]
SETS = [("+8q", "+1q"), ("+8q", "-5q")]
CELLS = {"PRE": (60, 20), "POST": (10, 90)}


def write_patient(folder, patient: str, label: str | None = None) -> None:
    """Tables of one patient with two clones, made by the kernels."""
    name = label or patient
    clones_ = [f"{name}.C1", f"{name}.C2"]
    rows = [(clone, phase) for phase, given in CELLS.items() for clone, n in zip(clones_, given, strict=True) for _ in range(n)]
    clone, phase = np.array(rows, dtype=object).T
    shares = kernel.shares(name, clones_, clone, phase, list(CELLS))
    changes = kernel.changes(shares, [("POST", "PRE", True)], 30, 0.05)
    found = pd.DataFrame(
        {
            "patient": name, "clone": clones_, "n_cells": [70, 110], "n_phases": 2, "trunk_events": "+8q", "shared_events": "",
            "private_events": ["+1q", "-5q"], "mean_score": 0.01, "ari_ward": 0.7, "ari_ward_best": 0.9,
            "ari_reference_design": np.nan,
        }
    )  # fmt: skip
    tables = {
        "clones": found,
        "clone_phases": shares,
        "clone_changes": changes,
        "clone_tree": kernel.tree_table(name, clones_, SETS, np.array([[4.0, 4.0, 0.0], [4.0, 0.0, -4.0]])),
        "clone_diversity": kernel.diversity_table(name, {p: list(n) for p, n in CELLS.items()}, 1),
        "clone_events": pd.DataFrame(
            [(name, clones_[0], "arm", "+8q", "8", "8q", "", "", pd.NA, pd.NA, 80, 3.2, "trunk")],
            columns=list(kernel.EVENT_COLUMNS),
        ),
    }
    for kind, table in tables.items():
        io.write_tsv(table, folder / f"{patient}.{kind}.tsv")
    for kind in ("cnv_heatmap", "clone_flow"):
        (folder / f"{patient}.{kind}.png").write_bytes(b"picture of " + patient.encode())


def context(folder, rows=(), max_rows=50) -> Context:
    status = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    design = pd.DataFrame({"sample": ["S1"], "patient": ["P1"], "phase": ["PRE"]})
    cells = pd.DataFrame({keys.SAMPLE: [], keys.KEPT: []})
    return Context(report.Tables(folder), status, cells, design, None, pd.DataFrame(), "", pd.DataFrame(), [], max_rows)


def status_row(patient, word, reason):
    return ("trace_clones", "patient", patient, word, reason, 0, 1, 1, "Not done.")


def html_of(chapter) -> str:
    return chapter.intro + "".join(section.reading + section.before + section.after for section in chapter.sections)


def test_patients_with_clones(tmp_path):
    for patient in ("P10", "P2"):
        write_patient(tmp_path, patient)
    quiet = status_row("P3", "cnv_quiet", "none of 40 epithelial cells is called malignant")
    chapter = clones(context(tmp_path, [quiet]))
    assert [section.id for section in chapter.sections] == [f"sc_clones_{name}" for name in SECTIONS]
    html = html_of(chapter)
    assert "Clones were traced in 2 patients: 4 in all; 2 patients have more than one." in chapter.intro
    # 60 of 80 cells before, 10 of 100 after
    assert "P2, POST against PRE: P2.C1 receded (75 % to 10 %); P2.C2 grew (25 % to 90 %)" in chapter.intro
    assert chapter.intro.index("P2,") < chapter.intro.index("P10,")
    assert "exploratory" in chapter.intro
    by = {section.id: section for section in chapter.sections}
    assert figures.data_uri(b"picture of P2") in by["sc_clones_flow"].before
    assert by["sc_clones_heatmap"].before.count("<img") == 2
    assert re.search(r"common ancestor</b>: \+8q<ul.*P2\.C1</b>: \+1q.*P2\.C2</b>: -5q", by["sc_clones_tree"].before)
    assert "P2: Ward" in by["sc_clones_patients"].after
    assert "with the normal cells of each phase" not in html  # no index, no doubt
    assert "none of 40 epithelial cells" in by["sc_clones_without"].before
    assert "pielou" not in by["sc_clones_diversity"].before


def test_no_patient_has_clones(tmp_path):
    write_patient(tmp_path, "P1")
    for path in tmp_path.glob("*.tsv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")  # headers only, as the step writes them
    chapter = clones(context(tmp_path, [status_row("P1", "cnv_quiet", "40 cells")]))
    html = html_of(chapter)
    assert "no clone could be traced (cnv_quiet in 1 patient)" in chapter.intro
    assert "<img" not in html  # the picture of a patient without clones only repeats the reason
    assert html.count("no patient has clones: cnv_quiet in 1 patient") >= 6


def test_nothing_was_written(tmp_path):
    html = html_of(clones(context(tmp_path)))
    assert "no status row was written" in html


def test_hostile_names_are_text(tmp_path):
    bad = '<script>alert("x")</script>'
    write_patient(tmp_path, "P1", label=bad)
    (tmp_path / "P1.clone_flow.png").rename(tmp_path / "P2.clone_flow.png")
    html = html_of(clones(context(tmp_path, [status_row(bad, "cnv_quiet", bad)])))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("most", [1, 2])
def test_many_patients_are_cut(tmp_path, most):
    for patient in ("P1", "P2", "P3"):
        write_patient(tmp_path, patient)
    chapter = clones(context(tmp_path, max_rows=most))
    by = {section.id: section for section in chapter.sections}
    for name in ("flow", "heatmap", "tree"):
        assert f"{3 - most} more as files" in by[f"sc_clones_{name}"].before
    assert by["sc_clones_flow"].before.count("<img") == most
