"""The chapters of the report in order: which tables and figures stand where, and how each is to be read.

A chapter is plain data (sections with HTML and plot specifications); page.py turns it into a MultiQC page. The
order here is the order on the page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scresist import (
    chapter_clones,
    chapter_communication,
    chapter_composition,
    chapter_copy_number,
    chapter_dose_response,
    chapter_enrichment,
    chapter_epithelium,
    chapter_expression,
    chapter_fates,
    chapter_panels,
    chapter_programs,
    chapter_routes,
    chapter_staining,
    chapter_survival,
    chapter_tcells,
    figures,
    keys,
    report,
)
from scresist.layout import Bar, Box, Chapter, Context, Line, Section, empty, items, phase_legend, picture, plain_column
from scresist.report import Col, count, esc

DESIGN, SAMPLES, COHORT = "00_design", "01_samples", "02_cohort"
PER_SAMPLE = f"{SAMPLES}/<sample>/<sample>"
DROP_LABELS = {
    "kept": ("kept", "#009E73"),
    "low_genes": ("too few genes", "#56B4E9"),
    "low_counts": ("too few counts", "#0072B2"),
    "high_mt": ("high mitochondrial share", "#D55E00"),
    "mad": ("outlier within its sample", "#E69F00"),
    "doublet": ("doublet", "#882255"),
    "sample_skipped": ("sample left out", "#999999"),
}
MARKERS_PER_TYPE = 4  # in the dot plot; all of them stand in marker_check.tsv
WHISKERS = (0.01, 0.99)  # of the box plots: outliers of single cells would squeeze the boxes
TOP_MARKERS = 8  # per cluster in the table of cluster markers


DIRECTIONS = {"nearest_0": "nearest 0", "context": "neither: falling to 0 = patients mixed too much"}
MEASURES = {
    "silhouette_batch": "separation of samples within types (silhouette)",
    "ilisi": "mixing of samples around a cell (iLISI)",
    "clisi": "purity of types around a cell (cLISI)",
    "knn_entropy": "mixing of samples among neighbours (entropy)",
    "nmi_label": "agreement of clusters with types (NMI)",
    "single_patient_epithelium": "epithelial cells in clusters of one patient (share)",
}


# In the order of the page: which cells are tumour, how they change, what they express, what that means
TUMOUR_CHAPTERS = (
    chapter_copy_number.copy_number,
    chapter_clones.clones,
    chapter_epithelium.epithelium,
    chapter_expression.expression,
    chapter_enrichment.enrichment,
    chapter_programs.programs,
    chapter_expression.marker,
    chapter_panels.panels,
)

# Who is there, in which state, who signals to whom, where tumour cells lead
MICROENVIRONMENT_CHAPTERS = (
    chapter_composition.composition,
    chapter_tcells.tcells,
    chapter_communication.communication,
    chapter_fates.fates,
)

# Evidence beside the cells, each where its step ran; the card that weighs everything comes first
EVIDENCE_CHAPTERS = {
    "score_routes": chapter_routes.routes,
    "test_survival": chapter_survival.survival,
    "fit_dose_response": chapter_dose_response.dose_response,
    "compare_staining": chapter_staining.staining,
}


def build(context: Context) -> list[Chapter]:
    """All chapters that have content, in order; the recovery chapter only where truth was planted."""
    chapters = [overview(context), design(context)]
    if report.began_annotated(context.status):
        chapters += [*not_run(context), *given(context)]
    else:
        chapters += [quality(context), doublets(context), integration(context), maps(context), annotation(context)]
    tested = report.has_microenvironment_stage(context.status)
    if not tested:  # else the chapter of TEST_COMPOSITION shows the shares with their tests
        chapters.append(composition(context))
    ran = set(context.status["step"])
    if report.has_tumour_stage(context.status):
        chapters += [part(context) for part in TUMOUR_CHAPTERS]
    if tested:
        # fates follow tumour cells: no chapter where the tumour stage was left out
        chapters += [part(context) for part in MICROENVIRONMENT_CHAPTERS if "map_fates" in ran or part is not chapter_fates.fates]
    chapters += [part(context) for step, part in EVIDENCE_CHAPTERS.items() if step in ran]
    if context.tables.has("recovery"):
        chapters.append(recovery(context))
    return [*chapters, methods(context), versions(context)]


def not_run(context: Context) -> list[Chapter]:
    """Chapters of the steps that a run does not have when it began with an annotated object: one sentence each."""
    read = context.tables.get("load_annotated")
    name = f" {read['file'].iloc[0]}" if "file" in read and len(read) else ""
    began = f"The run began with an annotated object{name}"
    facts = read.iloc[:1].T.reset_index().set_axis(["what", "value"], axis=1) if len(read) else pd.DataFrame()
    if len(facts):
        facts["what"] = facts["what"].str.replace("_", " ")
    table = report.table(
        facts, [Col("what", "what"), Col("value", "value")], f"{COHORT}/load_annotated.tsv", max(context.max_rows, len(facts))
    )
    told = (
        ("quality", "Quality of cells and samples", "no cell was judged or left out here; the table says what was read", table),
        ("doublets", "Doublets", "no doublet was looked for here", ""),
        ("integration", "Integration", "its space was taken as it was given", ""),
    )
    return [
        Chapter(id_, title, "", [Section(f"{id_}_given", "Not part of this run", "", empty(f"{began}: {why}."), after=html)])
        for id_, title, why, html in told
    ]


def given(context: Context) -> list[Chapter]:
    """Maps and cell types of a run that began with an annotated object: what was given, without the evidence of other steps."""
    made = []
    if set(keys.UMAP) <= set(context.kept) and context.kept[list(keys.UMAP)].notna().all(axis=1).any():
        made.append(maps(context))
        made[0].sections = [section for section in made[0].sections if section.id != "maps_clusters"]
    chapter = annotation(context)
    chapter.intro = (
        "<p>Types were taken as they were given; the marker genes below let you judge them:"
        f" {esc(report.percent(context.made.n_unresolved or 0, context.made.n_kept, 1))} of the cells are unresolved.</p>"
    )
    chapter.sections = [section for section in chapter.sections if section.id in ("annotation_markers", "annotation_types")]
    if context.tables.get("marker_check").empty:
        chapter.sections[0].before = empty("No gene of the marker table was measured.")
    return [*made, chapter]


def overview(context: Context) -> Chapter:
    """Page one: key figures, status matrix, remarks, findings, caveats."""
    lines = report.key_sentences(context.made)
    sizes = context.kept[keys.SAMPLE].astype(str).value_counts().to_dict()
    cohort = context.status[~context.status["unit_type"].isin(["sample", "patient", "contrast"])]
    per_patient = report.unit_matrix(context.status, "patient", context.max_rows)
    per_contrast = report.unit_matrix(context.status, "contrast", context.max_rows)
    shown = cohort.assign(step=[report.STEP_NAMES.get(step, step) for step in cohort["step"]])
    found = context.findings[context.findings["evidence"] != "descriptive"]
    return Chapter(
        "overview",
        "Overview",
        "".join(f'<p class="sc-key">{esc(line)}</p>' for line in lines),
        [
            Section(
                "overview_status",
                "What was done for each sample",
                "One row per sample, the worst first; one column per step. Point at a cell to read what happened.",
                report.status_matrix(context.status, context.design, sizes, context.max_rows),
            ),
            *(
                [
                    Section(
                        "overview_patients",
                        "What was done for each patient",
                        "Steps that look at all phases of a patient together. Point at a cell to read what happened.",
                        per_patient,
                    )
                ]
                if per_patient
                else []
            ),
            *(
                [
                    Section(
                        "overview_contrasts",
                        "What was done for each contrast",
                        "Steps that compare two groups of samples. Point at a cell to read what happened.",
                        per_contrast,
                    )
                ]
                if per_contrast
                else []
            ),
            Section(
                "overview_remarks",
                "What needs reading",
                "Every step that was skipped, failed or ended with a note, the worst first.",
                report.table(
                    report.remarks(context.status),
                    [
                        Col("status", "status", "status"),
                        Col("step", "step"),
                        Col("units", "for"),
                        Col("sentence", "meaning"),
                        Col("reason", "what was found"),
                    ],
                    "report/status.tsv",
                    context.max_rows,
                    "every step was done without a note",
                ),
            ),
            Section(
                "overview_cohort",
                "Steps over the whole cohort",
                "One row per step that works on all samples together.",
                report.table(
                    shown,
                    [
                        Col("step", "step"),
                        Col("status", "status", "status"),
                        Col("n_cells", "cells", "int"),
                        Col("n_samples", "samples", "int"),
                        Col("n_patients", "patients", "int"),
                        Col("sentence", "meaning"),
                        Col("reason", "what was found"),
                    ],
                    "report/status.tsv",
                    context.max_rows,
                ),
            ),
            Section(
                "overview_findings",
                "Findings",
                "Differences between phases with the number of patients behind them, and what other patients and cell lines say;"
                " `exploratory` marks what no test supports.",
                report.table(
                    found,
                    [
                        Col("statement", "statement"),
                        Col("contrast", "contrast"),
                        Col(
                            "effect",
                            "effect",
                            "num",
                            "shares: side A minus side B, 0 to 1; modules: Spearman's rho; survival: hazard ratio; IC50: ratio",
                            2,
                        ),
                        Col("p_adjusted", "adjusted p", "p"),
                        Col(
                            "evidence",
                            "evidence",
                            help="replicated: 3 or more patients a side; limited: 2; single_patient: 1; cell_level: cells;"
                            " other_patients: a bulk or clinical cohort; in_vitro: cell lines",
                        ),
                        Col("table", "table"),
                    ],
                    "report/findings.tsv",
                    context.max_rows,
                    "no contrast has cells on both sides",
                ),
            ),
            Section(
                "overview_caveats",
                "Caveats",
                "What limits the results of this run, made from its statuses and its design.",
                items(report.caveats(context.status, context.tables, context.made)),
            ),
        ],
    )


def design(context: Context) -> Chapter:
    """Samples, contrasts, confounding, questions."""
    tables = context.tables
    phases, patients = context.phases(), sorted(set(context.design[keys.PATIENT]), key=report.natural)
    colour = context.phase_colours()
    head = "".join(f'<th><span class="sc-swatch" style="background:{esc(colour[p])}"></span>{esc(p)}</th>' for p in phases)
    body = []
    for patient in patients[: context.max_rows]:
        cells = []
        for phase in phases:
            mine = context.design[(context.design[keys.PATIENT] == patient) & (context.design[keys.PHASE] == phase)]
            cells.append(f"<td>{esc(', '.join(mine[keys.SAMPLE]))}</td>")
        body.append(f"<tr><th>{esc(patient)}</th>{''.join(cells)}</tr>")
    grid = (
        f'<div class="sc-scroll"><table class="sc-table"><thead><tr><th>patient</th>{head}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="sc-source">{count(len(patients), "patient")}; as a file: '
        f"<code>{DESIGN}/samples.tsv</code></p>"
    )
    known = {keys.SAMPLE, keys.PATIENT, keys.PHASE, keys.BATCH}
    more = [name for name in context.design.columns if name not in known and context.design[name].notna().any()]
    return Chapter(
        "design",
        "Design",
        "<p>Which patients were sampled in which phase, which comparisons follow, and which questions this design can"
        " answer.</p>",
        [
            Section(
                "design_grid",
                "Patients and phases",
                "One row per patient; a dash means that the patient has no sample in that phase.",
                grid,
            ),
            Section(
                "design_contrasts",
                "Contrasts",
                "Each comparison of two phases with its patients; the smallest p that the design allows bounds what a test can"
                " show.",
                report.table(
                    tables.get("contrasts"),
                    [
                        Col("contrast", "contrast"),
                        Col("samples_a", "samples A"),
                        Col("samples_b", "samples B"),
                        Col("n_patients_a", "patients A", "int"),
                        Col("n_patients_b", "patients B", "int"),
                        Col("n_pairs", "pairs", "int", "patients on both sides"),
                        Col("paired", "paired", "bool", "whether patients are compared with themselves"),
                        Col("p_min_attainable", "smallest p", "p", "smallest two-sided p that a rank test can give here"),
                        Col("status", "status", "status"),
                        Col("reason", "remark"),
                    ],
                    f"{DESIGN}/contrasts.tsv",
                    context.max_rows,
                    "no two phases can be compared",
                ),
            ),
            Section(
                "design_confounding",
                "Confounding",
                "Cramer's V runs from 0 (independent of the phase) to 1 (same split); aliased factors cannot be told apart from"
                " the phase at all.",
                report.table(
                    tables.get("confounding"),
                    [
                        Col("factor", "factor"),
                        Col("phase_factor", "compared with"),
                        Col("cramers_v", "Cramer's V", "num", "0 to 1", 2),
                        Col("aliased", "aliased", "bool"),
                        Col("n_samples", "samples", "int"),
                        Col("status", "status", "status"),
                        Col("reason", "remark"),
                    ],
                    f"{DESIGN}/confounding.tsv",
                    context.max_rows,
                    "the samplesheet names no batch, site or chemistry",
                ),
            ),
            Section(
                "design_questions",
                "Questions",
                "What this design can answer: yes, exploratory only, or no.",
                report.table(
                    tables.get("questions"),
                    [Col(name, name.replace("_", " ")) for name in tables.get("questions").columns],
                    f"{DESIGN}/questions.tsv",
                    context.max_rows,
                ),
            ),
            Section(
                "design_samples",
                "Samples as given",
                "The samplesheet with the thresholds in force for each sample; a dash means that nothing was given.",
                report.table(
                    context.design,
                    [
                        Col(keys.SAMPLE, "sample"),
                        Col(keys.PATIENT, "patient"),
                        Col(keys.PHASE, "phase"),
                        Col(keys.BATCH, "batch"),
                        *(Col(name, name.replace("_", " ")) for name in more),
                    ],
                    f"{DESIGN}/samples.tsv",
                    context.max_rows,
                ),
            ),
        ],
    )


def box_values(values: pd.Series) -> dict[str, float] | None:
    """Box of one sample; whiskers at the 1st and 99th percentile. None without values."""
    given = pd.to_numeric(values, errors="coerce").dropna().to_numpy(dtype=float)
    if not len(given):
        return None
    low, q1, median, q3, high = np.quantile(given, [WHISKERS[0], 0.25, 0.5, 0.75, WHISKERS[1]])
    parts = {"min": low, "q1": q1, "median": median, "q3": q3, "max": high, "mean": given.mean()}
    return {name: float(f"{value:.6g}") for name, value in parts.items()}


def quality(context: Context) -> Chapter:
    """Cells in and out, reasons, metrics, sample criteria."""
    cells, samples = context.cells, context.samples()
    reason = cells[keys.DROP_REASON].astype(object).where(~cells[keys.KEPT].astype(bool), "kept").map(str)
    split = pd.crosstab(cells[keys.SAMPLE].astype(str), reason).reindex(samples, fill_value=0)
    cats = {
        name: DROP_LABELS.get(name, (name, figures.GREY))
        for name in [*DROP_LABELS, *sorted(set(split) - set(DROP_LABELS))]
        if name in split
    }
    bars = {sample: {name: int(split.loc[sample, name]) for name in cats} for sample in samples}
    metrics = {
        "Genes": (keys.N_GENES, "genes per cell"),
        "Counts": (keys.N_COUNTS, "UMI counts per cell"),
        "Mitochondrial": (keys.PCT_MT, "mitochondrial counts per cell (%)"),
    }
    by_sample = dict(list(cells.groupby(cells[keys.SAMPLE].astype(str), observed=True)))
    boxes = {}
    for tab, (column, _) in metrics.items():
        if column in cells:
            made = {f"{s} (n={len(by_sample[s]):,})": box_values(by_sample[s][column]) for s in samples if s in by_sample}
            boxes[tab] = {name: value for name, value in made.items() if value}
    return Chapter(
        "quality",
        "Quality of cells and samples",
        "<p>Cells are judged by fixed limits and by their distance from the median of their own sample; samples by criteria"
        " computed after poor cells are removed.</p>",
        [
            Section(
                "quality_cells",
                "Cells in and out",
                f"One bar per sample, split by what became of its cells (n = {len(cells):,} cells of"
                f" {count(len(samples), 'sample')}); a cell counts under the first reason that applies.",
                plot=Bar(bars, cats, "Cells kept and left out", "cells"),
                after=report.table(
                    _ordered(context.tables.of_samples("filter"), samples),
                    [
                        Col(keys.SAMPLE, "sample"),
                        Col("n_in", "cells in", "int"),
                        Col("n_low_genes", "few genes", "int"),
                        Col("n_low_counts", "few counts", "int"),
                        Col("n_high_mt", "high MT", "int"),
                        Col("n_mad", "outlier", "int"),
                        Col("n_doublet", "doublet", "int"),
                        Col("n_sample_skipped", "sample left out", "int"),
                        Col("n_out", "cells out", "int"),
                        Col("status", "status", "status"),
                    ],
                    f"{PER_SAMPLE}.filter.tsv",
                    context.max_rows,
                ),
            ),
            Section(
                "quality_metrics",
                "Genes, counts and mitochondrial share per cell",
                "One box per sample over all its cells before filtering (n beside its name): middle line = median, box = middle"
                " half of the cells, whiskers = 1st and 99th percentile.",
                plot=(
                    Box(boxes, {tab: unit for tab, (_, unit) in metrics.items() if tab in boxes}, "Cell quality before filtering")
                    if boxes
                    else None
                ),
                before="" if boxes else empty("No cell metrics: " + context.why("flag_cells")),
            ),
            Section(
                "quality_samples",
                "Criteria for samples",
                "Computed on the cells left after the flags; `not_given` means that the samplesheet does not hold the value, so"
                " the criterion was not applied.",
                report.table(
                    _ordered(context.tables.of_samples("sample_qc"), samples),
                    [
                        Col(keys.SAMPLE, "sample"),
                        Col("n_before", "cells before", "int"),
                        Col("n_after", "cells after flags", "int"),
                        Col("median_genes", "median genes", "num", digits=0),
                        Col("median_counts", "median counts", "num", digits=0),
                        Col("median_mt", "median MT", "pct"),
                        Col("saturation", "saturation", "pct"),
                        Col("reads_in_cells", "reads in cells", "pct"),
                        Col("crit_genes", "genes", help="median genes above the minimum"),
                        Col("crit_saturation", "saturation ok", help="within the accepted range"),
                        Col("crit_reads", "reads ok", help="enough reads in cells"),
                        Col("verdict", "verdict"),
                        Col("mad_bounds", "bounds of the adaptive rule"),
                    ],
                    f"{PER_SAMPLE}.sample_qc.tsv",
                    context.max_rows,
                ),
            ),
            Section(
                "quality_matrices",
                "Matrices as read",
                "Where the counts of each sample came from and how many of its genes are known and placed on the genome.",
                report.table(
                    _ordered(context.tables.of_samples("load"), samples),
                    [
                        Col(keys.SAMPLE, "sample"),
                        Col("format", "format"),
                        Col("slot", "slot"),
                        Col("n_barcodes", "barcodes", "int"),
                        Col("n_genes_in", "genes", "int"),
                        Col("n_genes_known", "known", "int"),
                        Col("n_duplicates_summed", "duplicates summed", "int"),
                        Col("n_genes_placed", "placed", "int"),
                        Col("total_umi", "UMI counts", "int"),
                        Col("mt_genes", "MT genes", "int"),
                        Col("status", "status", "status"),
                    ],
                    f"{PER_SAMPLE}.load.tsv",
                    context.max_rows,
                ),
            ),
        ],
    )


def _ordered(frame: pd.DataFrame, samples: Sequence[str]) -> pd.DataFrame:
    """Rows in the report's order of samples."""
    if frame.empty:
        return frame
    place = {sample: at for at, sample in enumerate(samples)}
    return frame.assign(_place=frame[keys.SAMPLE].map(place)).sort_values("_place", kind="stable").drop(columns="_place")


