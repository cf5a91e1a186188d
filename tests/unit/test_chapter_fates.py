"""The chapter of fates: mapped patients, empty tables, hostile names."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from scresist import fates as kernel
from scresist import figures, io, keys, report
from scresist.chapter_fates import fates
from scresist.layout import Context, Heat
from scresist.status import COLUMNS

SECTIONS = ["cells", "tests", "control", "clones", "couplings", "states", "drivers", "limits", "without"]


def made_row(patient, control, measure, kind, group, value, p, fate="later", pair=("PRE", "POST")):
    return {
        "patient": patient, "control": control, "measure": measure, "phase_from": pair[0], "phase_to": pair[1],
        "group_kind": kind, "group": group, "fate": fate, "n_cells": 40, "value": value, "null_mean": 0.0, "null_low": -0.05,
        "null_high": 0.05, "n_null": 100, "p_value": p, "p_adjusted": p, "adjust_method": "BH:groups x phases",
        "unit": "cell", "evidence": "cell_level", "status": "ok" if np.isfinite(value) else "not_estimable",
    }  # fmt: skip


def write_patient(folder, patient: str, label: str | None = None, p: float = 0.0099) -> None:
    name = label or patient
    tests = pd.DataFrame(
        [
            made_row(name, "data", "direction", "order", "cytotrace", -0.21, 0.5, pair=("PRE", "RES")),
            made_row(name, "data", "resemblance", "epi_cluster", "3", np.nan, np.nan),
            made_row(name, "data", "direction", "order", "cytotrace", -0.115, p),
            made_row(name, "data", "direction", "order", "pseudotime", 0.105, p),
            made_row(name, "data", "resemblance", "epi_cluster", "2", 0.07, p),
            made_row(name, "data", "fate_probability", "clone", f"{name}.C1", 0.8, 0.3, f"{name}.F1"),
            made_row(name, "permuted_labels", "direction", "order", "cytotrace", 0.02, 0.34),
            made_row(name, "permuted_labels", "direction", "order", "pseudotime", 0.06, 0.03),
        ],
        columns=list(kernel.FATE_TEST_COLUMNS),
    )
    pairs = [
        ("PRE", "RES", "used", 0.0),
        ("RES", "POST", "used", 0.3),
        ("PRE", "POST", "used", 0.4),
        ("PRE", "POST", "free", 0.8),
    ]
    couplings = pd.DataFrame(
        [
            {
                "patient": name, "phase_from": a, "phase_to": b, "coupling": how, "group_kind": "clone",
                "group_from": f"{name}.C{i}", "group_to": f"{name}.C{j}", "n_from": 30, "n_to": 30,
                "mass": (1 - moved) / 2 if i == j else moved / 2, "same_group": i == j, "mass_changed": moved, "status": "ok",
            }
            for a, b, how, moved in pairs
            for i in (1, 2)
            for j in (1, 2)
        ],
        columns=list(kernel.COUPLING_COLUMNS),
    )  # fmt: skip
    macro = pd.DataFrame(
        [(name, f"{name}.F1", True, 80, 0.98, f"{name}.C1", 0.9, "2", 0.7, "Enterocyte", 1.0, "module_M1", 1.2)],
        columns=list(kernel.MACRO_COLUMNS),
    )
    drivers = pd.DataFrame(
        [
            (name, "later", rank, f"GENE{rank}", 0.3, 0.1, 0.5, 40, 6000, 0.001, 0.02, "BH:genes", "cell", "cell_level")
            for rank in (1, 2, -1, 30)
        ],
        columns=list(kernel.DRIVER_COLUMNS),
    )
    for kind, table in {"fate_tests": tests, "couplings": couplings, "macrostates": macro, "fate_drivers": drivers}.items():
        io.write_tsv(table, folder / f"{patient}.{kind}.tsv")
    (folder / f"{patient}.fates.png").write_bytes(b"picture of " + patient.encode())


def context(folder, rows=(), max_rows=50) -> Context:
    status = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    design = pd.DataFrame({"sample": ["S1"], "patient": ["P1"], "phase": ["PRE"]})
    cells = pd.DataFrame({keys.SAMPLE: [], keys.KEPT: []})
    return Context(report.Tables(folder), status, cells, design, None, pd.DataFrame(), "", pd.DataFrame(), [], max_rows)


def status_row(patient, word, reason):
    return ("map_fates", "patient", patient, word, reason, 0, 1, 1, "Not done.")


def html_of(chapter) -> str:
    return chapter.intro + "".join(section.reading + section.before + section.after for section in chapter.sections)


def test_patients_with_fates(tmp_path):
    for patient in ("P10", "P2"):
        write_patient(tmp_path, patient)
    chapter = fates(context(tmp_path, [status_row("P3", "skipped_no_input", "one phase on the time axis (PRE), two needed")]))
    assert [section.id for section in chapter.sections] == [f"sc_fates_{name}" for name in SECTIONS]
    assert "2 patients could be compared." in chapter.intro
    assert chapter.intro.index("P2,") < chapter.intro.index("P10,")
    assert (
        "P2, PRE against POST: more differentiated PRE cells (CytoTRACE) resemble the POST cells more (slope -0.115, permuted"
        " phases -0.05 to 0.05, p 0.0099)"
    ) in chapter.intro
    assert "PRE cells further from the root of the pseudotime resemble the POST cells more" in chapter.intro
    assert "PRE cells of state 2 resemble the POST cells more than others" in chapter.intro
    assert "1 terminal state of the POST cells (exploratory: cells, one patient)" in chapter.intro
    by = {section.id: section for section in chapter.sections}
    assert figures.data_uri(b"picture of P2") in by["sc_fates_cells"].before
    tests = by["sc_fates_tests"].before
    assert "direction along cytotrace" in tests
    assert "share towards clone P2.C1 (P2.F1)" in tests
    # the smallest p first, rows without a value last
    assert tests.index("pseudotime") < tests.index("share towards") < tests.index("resemblance of state 3")
    assert "2 of 4 p values of the control lie below 0.05 (50 %); 2 after adjustment" in by["sc_fates_control"].before
    heat = by["sc_fates_clones"].plot
    assert isinstance(heat, Heat)
    assert list(heat.rows) == ["P2.C1 PRE", "P2.C2 PRE", "P10.C1 PRE", "P10.C2 PRE"]
    assert next(iter(heat.columns)) == "P2.C1 POST"
    assert heat.values[0] == [0.3, 0.2, None, None]  # other patients' clones are no zeros
    changed = by["sc_fates_couplings"].before
    assert changed.count("PRE to POST") == 4
    assert "80.0 %" in changed
    assert "GENE30" not in by["sc_fates_drivers"].before
    assert "GENE-1" in by["sc_fates_drivers"].before
    assert "one phase on the time axis (PRE), two needed" in by["sc_fates_without"].before
    for text in (chapter.intro, html_of(chapter)):
        assert "will become" not in text
    assert "no cell was followed" in chapter.intro.lower()


def test_nothing_beyond_the_null(tmp_path):
    write_patient(tmp_path, "P1", p=0.4)
    table = io.read_tsv(tmp_path / "P1.macrostates.tsv")
    io.write_tsv(table.assign(terminal=False), tmp_path / "P1.macrostates.tsv")
    intro = fates(context(tmp_path)).intro
    assert "P1, PRE against POST: no group of PRE cells resembles the POST cells beyond the null" in intro
    assert "the POST cells have no terminal state" in intro


def test_no_patient_could_be_mapped(tmp_path):
    write_patient(tmp_path, "P1")
    for path in tmp_path.glob("*.tsv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")  # headers only, as the step writes them
    chapter = fates(context(tmp_path, [status_row("P1", "skipped_no_input", "one phase")]))
    html = html_of(chapter)
    assert "no patient could be compared (skipped_no_input in 1 patient)" in chapter.intro
    assert "<img" not in html
    assert html.count("no patient has tumour cells in two phases on the time axis: skipped_no_input in 1 patient") >= 6
    assert {section.id: section.plot for section in chapter.sections}["sc_fates_clones"] is None


def test_nothing_was_written(tmp_path):
    chapter = fates(context(tmp_path))
    assert "no status row was written" in html_of(chapter)
    assert "snapshot" in html_of(chapter)


def test_hostile_names_are_text(tmp_path):
    bad = '<script>alert("x")</script>'
    write_patient(tmp_path, "P1", label=bad)
    chapter = fates(context(tmp_path, [status_row(bad, "skipped_no_input", bad)]))
    html = html_of(chapter)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    heat = next(section.plot for section in chapter.sections if section.plot)
    assert not re.search("<script>", " ".join([*heat.rows, *heat.columns]))


@pytest.mark.parametrize("most", [1, 2])
def test_many_patients_are_cut(tmp_path, most):
    for patient in ("P1", "P2", "P3"):
        write_patient(tmp_path, patient)
    chapter = fates(context(tmp_path, max_rows=most))
    by = {section.id: section for section in chapter.sections}
    assert by["sc_fates_cells"].before.count("<img") == most
    assert f"{3 - most} more as files" in by["sc_fates_cells"].before
