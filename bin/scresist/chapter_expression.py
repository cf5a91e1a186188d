"""Chapters of the report: genes that differ between phases, and cells with a marker against cells without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scresist import keys, report
from scresist.layout import Bar, Chapter, Context, Heat, Section, empty, items, picture
from scresist.report import Col, count, esc, listing, number, percent, to_number

FOLDER = "03_tumour/expression"
MARKER_FOLDER = "03_tumour/markers"
TITLE = "Genes that differ"
MARKER_TITLE = "Cells with a marker"
TUMOUR = "tumour"
TOP_SHOWN = 5  # genes per side, cell type and contrast on the page; ten stand in de_top.tsv
TYPES_SHOWN = 4  # cell types per contrast in the table of genes
WORDS = {keys.REPLICATED: "a finding", keys.LIMITED: "a finding of few patients"}


def _int(row: Mapping[str, Any], name: str) -> int | None:
    value = to_number(row.get(name))
    return None if value is None else int(value)


def _why(context: Context, step: str) -> str:
    """Reasons of a step that works per contrast or marker, for a place that stays empty."""
    rows = context.status[context.status["step"] == step]
    if rows.empty:
        return "no status row was written"
    return "; ".join(f"{row['unit']}: {row['reason'] or row['sentence']}" for row in rows.fillna("").to_dict("records"))


def expression(context: Context) -> Chapter:
    """Both tests per contrast and cell type: numbers, volcanoes, genes, the samples behind them."""
    summary = context.tables.of_units("de_summary", "contrast")
    sections = [_summary(context, summary), _counts(summary), _volcanoes(context), _genes(context, summary), _left_out(context)]
    return Chapter("sc_expression", TITLE, _intro(summary), sections)


def _intro(summary: pd.DataFrame) -> str:
    head = (
        "<p>Which genes are used more or less on one side of a comparison. Two answers stand side by side. <em>Patients</em>: the"
        " cells of each patient are added up and patients are compared; only this supports a statement about a phase."
        " <em>Cells</em>: every cell counts as if it were a patient of its own, as many publications do; that lists far more"
        " genes, is exploratory, and shows where to look.</p>"
    )
    if summary.empty:
        return head
    lines = []
    for row in summary[summary["cell_type"] == TUMOUR].to_dict("records"):
        sizes = f"{_int(row, 'n_patients_used_a') or 0} against {_int(row, 'n_patients_used_b') or 0} patients"
        by_cells = _int(row, "n_up_cells")
        exploratory = (
            "" if by_cells is None else f"; cell by cell {by_cells + (_int(row, 'n_down_cells') or 0):,} genes, exploratory"
        )
        if row["status"] == keys.OK:
            up, down = _int(row, "n_up_pseudobulk") or 0, _int(row, "n_down_pseudobulk") or 0
            what = f"{count(up, 'gene')} higher and {down:,} lower in tumour cells ({sizes}, {WORDS.get(row['evidence'], '')})"
        else:
            reason = row["reason"] if not report.is_missing(row["reason"]) else ""
            what = f"no test of patients in tumour cells ({reason})"
        lines.append(f"{row['contrast']}: {what}{exploratory}.")
    return head + (items(lines) if lines else "")


def _summary(context: Context, summary: pd.DataFrame) -> Section:
    columns = [
        Col("contrast", "contrast"),
        Col("cell_type", "cells"),
        Col("n_cells_a", "cells A", "int"),
        Col("n_cells_b", "cells B", "int"),
        Col("n_patients_used_a", "patients A", "int", "patients with enough cells of this type"),
        Col("n_patients_used_b", "patients B", "int", "patients with enough cells of this type"),
        Col("n_up_pseudobulk", "up, patients", "int", "significant in the pseudobulk test, higher on side A"),
        Col("n_down_pseudobulk", "down, patients", "int", "significant in the pseudobulk test, lower on side A"),
        Col("n_up_cells", "up, cells", "int", "significant cell by cell, higher on side A; exploratory"),
        Col("n_down_cells", "down, cells", "int", "significant cell by cell, lower on side A; exploratory"),
        Col("n_both", "in both", "int", "significant in both tests with the same sign"),
        Col("evidence", "evidence", help="replicated: 3 or more patients a side; limited: 2; cell_level: exploratory"),
        Col("status", "status", "status"),
        Col("reason", "remark"),
    ]
    return Section(
        "sc_expression_summary",
        "How many genes differ",
        "One row per comparison and cell type; side A is named first. Few genes by patients and many by cells mean that the"
        " patients do not agree with each other. The file has the numbers at |log2FC| > 0.25 too.",
        report.table(summary, columns, f"{FOLDER}/<contrast>.de_summary.tsv", context.max_rows, _why(context, "test_expression")),
    )


def _counts(summary: pd.DataFrame) -> Section:
    title, id_ = "Genes that differ between patients", "sc_expression_counts"
    reading = (
        "Rows are cell types, columns comparisons, the number is that of genes significant over patients (up and down together)."
        " An empty field had too few patients or cells: it is not a zero."
    )
    if summary.empty or not (summary["status"] == keys.OK).any():
        return Section(id_, title, reading, empty("No comparison has two patients with enough cells on each side."))
    contrasts = list(dict.fromkeys(summary["contrast"]))
    kinds = list(dict.fromkeys(summary["cell_type"]))
    value = {}
    for row in summary.to_dict("records"):
        up, down = _int(row, "n_up_pseudobulk"), _int(row, "n_down_pseudobulk")
        value[row["cell_type"], row["contrast"]] = None if up is None or down is None else up + down
    values = [[value.get((kind, contrast)) for contrast in contrasts] for kind in kinds]
    heat = Heat(values, contrasts, kinds, "Genes that differ between patients", "comparison", "cell type", "genes")
    return Section(id_, title, reading, plot=heat)


def _volcanoes(context: Context) -> Section:
    found = context.tables.pictures("volcano")
    parts = [
        f"<h4>{esc(contrast)}</h4>" + picture(content, f"Volcano plots of {contrast}: cells left, patients right")
        for contrast, content in found.items()
        if content
    ]
    return Section(
        "sc_expression_volcano",
        "Volcano plots",
        "Each dot is a gene; right of the middle it is higher on side A, and the further up, the less chance explains it. Left"
        " picture: cells as unit (exploratory); right picture: patients. Dashed lines: thresholds in use; dotted: |log2FC| 0.25."
        " Shown are tumour cells and the cell types with most genes.",
        "".join(parts) or empty("No picture: " + _why(context, "test_expression")),
    )


def _genes(context: Context, summary: pd.DataFrame) -> Section:
    top = context.tables.of_units("de_top", "contrast")
    columns = [
        Col("cell_type", "cells"),
        Col("side", "side", help="up: higher on side A"),
        Col("gene", "gene"),
        Col("log2fc_patients", "log2FC, patients", "num", "DESeq2, not shrunken", 2),
        Col("padj_patients", "adjusted p, patients", "p"),
        Col("log2fc_cells", "log2FC, cells", "num", "of mean counts per 10,000 (Seurat)", 2),
        Col("padj_cells", "adjusted p, cells", "p", "exploratory: counts cells"),
        Col("pct_a", "positive A", "pct", "cells with the gene on side A"),
        Col("pct_b", "positive B", "pct", "cells with the gene on side B"),
        Col("agree", "patients that agree", help="patients with the same sign, of those compared"),
        Col("evidence", "evidence"),
    ]
    parts = []
    if len(top):
        top["agree"] = [
            "" if report.is_missing(n) else f"{number(k, 0)} of {number(n, 0)}"
            for k, n in zip(top["n_patients_same_sign"], top["n_patients_compared"], strict=True)
        ]
        top = top[top["rank"].map(lambda rank: (to_number(rank) or 0) <= TOP_SHOWN)]
        for contrast, mine in top.groupby("contrast", sort=False):
            chosen = _leading(summary[summary["contrast"] == contrast])
            shown = mine[mine["cell_type"].isin(chosen)]
            source = f"{FOLDER}/{contrast}.de_top.tsv"
            parts.append(f"<h4>{esc(contrast)}</h4>" + report.table(shown, columns, source, context.max_rows, n_total=len(shown)))
    return Section(
        "sc_expression_genes",
        "Strongest genes",
        "Per comparison the tumour cells and the cell types with most genes; the smallest p on each side first, by patients where"
        " they could be compared, else by cells. A gene high in both columns and in all patients is worth following.",
        "".join(parts) or empty("No genes: " + _why(context, "test_expression")),
    )


def _leading(summary: pd.DataFrame) -> list[str]:
    """Tumour cells and the cell types with most significant genes, by patients, then by cells."""

    def size(row: Mapping[str, Any], end: str) -> int:
        return (_int(row, f"n_up_{end}") or 0) + (_int(row, f"n_down_{end}") or 0)

    rows = sorted(
        summary.to_dict("records"),
        key=lambda row: (row["cell_type"] != TUMOUR, -size(row, "pseudobulk"), -size(row, "cells"), row["cell_type"]),
    )
    return [row["cell_type"] for row in rows[:TYPES_SHOWN]]


def _left_out(context: Context) -> Section:
    samples = context.tables.of_units("pseudobulk_samples", "contrast")
    if len(samples):
        samples = samples[samples["used"].str.lower() != "true"]
    columns = [
        Col("contrast", "contrast"),
        Col("cell_type", "cells"),
        Col("sample", "sample"),
        Col("patient", "patient"),
        Col("n_cells", "cells", "int"),
        Col("counts", "counts", "int"),
        Col("reason", "why not"),
    ]
    return Section(
        "sc_expression_samples",
        "Samples that could not be used",
        "Samples left out of the comparison of patients, per cell type: their sums would be noise.",
        report.table(
            samples, columns, f"{FOLDER}/<contrast>.pseudobulk_samples.tsv", context.max_rows, "every sample had enough cells"
        ),
    )


def marker(context: Context) -> Chapter:
    """Markers: shares, genes, scores, groups."""
    shares = context.tables.of_units("marker_share", "marker")
    sections = [_shares(context, shares), _marker_volcanoes(context), _marker_genes(context), _scores(context), _groups(context)]
    return Chapter("sc_marker", MARKER_TITLE, _marker_intro(context, shares), sections)


def _marker_intro(context: Context, shares: pd.DataFrame) -> str:
    head = (
        "<p>Some markers are found in a part of the tumour cells only. Here the cells in which a marker was counted are compared"
        " with cells of the same sample in which it was not. A cell that was read more deeply shows more of every gene, so each"
        " positive cell is compared with one of equal depth. <em>Negative</em> means not detected.</p>"
    )
    lines = []
    for name, mine in shares.groupby("marker", sort=False) if len(shares) else []:
        n = sum(to_number(value) or 0 for value in mine["n"])
        positive = sum(to_number(value) or 0 for value in mine["n_positive"])
        per_sample = [to_number(value) or 0 for value in mine["share"]]
        lines.append(
            f"{name}: in {percent(positive, n)} of {n:,.0f} cells; from {percent(min(per_sample), 1)} to"
            f" {percent(max(per_sample), 1)} in {count(len(mine), 'sample')}."
        )
    rows = context.status[(context.status["step"] == "stratify_marker") & (context.status["status"] != keys.OK)]
    lines += [f"{row['unit']}: {row['sentence']} ({row['reason']})" for row in rows.fillna("").to_dict("records")]
    return head + (items(lines) if lines else "")


def _shares(context: Context, shares: pd.DataFrame) -> Section:
    title, id_ = "Share of positive cells", "sc_marker_share"
    if shares.empty:
        return Section(id_, title, "Not available.", empty("No shares: " + _why(context, "stratify_marker")))
    several = shares["marker"].nunique() > 1
    place = {sample: at for at, sample in enumerate(context.samples())}
    data: dict[str, dict[str, float]] = {}
    for row in sorted(shares.to_dict("records"), key=lambda r: (r["marker"], place.get(r["sample"], len(place)), r["sample"])):
        name = f"{row['sample']} ({row['phase']}, n={number(row['n'], 0)})"
        positive = to_number(row["n_positive"]) or 0
        key = f"{row['marker']}: {name}" if several else name
        data[key] = {"positive": positive, "negative": (to_number(row["n"]) or 0) - positive}
    cats = {"positive": ("marker counted", "#D55E00"), "negative": ("not detected", "#BBBBBB")}
    columns = [
        Col("marker", "marker"),
        Col("sample", "sample"),
        Col("phase", "phase"),
        Col("n", "cells", "int"),
        Col("share", "positive", "share", digits=1),
        Col("ci_low", "from", "share", "Wilson's 95 % interval; counts cells", 1),
        Col("ci_high", "to", "share", "Wilson's 95 % interval; counts cells", 1),
        Col("n_matched", "matched", "int", "positive cells with a partner of equal depth"),
        Col("used", "compared", "bool", "phase chosen by --stratify_phases"),
    ]
    return Section(
        id_,
        title,
        "One bar per sample, samples of one phase side by side (n = cells). Few cells make wide intervals; a sample read more"
        " deeply shows more positive cells at equal expression.",
        plot=Bar(data, cats, "Cells with and without the marker", "cells", True),
        after=report.table(shares, columns, f"{MARKER_FOLDER}/<marker>.marker_share.tsv", context.max_rows),
    )


def _marker_volcanoes(context: Context) -> Section:
    found = context.tables.pictures("marker_volcano")
    parts = [
        f"<h4>{esc(name)}</h4>" + picture(content, f"Volcano plots of {name}: all cells, cells of equal depth, patients")
        for name, content in found.items()
        if content
    ]
    return Section(
        "sc_marker_volcano",
        "Genes that go with the marker",
        "Left: all positive against all negative cells; many of these genes are there only because positive cells are deeper."
        " Middle: cells of equal depth (exploratory). Right: sums of these cells per patient, paired. The marker is left out.",
        "".join(parts) or empty("No picture: " + _why(context, "stratify_marker")),
    )


def _marker_genes(context: Context) -> Section:
    top = context.tables.of_units("marker_top", "marker")
    if len(top):
        top["agree"] = [
            "" if report.is_missing(n) else f"{number(k, 0)} of {number(n, 0)}"
            for k, n in zip(top["n_samples_same_sign"], top["n_samples_compared"], strict=True)
        ]
    columns = [
        Col("marker", "marker"),
        Col("side", "side", help="up: higher in positive cells"),
        Col("gene", "gene"),
        Col("log2fc_patients", "log2FC, patients", "num", "DESeq2, paired", 2),
        Col("padj_patients", "adjusted p, patients", "p"),
        Col("log2fc_cells", "log2FC, cells", "num", "cells of equal depth", 2),
        Col("padj_cells", "adjusted p, cells", "p", "cells of equal depth; exploratory"),
        Col("padj_unmatched", "without matching", "p", "adjusted p of all cells: inflated by depth"),
        Col("agree", "samples that agree", help="samples with the same sign, of those with enough matched cells"),
        Col("evidence", "evidence"),
    ]
    return Section(
        "sc_marker_genes",
        "Strongest genes",
        "Smallest p first on each side. Genes that lose their p by matching were differences of depth, not of state.",
        report.table(
            top, columns, f"{MARKER_FOLDER}/<marker>.marker_top.tsv", context.max_rows, _why(context, "stratify_marker")
        ),
    )


def _scores(context: Context) -> Section:
    scores = context.tables.of_units("marker_scores", "marker")
    if len(scores):
        scores = scores[scores["sample"] == "all"]
        scores["score"] = scores["score"].str.removeprefix(keys.MODULE_PREFIX)
    columns = [
        Col("marker", "marker"),
        Col("score", "module"),
        Col("mean_pos", "positive cells", "num", "mean score of matched positive cells", 2),
        Col("mean_neg", "negative cells", "num", "mean score of matched negative cells", 2),
        Col("effect", "difference", "num", "mean over patients of the difference within each", 2),
        Col("ci_low", "from", "num", "95 % t interval over patients", 2),
        Col("ci_high", "to", "num", "95 % t interval over patients", 2),
        Col("n_patients_a", "patients", "int"),
        Col("p_value", "p", "p", "signed-rank over patients"),
        Col("p_min_attainable", "smallest p", "p", "smallest p that so many patients can give"),
        Col("evidence", "evidence"),
        Col("status", "status", "status"),
    ]
    return Section(
        "sc_marker_scores",
        "Module scores",
        "Whether cells with the marker use a module of co-expressed genes more: one difference per patient. Read p beside the"
        " smallest p that the number of patients allows; single samples stand in the file.",
        report.table(
            scores, columns, f"{MARKER_FOLDER}/<marker>.marker_scores.tsv", context.max_rows, "no module scores were given"
        ),
    )


def _groups(context: Context) -> Section:
    groups = context.tables.of_units("marker_groups", "marker")
    columns = [
        Col("marker", "marker"),
        Col("grouping", "grouping"),
        Col("group", "group"),
        Col("n_cells", "cells", "int"),
        Col("share", "positive", "share", digits=1),
        Col("ci_low", "from", "share", "Wilson's 95 % interval; counts cells", 1),
        Col("ci_high", "to", "share", "Wilson's 95 % interval; counts cells", 1),
        Col("n_patients", "patients", "int"),
        Col("mean_patient_share", "mean of patients", "share", "every patient weighs the same", 1),
        Col("p_value", "p", "p", "Kruskal-Wallis over the patients of the phases"),
        Col("status", "status", "status"),
    ]
    kinds = [str(kind) for kind in dict.fromkeys(groups["grouping"]) if kind != keys.PHASE] if len(groups) else []
    shown = groups.sort_values("grouping", key=lambda c: c != keys.PHASE, kind="stable") if len(groups) else groups
    named = listing([kind.replace("_", " ") for kind in sorted(kinds)]) or "cluster and clone"
    return Section(
        "sc_marker_groups",
        "Phases, states and clones",
        f"Share of positive cells per phase (compared by patient) and per {named} (described, not tested: clones lie within one"
        " patient).",
        report.table(
            shown, columns, f"{MARKER_FOLDER}/<marker>.marker_groups.tsv", context.max_rows, _why(context, "stratify_marker")
        ),
    )