def doublets(context: Context) -> Chapter:
    """Scores observed against simulated; rules per sample."""
    samples = context.samples()
    hist = context.tables.of_samples("doublet_hist")
    tabs: dict[str, dict[str, dict[float, float]]] = {}
    if not hist.empty:
        for tab, column in (("Observed cells", "n_observed"), ("Simulated doublets", "n_simulated")):
            series = {}
            for sample in samples:
                mine = hist[hist[keys.SAMPLE] == sample]
                values = pd.to_numeric(mine[column], errors="coerce").fillna(0)
                if values.sum() > 0:
                    middle = (pd.to_numeric(mine["bin_low"]) + pd.to_numeric(mine["bin_high"])) / 2
                    y = 100 * values / values.sum()
                    series[sample] = {float(f"{x:.4g}"): float(f"{v:.4g}") for x, v in zip(middle, y, strict=True)}
            if series:
                tabs[tab] = series
    phase = dict(zip(context.design[keys.SAMPLE], context.design[keys.PHASE], strict=True))
    colour = context.phase_colours()
    return Chapter(
        "doublets",
        "Doublets",
        "<p>Droplets that caught two cells are looked for in each sample by itself: by score, by the mean score of a fine"
        " cluster, and by markers of two lineages in one cell. Two cells of one type look like one cell and cannot be found.</p>",
        [
            Section(
                "doublets_scores",
                "Doublet scores",
                "Share of a sample's cells at each score, coloured by phase; the second tab shows simulated doublets, which"
                f" should lie further right than the cells (n = {sum(len(s) for s in tabs.values()) // max(len(tabs), 1)}"
                " samples).",
                plot=(
                    Line(
                        tabs,
                        "Doublet scores",
                        "doublet score (0 to 1)",
                        "share of cells (%)",
                        {s: colour[phase[s]] for s in samples if s in phase},
                    )
                    if tabs
                    else None
                ),
                before=phase_legend(context) if tabs else empty("No scores: no sample had enough cells."),
            ),
            Section(
                "doublets_table",
                "Doublets per sample",
                "Expected and called doublets; the cluster rule asks for a mean score above its limit, so the largest mean stands"
                " beside it.",
                report.table(
                    _ordered(context.tables.of_samples("doublets"), samples),
                    [
                        Col(keys.SAMPLE, "sample"),
                        Col("n_cells", "cells", "int"),
                        Col("expected", "expected", "num", digits=0),
                        Col("called", "called", "int", "by score (rule a)"),
                        Col("threshold", "threshold", "num", digits=2),
                        Col("max_score", "largest score", "num", digits=2),
                        Col("max_cluster_mean", "largest cluster mean", "num", digits=2),
                        Col("n_clusters_flagged", "clusters flagged", "int", "by rules b and c"),
                        Col("n_spared", "kept as rare", "int", "a whole cluster of one lineage with high scores"),
                        Col("n_doublets", "treated as doublets", "int", "by the rules in use"),
                        Col("status", "status", "status"),
                        Col("reason", "remark"),
                    ],
                    f"{PER_SAMPLE}.doublets.tsv",
                    context.max_rows,
                ),
            ),
        ],
    )


