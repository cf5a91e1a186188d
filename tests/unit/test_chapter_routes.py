"""The resistance card: a planted patient, empty tables, hostile names."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scresist import decomposition, io, keys, report, routes, target_cover
from scresist.chapter_routes import routes as chapter_of
from scresist.layout import Context
from scresist.status import COLUMNS

SECTIONS = ["patients", "cohort", "decomposition", "items", "targets", "target_clones", "rules"]


def write(folder, patient="P1", clone="P1.C1"):
    base = {
        keys.PATIENT: patient, "contrast": "POST_vs_PRE", "question": "Did a clone grow?", "step": "POST_vs_PRE", "value": 0.31,
        "ci_low": 0.2, "ci_high": 0.4, "scale": "share of cells",
        "measured": f"share of {clone}", "unit": "cell", "n_cells": 267, "n_samples": 2,
        "n_patients": 1, "evidence": "single_patient", "status": "ok", "reason": "",
        "source_table": f"{patient}.clone_changes.tsv",
    }  # fmt: skip
    rows = []
    for route in routes.ROUTES:
        for at, vote in enumerate([1, 1, -1, 0] if route == routes.ROUTES[0] else [0, pd.NA, pd.NA, pd.NA]):
            row = base | {"route": route, "item": f"item{at}", "vote": vote}
            if vote is pd.NA:
                row |= {"value": np.nan, "status": "not_estimable", "reason": f"flow.tsv is absent for {patient}"}
            rows += [row, row | {keys.PATIENT: "cohort", "evidence": "limited"}]
    rows += [
        base | {keys.PATIENT: "P9", "contrast": "", "route": route, "item": "item0", "vote": pd.NA, "value": np.nan,
                "status": "not_estimable", "reason": "biopsies of PRE only"}
        for route in routes.ROUTES
    ]  # fmt: skip
    items = pd.DataFrame(rows, columns=list(routes.ITEM_COLUMNS)).astype({"vote": "Int64"})
    items = items.sort_values(keys.PATIENT, kind="stable", ignore_index=True)
    rng = np.random.default_rng(1)
    clones = pd.Series([clone, "P1.C2"] * 50)
    scores = pd.DataFrame({"module_M1": rng.normal(size=100), "ERBB2": rng.normal(size=100)})
    divided = decomposition.table(patient, "POST_vs_PRE", scores, clones, np.arange(100) < 50, True, 30, 20, 1)
    wanted = pd.DataFrame({"target": ["HER2"], "gene": ["ERBB2"], "class": "x", "drug_example": ["a drug"], "source": "x"})
    counts = np.ones((100, 1))
    of_clones = target_cover.clone_table(
        patient, "POST", clones.tolist(), counts, np.full(100, 1000.0), {"ERBB2": 0}, wanted, 1000.0, 1.0, 0.1
    )
    normal = target_cover.normal_table(patient, ["B"] * 30, counts[:30], np.full(30, 1000.0), {"ERBB2": 0}, wanted, 1000.0)
    sets = target_cover.best_sets(of_clones, normal, clones.tolist(), counts > 0, ["HER2"], wanted, 3, 0.9, 20, 1)
    rules = pd.DataFrame([["r", "i", "Why?", "t.tsv", "clone_growth", "", "up", "stable", 0.1, "source"]],
                         columns=list(routes.RULE_COLUMNS))  # fmt: skip
    for name, frame in {
        "route_items": items, "route_card": routes.card(items), "decomposition": divided, "target_clones": of_clones,
        "target_normal": normal, "target_sets": sets, "route_rules_used": rules,
    }.items():  # fmt: skip
        io.write_tsv(frame, folder / f"{name}.tsv")


def context(folder, rows=(), max_rows=50) -> Context:
    status = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    design = pd.DataFrame({"sample": ["S1"], "patient": ["P1"], "phase": ["PRE"]})
    cells = pd.DataFrame({keys.SAMPLE: [], keys.KEPT: []})
    return Context(report.Tables(folder), status, cells, design, None, pd.DataFrame(), "", pd.DataFrame(), [], max_rows)


def html_of(chapter) -> str:
    return chapter.intro + "".join(section.reading + section.before + section.after for section in chapter.sections)


def test_card_of_a_patient(tmp_path):
    write(tmp_path)
    chapter = chapter_of(context(tmp_path))
    assert [section.id for section in chapter.sections] == [f"sc_routes_{name}" for name in SECTIONS]
    by = {section.id.removeprefix("sc_routes_"): section for section in chapter.sections}
    told = "P1 (one patient, exploratory), POST against PRE: A clone that was there before therapy was selected: supported"
    assert told in chapter.intro
    assert "Cohort, POST against PRE" in chapter.intro
    card = by["patients"].before
    assert "✓ supported" in card and "? not assessable" in card
    assert "0.31 share of cells (95 % 0.2 to 0.4)</b>, POST against PRE; 267 cells, 2 biopsies" in card
    assert '<a href="../P1.clone_changes.tsv">table</a>' in card
    assert "not estimable: " in card and "flow.tsv is absent for P1" in card
    assert "P9: biopsies of PRE only" in card
    assert "1 of 1" in by["cohort"].before
    assert list(by["decomposition"].plot.data) == ["P1 POST_vs_PRE"]
    parts = by["decomposition"].plot.data["P1 POST_vs_PRE"]
    divided = io.read_tsv(tmp_path / "decomposition.tsv").iloc[0]
    assert abs(sum(parts.values()) - divided["total"]) < 1e-5  # tables keep six digits
    assert "HER2" in by["targets"].before and "100 %" in by["targets"].before and "Why?" in by["rules"].before


def test_nothing_was_written(tmp_path):
    chapter = chapter_of(context(tmp_path))
    assert "no status row was written" in html_of(chapter) and len(chapter.sections) == 1


def test_empty_tables(tmp_path):
    write(tmp_path)
    for path in tmp_path.glob("*.tsv"):
        if path.stem not in ("route_card", "route_items"):
            path.write_text(path.read_text().splitlines()[0] + "\n")
    html = html_of(chapter_of(context(tmp_path)))
    assert "no patient has tumour cells" in html
    (tmp_path / "route_card.tsv").write_text("\t".join(routes.CARD_COLUMNS) + "\n")
    assert "No card" in html_of(chapter_of(context(tmp_path)))


def test_hostile_names_are_text(tmp_path):
    bad = '<script>alert("x")</script>'
    write(tmp_path, patient=bad, clone=bad)
    html = html_of(chapter_of(context(tmp_path)))
    assert "<script>" not in html and "&lt;script&gt;" in html and 'title="<' not in html


def test_many_patients_are_cut(tmp_path):
    write(tmp_path)
    items = io.read_tsv(tmp_path / "route_items.tsv", dtype=str)
    one = items[items[keys.PATIENT] == "P1"]
    items = pd.concat([items, one.assign(patient="P2"), one.assign(patient="P3")], ignore_index=True)
    items["vote"] = pd.to_numeric(items["vote"]).astype("Int64")
    io.write_tsv(routes.card(items.assign(n_samples=2)), tmp_path / "route_card.tsv")
    html = html_of(chapter_of(context(tmp_path, max_rows=1)))
    assert "2 more patients in the file" in html
