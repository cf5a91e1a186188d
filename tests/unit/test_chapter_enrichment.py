"""The chapter on gene sets and pathways: normal tables, empty ones, names that are HTML."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import chapter_enrichment, comparison, figures, io, layout, report
from scresist.layout import Bar, Heat

NASTY = "<img src=x onerror=alert(1)>"
SAMPLES = {"PRE-1": "PRE", "PRE-2": "PRE", "POST-1": "POST"}


def context(folder, status_rows=()):
    design = pd.DataFrame({"sample": list(SAMPLES), "patient": ["P1", "P2", "P3"], "phase": list(SAMPLES.values())})
    columns = ["step", "unit_type", "unit", "status", "reason", "n_cells", "n_samples", "n_patients", "sentence"]
    status = pd.DataFrame(list(status_rows), columns=columns)
    cells = pd.DataFrame({"kept": [True], "sample": ["PRE-1"]})
    empty = pd.DataFrame()
    return layout.Context(
        report.Tables(folder), status, cells, design, report.facts(design, cells), empty, "", empty, [], max_rows=50
    )


def write(folder, group="tumour", evidence="replicated", set_name="HALLMARK_E2F_TARGETS"):
    """Tables of one contrast, as the two steps write them."""
    head = {"source": "expression", "group": group, "contrast": "POST_vs_PRE", "evidence": evidence}
    rows = [
        {**head, "method": "gsea", "direction": "", "collection": "h", "n_genes": 900, "query": np.nan, "universe": np.nan,
         "n_sets": 40, "n_significant": 3, "top_set": set_name, "top_padj": 0.001, "status": "ok", "reason": ""},
        {**head, "method": "ora", "direction": "up", "collection": "h", "n_genes": 900, "query": 50, "universe": 700,
         "n_sets": 30, "n_significant": 2, "top_set": set_name, "top_padj": 0.002, "status": "ok", "reason": ""},
        {**head, "method": "ora", "direction": "down", "collection": "h", "n_genes": 900, "query": 2, "universe": 700,
         "n_sets": 0, "n_significant": 0, "top_set": "", "top_padj": np.nan, "status": "skipped_few_genes", "reason": "2 of 2"},
    ]  # fmt: skip
    io.write_tsv(pd.DataFrame(rows), folder / "POST_vs_PRE.enrichment_groups.tsv")
    gsea = [
        {**head, "collection": "h", "direction": way, "set": name, "set_size": 30, "es": s / 4, "nes": s, "p": p, "padj": p * 2,
         "q_broad": p, "n_leading": 2, "leading_edge": "MKI67,TOP2A", "n_permutations": 1000, "status": "ok"}
        for way, name, s, p in (("up", set_name, 2.4, 0.0004), ("down", "HALLMARK_HYPOXIA", -1.9, 0.003), ("up", "X_Y", 1.1, 0.4))
    ]  # fmt: skip
    io.write_tsv(pd.DataFrame(gsea), folder / "POST_vs_PRE.gsea_top.tsv")
    ora = {**head, "direction": "up", "collection": "h", "set": set_name, "hits": 9, "set_size": 30, "query": 50, "universe": 700}
    ora |= {"fold": 4.2, "p": 1e-5, "padj": 2e-4, "genes": "MKI67,TOP2A", "status": "ok"}
    io.write_tsv(pd.DataFrame([ora]), folder / "POST_vs_PRE.ora_top.tsv")
    figure = figures.plt.figure(figsize=(1, 1))
    picture = figures.png(figure)
    for kind in ("running_sum", "enrichment_dots"):
        (folder / f"POST_vs_PRE.{kind}.png").write_bytes(picture)
    scores = {"PRE-1": (1.0, 4.0), "PRE-2": (3.0, 4.5), "POST-1": (8.0, 5.0)}
    activity = [
        {"sample": s, "cell_type": group, "network": "progeny", "method": "mlm", "source": name, "score": value,
         "n_targets": 100, "level": "pseudobulk", "n_cells": 50}
        for s, pair in scores.items() for name, value in zip(("Hypoxia", "EGFR"), pair, strict=True)
    ]  # fmt: skip
    io.write_tsv(pd.DataFrame(activity), folder / "activity.tsv")
    test = dict.fromkeys(comparison.TEST_COLUMNS, np.nan)
    test |= {"contrast": "POST_vs_PRE", "effect": 6.0, "p_value": 0.1, "p_adjusted": 0.2, "p_min_attainable": 0.1,
             "evidence": evidence, "status": "ok", "n_patients_a": 3, "n_patients_b": 3}  # fmt: skip
    test = {"cell_type": group, "level": "pseudobulk", "network": "progeny", "method": "mlm", "source": "Hypoxia", **test}
    io.write_tsv(pd.DataFrame([test]), folder / "activity_tests.tsv")


def text_of(chapter):
    return chapter.intro + "".join(section.before + section.after for section in chapter.sections)


def test_a_run_as_it_should_be(tmp_path):
    write(tmp_path)
    io.write_tsv(pd.DataFrame({"phase": ["PRE", "POST"]}), tmp_path / "phases.tsv")
    made = chapter_enrichment.enrichment(context(tmp_path))
    assert made.id == "sc_enrichment" and all(s.id.startswith("sc_enrichment_") for s in made.sections)
    assert "POST_vs_PRE, tumour cells (replicated): higher are the genes of e2f targets." in made.intro
    assert "lower are the genes of hypoxia." in made.intro
    assert "Pathway activity between patients: 1 test, 0 with an adjusted p below 0.05." in made.intro
    assert "POST_vs_PRE: with so few patients no test can give p below 0.05" in made.intro
    by = {s.id.removeprefix("sc_enrichment_"): s for s in made.sections}
    bars = by["numbers"].plot
    assert isinstance(bars, Bar) and bars.data == {"POST_vs_PRE / tumour": {"gsea": 3, "up": 2, "down": 0}}
    assert by["dots"].before.count("<img") == by["running"].before.count("<img") == 1
    assert "e2f targets" in by["gsea"].before and "MKI67,TOP2A" in by["ora"].before
    assert "6.00" in by["tests"].before
    heat = by["activity"].plot
    assert isinstance(heat, Heat)
    assert heat.rows == ["Hypoxia", "EGFR"]  # the one that differs most first
    assert heat.columns == ["PRE-1 (PRE, n=50)", "PRE-2 (PRE, n=50)", "POST-1 (POST, n=50)"]
    assert heat.values == [[-3.0, -1.0, 4.0], [-0.5, 0.0, 0.5]]  # minus the means 4 and 4.5
    assert all(s.reading and s.title for s in made.sections)


@pytest.mark.parametrize("evidence", ["single_patient", "cell_level"])
def test_exploratory_results_are_no_sentences(tmp_path, evidence):
    write(tmp_path, evidence=evidence)
    made = chapter_enrichment.enrichment(context(tmp_path))
    assert "higher are the genes" not in made.intro
    assert evidence in text_of(made)


def test_nothing_was_written(tmp_path):
    rows = [
        ("enrich_genes", "contrast", "POST_vs_PRE", "skipped_no_input", "no collection", "", "", "", "Not done."),
        ("score_activity", "cohort", "cohort", "skipped_too_few_cells", "too few", "", "", "", "Not done."),
    ]
    for given in ((), rows):
        made = chapter_enrichment.enrichment(context(tmp_path, given))
        assert len(made.sections) == 7 and not any(s.plot for s in made.sections)
        assert "No list of genes was compared with gene sets." in made.intro
        assert ("no collection" in text_of(made)) == bool(given)
        assert ("no status row was written" in text_of(made)) == (not given)


def test_empty_tables_and_one_sample(tmp_path):
    write(tmp_path)
    for path in tmp_path.glob("*.tsv"):
        io.write_tsv(io.read_tsv(path, dtype=str).head(1 if path.name == "activity.tsv" else 0), path)
    made = chapter_enrichment.enrichment(context(tmp_path))
    assert "there is nothing to compare it with" in text_of(made)
    assert "no ranking was tested" in text_of(made) and "no group has enough chosen genes" in text_of(made)


def test_names_from_outside_stay_text(tmp_path):
    write(tmp_path, group=NASTY, set_name="GO_" + NASTY)
    made = chapter_enrichment.enrichment(context(tmp_path))
    assert "<img src=x" not in text_of(made)
    assert "&lt;img src=x" in text_of(made)