def integration(context: Context) -> Chapter:
    """Integration before and after, training, merged genes."""
    quality_ = context.tables.get("integration_quality")
    wide, cols = pd.DataFrame(), [Col("metric", "measure"), Col("label", "cells")]
    if not quality_.empty:
        quality_ = quality_.assign(label=quality_.get("label", pd.Series("", index=quality_.index)).fillna(""))
        methods_ = sorted(quality_["method"].unique(), key=lambda name: (name != "none", name))
        once = quality_.drop_duplicates(["metric", "label", "method"])
        wide = once.pivot(index=["metric", "label"], columns="method", values="value").reset_index()
        better = quality_.drop_duplicates(["metric", "label"]).set_index(["metric", "label"])
        for name in ("better", "n_cells"):
            if name in better:
                wide[name] = [better.loc[(m, lab), name] for m, lab in zip(wide["metric"], wide["label"], strict=True)]
        # measures over all cells first, then those of single types
        wide = wide.sort_values(["label", "metric"], key=lambda column: column.map(lambda v: "" if v == "all" else v))
        wide["better"] = wide["better"].map(lambda word: DIRECTIONS.get(word, word)) if "better" in wide else ""
        wide["metric"] = wide["metric"].map(lambda name: MEASURES.get(name, name))
        names = {"none": "before (PCA)"}
        cols += [Col(name, names.get(name, f"after ({name})"), "num", digits=3) for name in methods_ if name in wide]
        cols += [Col("better", "better is"), Col("n_cells", "n", "int")]
    training = context.tables.get("training")
    curve: dict[str, dict[str, dict[float, float]]] = {}
    if {"epoch", "loss"} <= set(training.columns) and len(training):
        curve = {
            "Loss": {
                "training loss": {
                    float(e): float(v)
                    for e, v in zip(pd.to_numeric(training["epoch"]), pd.to_numeric(training["loss"]), strict=True)
                    if v == v
                }
            }
        }
    entry = next((e for e in context.entries if str(e["step"]).lower() == "integrate_cohort"), {})
    options = entry.get("parameters", {})
    run = [
        f"Method {entry.get('method_used') or options.get('method', report.DASH)}",
        f"device {entry.get('device') or options.get('device') or report.DASH}",
        f"{len(training):,} epochs" if curve else "no training",
        f"seed {entry.get('unit_seed', entry.get('seed', report.DASH))}",
        f"threads {entry.get('threads', report.DASH)}",
    ]
    return Chapter(
        "integration",
        "Integration",
        "<p>A common space in which cells group by type and not by sample. It serves clusters, cell types and pictures only; no"
        " comparison of phases is computed in it.</p>",
        [
            Section(
                "integration_quality",
                "Before and after integration",
                "Measures of mixing of samples and of keeping cell types apart, without and with integration; `better is` says"
                " which direction is good.",
                report.table(wide, cols, f"{COHORT}/integration_quality.tsv", context.max_rows, context.why("integrate_cohort")),
            ),
            Section(
                "integration_training",
                "Training",
                "The loss should fall and then flatten; a curve that still falls at its end asks for more epochs. "
                + ", ".join(run)
                + ".",
                plot=(
                    Line(curve, "Training loss", "epoch", "loss per cell (nats)", {"training loss": "#0072B2"}) if curve else None
                ),
                before="" if curve else empty("No model was trained: " + context.why("integrate_cohort")),
            ),
            Section(
                "integration_merge",
                "Genes of the merged matrix",
                "Genes that every sample measured are kept; panel genes that one sample lacks are lost for all.",
                report.table(
                    context.tables.get("merge"),
                    [plain_column(name) for name in context.tables.get("merge").columns],
                    f"{COHORT}/merge.tsv",
                    context.max_rows,
                ),
            ),
        ],
    )


def maps(context: Context) -> Chapter:
    """UMAP pictures."""
    kept = context.kept
    located = kept[kept[list(keys.UMAP)].notna().all(axis=1)] if set(keys.UMAP) <= set(kept.columns) else kept.iloc[:0]
    sections = []
    if located.empty:
        why = empty("No map: " + context.why("cluster_cohort"))
        sections = [
            Section(f"maps_{name}", name.capitalize(), "Not available.", why)
            for name in ("type", "phase", "patient", "sample", "cluster")
        ]
    else:
        xy = located[list(keys.UMAP)].to_numpy(dtype=float)
        n = f"(n = {len(located):,} cells)"

        def one(name: str, title: str, reading: str, content: bytes) -> None:
            sections.append(Section(f"maps_{name}", title, f"{reading} {n}.", picture(content, f"{title}. {reading}")))

        if keys.MAIN_TYPE in located and located[keys.MAIN_TYPE].notna().any():
            types = context.types()
            one(
                "type",
                "By cell type",
                "Each dot is a cell, coloured by its main type, the name written at its middle; grey cells stay unresolved",
                figures.cloud(
                    xy, located[keys.MAIN_TYPE].astype(str), figures.colours(types, figures.TYPE_COLOURS), "Cell types", True
                ),
            )
        else:
            sections.append(
                Section("maps_type", "By cell type", "Not available.", empty("No types: " + context.why("annotate_cells")))
            )
        one(
            "phase",
            "By phase",
            "Each dot is a cell, coloured by the phase of its sample; phases should overlap within shared cell types",
            figures.cloud(xy, located[keys.PHASE].astype(str), context.phase_colours(), "Phases"),
        )
        patients = sorted(set(located[keys.PATIENT].astype(str)), key=report.natural)
        if len(patients) <= figures.MAX_COLOURS:
            content = figures.cloud(xy, located[keys.PATIENT].astype(str), figures.colours(patients), "Patients")
        else:
            content = figures.small_multiples(xy, located[keys.PATIENT].astype(str), patients, {}, "Patients")
        one(
            "patient",
            "By patient",
            "Each dot is a cell, coloured by patient; tumour cells often stay apart by patient, other types should not",
            content,
        )
        phase = dict(zip(context.design[keys.SAMPLE], context.design[keys.PHASE], strict=True))
        colour = context.phase_colours()
        with_cells = [s for s in context.samples() if s in set(located[keys.SAMPLE].astype(str))]
        one(
            "sample",
            "By sample",
            "One small map per sample: its cells in the colour of its phase over all other cells in grey",
            figures.small_multiples(
                xy,
                located[keys.SAMPLE].astype(str),
                with_cells,
                {s: colour[phase[s]] for s in with_cells},
                "Samples, coloured by phase",
            ),
        )
        labels = located[keys.CLUSTER].astype(str) if keys.CLUSTER in located else pd.Series("all", index=located.index)
        names = sorted(set(labels), key=report.natural)
        one(
            "cluster",
            "By cluster",
            "Each dot is a cell, coloured by cluster with its number at its middle; numbers may differ between machines, names"
            " do not",
            figures.cloud(xy, labels, figures.colours(names), "Clusters", True),
        )
    clusters = context.tables.get("clusters")
    primary = clusters
    option = next(
        (e.get("parameters", {}).get("resolution") for e in context.entries if str(e["step"]).lower() == "cluster_cohort"), None
    )
    if "resolution" in clusters and option is not None:
        primary = clusters[pd.to_numeric(clusters["resolution"], errors="coerce") == float(option)]
        primary = primary if len(primary) else clusters
    sections.append(
        Section(
            "maps_clusters",
            "Clusters",
            "Stability is the mean best overlap (Jaccard index, 0 to 1) of a cluster over repeated subsamples; below about 0.6"
            " its borders depend on the draw.",
            report.table(
                primary,
                [
                    Col("resolution", "resolution"),
                    Col("cluster", "cluster"),
                    Col("n_cells", "cells", "int"),
                    Col("n_samples", "samples", "int"),
                    Col("n_patients", "patients", "int"),
                    Col("top_sample_share", "largest sample's share", "share"),
                    Col("jaccard_stability", "stability", "num", digits=2),
                    Col("status", "status", "status"),
                ],
                f"{COHORT}/clusters.tsv (all resolutions)",
                context.max_rows,
                context.why("cluster_cohort"),
            ),
        )
    )
    return Chapter(
        "maps",
        "Maps of all cells (UMAP)",
        "<p>A map places similar cells side by side. Distances between groups and the size of a group on the map mean nothing; no"
        " conclusion rests on it.</p>",
        sections,
    )


def annotation(context: Context) -> Chapter:
    """Marker dot plot, types, clusters and their evidence, models."""
    tables, types = context.tables, context.types()
    check = tables.get("marker_check")
    before = empty("No marker check: " + context.why("annotate_cells"))
    gene_type = next((name for name in ("marker_of", "marker_type", "type") if name in check), None)
    if {"main_type", "gene", "pct", "mean_log"} <= set(check.columns) and len(check) and types:
        before = picture(*_dots(check, gene_type, [t for t in types if t in set(check["main_type"])]))
    sizes = pd.DataFrame()
    if types:
        kept = context.kept[context.kept[keys.MAIN_TYPE].notna()]
        text = kept[keys.MAIN_TYPE].astype(str)
        grouped = kept.groupby(text, observed=True)
        sizes = pd.DataFrame(
            {
                "main_type": types,
                "n_cells": [len(grouped.get_group(t)) for t in types],
                "share": [len(grouped.get_group(t)) / len(kept) for t in types],
                "n_samples": [grouped.get_group(t)[keys.SAMPLE].nunique() for t in types],
                "n_patients": [grouped.get_group(t)[keys.PATIENT].nunique() for t in types],
                "confidence": [_median(grouped.get_group(t), keys.ANNOTATION_CONFIDENCE) for t in types],
            }
        )
    markers = tables.get("markers")
    top = pd.DataFrame()
    if {"gene", "cluster"} <= set(markers.columns) and len(markers):
        effect = next((name for name in ("log2_fc", "log2fc") if name in markers), None)
        ranked = markers.assign(_effect=pd.to_numeric(markers[effect], errors="coerce") if effect else 0.0)
        if "resolution" in ranked:
            ranked = ranked[ranked["resolution"] == ranked["resolution"].iloc[0]]
        ranked = ranked.sort_values(["_effect", "gene"], ascending=[False, True], kind="stable")
        best = ranked.groupby("cluster", sort=False)["gene"].apply(lambda genes: ", ".join(genes.head(TOP_MARKERS)))
        order = sorted(best.index, key=report.natural)
        top = pd.DataFrame({"cluster": order, "genes": [best[c] for c in order]})
    return Chapter(
        "annotation",
        "Cell types",
        "<p>Types are agreed per fine cluster between marker genes and, where given, CellTypist models; a cluster whose sources"
        f" disagree stays <em>unresolved</em>: {esc(report.percent(context.made.n_unresolved or 0, context.made.n_kept, 1))} of"
        " the kept cells.</p>",
        [
            Section(
                "annotation_markers",
                "Markers of the cell types",
                "A large dark dot means that most cells of the type express the gene strongly; large dots should lie where a"
                f" gene meets its own type (n = {context.made.n_kept:,} cells).",
                before,
                after=(
                    f'<p class="sc-source">All markers: <code>{COHORT}/marker_check.tsv</code>. A cross marks a gene that was not'
                    " measured.</p>"
                ),
            ),
            Section(
                "annotation_types",
                "Cell types",
                "How many cells, samples and patients each type rests on.",
                report.table(
                    sizes,
                    [
                        Col("main_type", "main type"),
                        Col("n_cells", "cells", "int"),
                        Col("share", "share of cells", "share", digits=1),
                        Col("n_samples", "samples", "int"),
                        Col("n_patients", "patients", "int"),
                        Col("confidence", "median confidence", "num", "support among all sources, 0 to 1", 2),
                    ],
                    f"{COHORT}/types.tsv (with subtypes, per sample)",
                    context.max_rows,
                    context.why("annotate_cells"),
                ),
            ),
            Section(
                "annotation_clusters",
                "Evidence per fine cluster",
                "The votes of every source, the type agreed on, and the margin to the second type; a veto means that a required"
                " marker is missing.",
                report.table(
                    tables.get("annotation"),
                    [
                        Col("cluster", "fine cluster"),
                        Col("n_cells", "cells", "int"),
                        Col("lineage", "lineage"),
                        Col(keys.MAIN_TYPE, "agreed type"),
                        Col(keys.SUBTYPE, "subtype"),
                        Col(keys.TYPE_STATUS, "how"),
                        Col(keys.ANNOTATION_CONFIDENCE, "confidence", "num", "mean confidence of the sources, 0 to 1", 2),
                        Col(keys.MARKER_TYPE, "by markers alone"),
                        Col("margin", "margin", "num", "0 to 1", 2),
                        Col("veto", "veto"),
                        Col("votes", "votes"),
                        Col("status", "status", "status") if _words(tables.get("annotation")) else Col("status", "status"),
                    ],
                    f"{COHORT}/annotation.tsv",
                    context.max_rows,
                    context.why("annotate_cells"),
                ),
            ),
            Section(
                "annotation_genes",
                "Genes that mark the clusters",
                "The genes that distinguish each cluster most from all other cells, for checking a name by hand; cells as"
                " replicates, so exploratory.",
                report.table(
                    top,
                    [Col("cluster", "cluster"), Col("genes", "strongest genes")],
                    f"{COHORT}/markers.tsv",
                    context.max_rows,
                    "no cluster has a marker",
                ),
            ),
            Section(
                "annotation_models",
                "Models",
                "Which models voted and how many of their genes were measured; a model with too few is not used.",
                report.table(
                    tables.get("models"),
                    [plain_column(name) for name in tables.get("models").columns],
                    f"{COHORT}/models.tsv",
                    context.max_rows,
                    "no model was given, so types rest on marker genes alone",
                ),
            ),
        ],
    )


def _median(frame: pd.DataFrame, name: str) -> float | None:
    return float(pd.to_numeric(frame[name], errors="coerce").median()) if name in frame else None


def _words(frame: pd.DataFrame) -> bool:
    """Whether the column `status` holds the words of status.py and not a step's own."""
    from scresist import status

    return "status" in frame and set(frame["status"].dropna()) <= set(status.WORDS)


def _dots(check: pd.DataFrame, gene_type: str | None, types: Sequence[str]) -> tuple[bytes, str]:
    """Dot plot of the best markers per type: those of the types shown, in the order of the rows."""
    check = check.assign(
        pct=pd.to_numeric(check["pct"], errors="coerce"), mean_log=pd.to_numeric(check["mean_log"], errors="coerce")
    )
    percent_ = check.pivot_table(index="main_type", columns="gene", values="pct", aggfunc="first")
    mean = check.pivot_table(index="main_type", columns="gene", values="mean_log", aggfunc="first")
    genes: list[tuple[str, str]] = []
    if gene_type:
        owner = check.drop_duplicates(["gene", gene_type])[["gene", gene_type]]
        for name in types:
            mine = [g for g in owner.loc[owner[gene_type] == name, "gene"] if g in percent_.columns]
            rank = sorted(mine, key=lambda g: (-_at(percent_, name, g), g))
            genes += [(name, g) for g in rank[:MARKERS_PER_TYPE] if g not in {known for _, known in genes}]
    else:
        best = percent_.drop(index=keys.UNRESOLVED, errors="ignore").fillna(-1).idxmax()
        # without the owner in the table, a gene belongs to the type in which most cells express it
        for name in types:
            mine = [g for g in percent_.columns if best[g] == name]
            genes += [(name, g) for g in sorted(mine, key=lambda g: (-_at(percent_, name, g), g))[:MARKERS_PER_TYPE]]
    names = [g for _, g in genes]
    return (
        figures.dot_plot(
            types,
            genes,
            percent_.reindex(index=types, columns=names).to_numpy(),
            mean.reindex(index=types, columns=names).to_numpy(),
            "Marker genes",
        ),
        "Dot plot of marker genes against cell types",
    )


def _at(frame: pd.DataFrame, row: str, column: str) -> float:
    value = frame.loc[row, column] if row in frame.index else np.nan
    return float(value) if value == value else -1.0


def composition(context: Context) -> Chapter:
    """Shares of cell types per sample and phase."""
    types = context.types()
    if not types:
        why = empty("No cell types: " + context.why("annotate_cells"))
        return Chapter(
            "composition",
            "Composition",
            "<p>Shares of cell types in each sample.</p>",
            [
                Section("composition_samples", "Per sample", "Not available.", why),
                Section("composition_phases", "Per phase", "Not available.", why),
            ],
        )
    long = report.shares(context.cells)
    palette = figures.colours(types, figures.TYPE_COLOURS)
    cats = {name: (name, palette[name]) for name in types}
    wide = long.pivot(index=keys.SAMPLE, columns=keys.MAIN_TYPE, values="n_cells")
    total = wide.sum(axis=1)
    phase = dict(zip(context.design[keys.SAMPLE], context.design[keys.PHASE], strict=True))
    bars = {
        f"{s} ({phase[s]}, n={int(total[s]):,})": {t: int(wide.loc[s, t]) for t in types}
        for s in context.samples()
        if s in wide.index
    }
    pooled = report.patient_shares(long)
    means = pooled.groupby([keys.PHASE, keys.MAIN_TYPE])["share"].mean()
    patients = pooled.groupby(keys.PHASE)[keys.PATIENT].nunique()
    by_phase = {
        f"{p} (n={count(int(patients[p]), 'patient')})": {t: round(100 * float(means[(p, t)]), 3) for t in types}
        for p in context.phases()
        if p in patients.index
    }
    return Chapter(
        "composition",
        "Composition",
        "<p>Shares are shown, not tested: a share also falls when another type grows, and a biopsy samples one place. Read"
        " differences between phases as exploratory.</p>",
        [
            Section(
                "composition_samples",
                "Cell types per sample",
                "One bar per sample, samples of one phase side by side, split by main type (n = cells, in all"
                f" {context.made.n_kept:,}).",
                plot=Bar(bars, cats, "Cell types per sample", "cells", True),
                after=f'<p class="sc-source">As a file, with subtypes: <code>{COHORT}/types.tsv</code></p>',
            ),
            Section(
                "composition_phases",
                "Cell types per phase",
                "One bar per phase: the mean over its patients of each type's share, so that a patient with many cells weighs no"
                " more than one with few; exploratory.",
                plot=Bar(by_phase, cats, "Mean share of cell types per phase", "mean share over patients (%)"),
            ),
        ],
    )


def recovery(context: Context) -> Chapter:
    """Planted against recovered."""
    frame = context.tables.get("recovery").copy()
    word = frame["passed"].fillna("").str.lower()
    # a row without a floor, or whose step was left out, was not judged: neither reached nor missed
    frame["verdict"] = word.map({"true": "reached", "false": "missed"}).fillna("not judged")
    frame = frame.iloc[np.argsort(word.map({"false": 0, "true": 1}).fillna(2).to_numpy(), kind="stable")]
    passed, judged = word == "true", word.isin(["true", "false"])
    return Chapter(
        "recovery",
        "Recovery of planted truth",
        f"<p>This run analysed a simulated cohort. {int(passed.sum())} of {int(judged.sum())} planted things that were judged"
        " were found again within their bound.</p>",
        [
            Section(
                "recovery_table",
                "Planted and recovered",
                "One row per planted thing: the measure, the value reached, the bound it has to keep (a floor, or a ceiling where"
                " the explanation says so); what was missed stands first, what was not judged last.",
                report.table(
                    frame,
                    [
                        Col("what", "what"),
                        Col("planted", "planted"),
                        Col("recovered", "recovered"),
                        Col("metric", "measure"),
                        Col("value", "value", "num", digits=3),
                        Col("floor", "bound", "num", digits=3),
                        Col("verdict", "verdict"),
                        Col("n", "n", "int"),
                        Col("explanation", "explanation"),
                    ],
                    "report/recovery.tsv",
                    context.max_rows,
                ),
            )
        ],
    )


def methods(context: Context) -> Chapter:
    """Methods text of this run."""
    return Chapter(
        "methods",
        "Methods",
        "<p>Written by the run from what its steps recorded; free to copy (<code>report/methods.md</code>).</p>",
        [
            Section(
                "methods_text",
                "Methods text",
                "Parameters, versions and references as used in this run.",
                report.methods_html(context.methods),
            )
        ],
    )


def versions(context: Context) -> Chapter:
    """Software and data columns."""
    return Chapter(
        "versions",
        "Software and columns",
        "<p>What computed the results, and what each per-cell column means.</p>",
        [
            Section(
                "versions_software",
                "Software versions",
                "One row per version; two rows of one package would mean that steps used different versions.",
                report.table(
                    context.versions,
                    [Col("software", "software"), Col("version", "version"), Col("steps", "steps")],
                    "report/software_versions.tsv",
                    max(context.max_rows, len(context.versions)),
                ),
            ),
            Section(
                "versions_columns",
                "Columns of cells.parquet and cohort.h5ad",
                "One row per column; `missing` counts cells without a value, `absent` a column whose step was skipped.",
                report.table(
                    context.tables.get("columns"),
                    [
                        Col("column", "column"),
                        Col("step", "step"),
                        Col("meaning", "meaning"),
                        Col("type", "type"),
                        Col("n_missing", "missing", "int"),
                    ],
                    "columns.tsv",
                    context.max_rows,
                ),
            ),
        ],
    )
