"""Chapter of the report: markers against survival in bulk and clinical cohorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scresist import keys, report
from scresist.layout import Chapter, Context, Section, empty, items, picture
from scresist.report import Col, count, esc, listing, number, to_number

FOLDER = "05_evidence/survival"
SETS = ("signature", "module")
STEP = "test_survival"
TITLE = "Markers and survival of patients"
UNIVARIATE = "univariate"
ALPHA = 0.05
PER_SD = "sd"
LINES = 4  # markers of a dataset that the first paragraph names
CAUTION = {"few_events": "few events", "not_proportional": "a ratio that changes with time"}  # reasons of a warning in words

COHORT_COLS = [
    Col("dataset", "dataset"),
    Col("endpoint", "endpoint"),
    Col("n_clinical", "patients given", "int", "rows of the clinical table"),
    Col("n_patients", "patients analysed", "int", "with outcome and a value of some marker; each test says its own number"),
    Col("n_events", "events", "int"),
    Col("median_time", "median", help="time by which half had the event (95 % interval); dash: not reached"),
    Col("follow_up", "median follow-up", help="time to censoring, reverse Kaplan-Meier"),
    Col("n_markers", "markers", "int"),
    Col("n_estimated", "tested", "int", "markers with a Cox model"),
    Col("status", "status", "status"),
    Col("reason", "remark"),
]  # fmt: skip
COX_COLS = [
    Col("dataset", "dataset"),
    Col("marker", "marker"),
    Col("kind", "kind"),
    Col("model", "model", help="adjusted: with the covariates of adjusted_for"),
    Col("per", "per", help="sd: one standard deviation more; else a level against the first one"),
    Col("n", "patients", "int"),
    Col("events", "events", "int"),
    Col("hr", "hazard ratio", "num", "above 1: more events where the marker is high"),
    Col("ci_low", "95 % from", "num"),
    Col("ci_high", "to", "num"),
    Col("p", "p", "p"),
    Col("padj", "adjusted p", "p", "Benjamini-Hochberg over the markers of this kind"),
    Col("concordance", "concordance", "num", "0.5: no better than chance, 1: orders all patients", 2),
    Col("ph_p", "p of constant ratio", "p", "a small value: the ratio changes with time"),
    Col("status", "status", "status"),
    Col("reason", "remark"),
]
LOGRANK_COLS = [
    Col("dataset", "dataset"),
    Col("marker", "marker"),
    Col("cut", "cut"),
    Col("operator", "high is"),
    Col("cut_value", "value"),
    Col("groups", "patients per group (median time)"),
    Col("events", "events", "int"),
    Col("chi2", "chi-square", "num", digits=2),
    Col("df", "df", "int"),
    Col("p", "p", "p"),
    Col("padj", "adjusted p", "p", "Benjamini-Hochberg over the markers of this kind and cut"),
    Col("p_stratified", "p within strata", "p"),
    Col("status", "status", "status"),
    Col("reason", "remark"),
]
SCAN_COLS = [
    Col("dataset", "dataset"),
    Col("marker", "marker"),
    Col("cut_value", "best cut"),
    Col("n_high", "patients above", "int"),
    Col("n_low", "patients below", "int"),
    Col("p", "corrected p", "p", "of the whole search, by permutation of the marker"),
    Col("padj", "adjusted p", "p", "Benjamini-Hochberg over the markers of this kind"),
    Col("reason", "remark"),
]
SPLIT_COLS = [
    Col("dataset", "dataset"),
    Col("marker", "marker"),
    Col("kind", "kind"),
    Col("split", "split at"),
    Col("n_patients_a", "event before", "int"),
    Col("n_patients_b", "later", "int"),
    Col("n_unknown", "unknown", "int", "censored before the split: left out"),
    Col("effect", "difference of means", "num", "patients with an early event minus the others"),
    Col("ci_low", "95 % from", "num"),
    Col("ci_high", "to", "num"),
    Col("p_value", "p", "p", "rank-sum"),
    Col("p_adjusted", "adjusted p", "p"),
    Col("p_min_attainable", "least possible p", "p", "the smallest p that so many patients can give"),
    Col("evidence", "evidence"),
    Col("status", "status", "status"),
]


def survival(context: Context) -> Chapter:
    """Cohorts, hazard ratios, curves, log-rank tests, scanned cuts, early against late events."""
    cohorts = context.tables.of_units("survival_summary", "dataset")
    cox = context.tables.of_units("cox", "dataset")
    logrank = context.tables.of_units("logrank", "dataset")
    groups = context.tables.of_units("survival_groups", "dataset")
    if cohorts.empty:
        why = _why(context)
        sections = [Section("sc_survival_cohorts", "Cohorts", "Not available.", empty("No cohort: " + why))]
        return Chapter("sc_survival", TITLE, _head(), sections)
    scanned = logrank["scanned"] == "true" if len(logrank) else pd.Series(dtype=bool)
    sections = [
        _cohorts(context, cohorts),
        _ratios(context),
        _cox(context, cox),
        _curves(context),
        _logrank(context, logrank[~scanned] if len(logrank) else logrank),
    ]
    if scanned.any():
        sections.append(_scanned(context, logrank[scanned]))
    sections.append(_split(context, groups))
    return Chapter("sc_survival", TITLE, _head() + items(_lines(cohorts, cox)), sections)


def _head() -> str:
    return (
        "<p>Do patients whose tumours carry more of a gene, a program or a staining score fare differently? These are other"
        " patients than those of the single cells, measured in bulk. A hazard ratio of 1.5 per standard deviation means: at any"
        " time, patients one standard deviation higher have the event 1.5 times as often; below 1 they have it less often. Such a"
        " relation does not show that the marker causes the outcome.</p>"
    )


def _why(context: Context) -> str:
    rows = context.status[context.status["step"] == STEP]
    if rows.empty:
        return "no clinical table was given"
    return "; ".join(f"{row['unit']}: {row['reason'] or row['sentence']}" for row in rows.fillna("").to_dict("records"))


def _figures(row: Mapping[str, Any]) -> str:
    """`hazard ratio 1.48 per SD (95 % 1.27 to 1.72), adjusted p 8.1e-07`."""
    per = "SD" if row["per"] == PER_SD else str(row["per"])
    interval = f"{number(row['ci_low'], 2)} to {number(row['ci_high'], 2)}"
    return f"hazard ratio {number(row['hr'], 2)} per {per} (95 % {interval}), adjusted p {number(row['padj'])}"


def _caution(row: Mapping[str, Any]) -> str:
    """`4 events; few events, a ratio that changes with time`: why a ratio is no finding."""
    heads = [part.split(":")[0].strip() for part in str(row["reason"]).split(";")]
    words = [CAUTION[head] for head in heads if head in CAUTION] or [str(row["status"])]
    return f"{count(int(to_number(row['events']) or 0), 'event')}; {', '.join(words)}"


def _lines(cohorts: pd.DataFrame, cox: pd.DataFrame) -> list[str]:
    """What a reader without bioinformatics takes along, cohort by cohort."""
    lines = []
    for cohort in cohorts.to_dict("records"):
        name = cohort["dataset"]
        n = count(int(to_number(cohort["n_patients"]) or 0), "patient")
        start = f"{name}: {n}, {count(int(to_number(cohort['n_events']) or 0), 'event')} ({cohort['endpoint']})"
        mine = cox[(cox["dataset"] == name) & (cox["model"] == UNIVARIATE)] if len(cox) else cox
        tested = [row for row in mine.to_dict("records") if to_number(row["p"]) is not None]
        if not tested:
            reason = cohort["reason"]
            lines.append(f"{start}. No marker could be tested" + ("." if report.is_missing(reason) else f": {reason}."))
            continue
        # a p that is missing is not low
        low = sorted(
            (r for r in tested if (padj := to_number(r["padj"])) is not None and padj < ALPHA),
            key=lambda r: to_number(r["p"]) or 0,
        )
        sure, weak = [r for r in low if r["status"] == keys.OK], [r for r in low if r["status"] != keys.OK]
        if sure:
            shown = "; ".join(f"{row['marker']} {_figures(row)}" for row in sure[:LINES])
            more = f" and {len(sure) - LINES} more" if len(sure) > LINES else ""
            lines.append(f"{start}. Related to the outcome: {shown}{more}.")
        else:
            what = f"an adjusted p below {ALPHA}" + (" without a warning" if weak else "")
            lines.append(f"{start}. None of {count(len(tested), 'tested term')} has {what}.")
        if weak:
            shown = "; ".join(f"{row['marker']} {_figures(row)} ({_caution(row)})" for row in weak[:LINES])
            more = f" and {len(weak) - LINES} more" if len(weak) > LINES else ""
            lines.append(f"{name}: exploratory, to be seen again in more patients: {shown}{more}.")
        absent = [r["marker"] for r in mine.to_dict("records") if str(r["reason"]).startswith("gene_absent")]
        if absent:
            lines.append(f"{name}: not measured there, so nothing can be said about {listing(absent)}.")
    return lines


def _joined(values: Sequence[str], unit: str) -> str:
    """`14.2 months (11 to 19)`, with dashes for what does not exist; empty without the first."""
    if to_number(values[0]) is None:
        return ""
    limits = f" ({number(values[1])} to {number(values[2])})" if len(values) == 3 else ""
    return f"{number(values[0])} {unit}{limits}"


def _cohorts(context: Context, cohorts: pd.DataFrame) -> Section:
    shown = cohorts.assign(
        median_time=[
            _joined([row["median"], row["median_ci_low"], row["median_ci_high"]], row["time_unit"])
            for row in cohorts.to_dict("records")
        ],
        follow_up=[_joined([row["median_follow_up"]], row["time_unit"]) for row in cohorts.to_dict("records")],
    )
    return Section(
        "sc_survival_cohorts",
        "Cohorts",
        "One row per cohort. The number of events, not of patients, decides how much can be seen: below 10 events a ratio is a"
        " guess.",
        report.table(shown, COHORT_COLS, f"{FOLDER}/<dataset>.survival_summary.tsv", context.max_rows),
    )


def _pictures(context: Context, kind: str, what: str) -> str:
    found = context.tables.pictures(kind)
    if not found:
        return empty("No picture: " + _why(context))
    return "".join(f"<h4>{esc(unit)}</h4>{picture(content, f'{what} of {unit}')}" for unit, content in found.items())


def _ratios(context: Context) -> Section:
    return Section(
        "sc_survival_ratios",
        "Hazard ratios",
        "A point is the hazard ratio, the line its 95 % interval, on a logarithmic axis without unit; n and events stand to the"
        " right. Lines that cross 1 are compatible with no relation. Blue circles: the marker alone; orange squares: adjusted for"
        " the covariates. Named markers in their order, then gene sets by p; at most 40 rows.",
        _pictures(context, "hazard_ratios", "Hazard ratios"),
    )


def _estimable(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows to show, and a sentence on gene sets and modules that are left to the file: they were not asked for by name."""
    if frame.empty:
        return frame, ""
    blind = frame["kind"].isin(SETS) & (frame["status"] == keys.NOT_ESTIMABLE)
    n = len(frame[blind].drop_duplicates([name for name in ("dataset", "marker", "source") if name in frame]))
    few = "too few of their genes were measured, or they do not vary"
    told = f"Not shown: {count(n, 'gene set or module', 'gene sets and modules')}; {few}."
    return frame[~blind], f"<p>{esc(told)}</p>" if n else ""


def _cox(context: Context, cox: pd.DataFrame) -> Section:
    cox, note = _estimable(cox)
    shown = cox
    if len(cox):
        # markers as named first, gene sets by p
        sets = cox["kind"].isin(SETS)
        p = pd.to_numeric(cox["p"], errors="coerce")
        ordered = cox[sets].loc[p[sets].sort_values(kind="stable", na_position="last").index]
        shown = pd.concat([cox[~sets], ordered], ignore_index=True)
    return Section(
        "sc_survival_cox",
        "Cox models",
        "The primary analysis: the marker as it was measured, without a cut. A marker that was not measured has a dash and its"
        " reason. Where the check of a constant ratio gives a small p, the ratio is an average over time.",
        report.table(shown, COX_COLS, f"{FOLDER}/<dataset>.cox.tsv", context.max_rows, _why(context)) + note,
    )


def _curves(context: Context) -> Section:
    return Section(
        "sc_survival_curves",
        "Kaplan-Meier curves",
        "Share of patients without the event (vertical, 0 to 1) over time (horizontal, in the unit of the cohort), by cuts that"
        " were declared beforehand. Bands: 95 % log-log limits; ticks: patients last seen without the event; below: patients"
        " still observed. The right end rests on few patients. At most 12 pictures, the first cut of each marker; all curves are"
        " in the file.",
        _pictures(context, "kaplan_meier", "Kaplan-Meier curves"),
        after=f'<p class="sc-source">Points of all curves: <code>{FOLDER}/&lt;dataset&gt;.km.tsv</code></p>',
    )


def _logrank(context: Context, logrank: pd.DataFrame) -> Section:
    logrank, note = _estimable(logrank)
    return Section(
        "sc_survival_logrank",
        "Log-rank tests at declared cuts",
        "Compares the curves of the groups. `high is` says whether a value equal to the cut counts as high (>=) or low (>); with"
        " tied scores that moves patients. A median that was not reached is left out.",
        report.table(logrank, LOGRANK_COLS, f"{FOLDER}/<dataset>.logrank.tsv", context.max_rows, _why(context)) + note,
    )


def _scanned(context: Context, scanned: pd.DataFrame) -> Section:
    return Section(
        "sc_survival_scan",
        "Scanned cuts (exploratory)",
        "Warning: these cuts were chosen because they separate this cohort best; another cohort will show less. The p is that of"
        " the whole search (best of all cuts against best of all cuts in permuted markers), not that of a cut.",
        report.table(scanned, SCAN_COLS, f"{FOLDER}/<dataset>.logrank.tsv", context.max_rows),
    )


def _split(context: Context, groups: pd.DataFrame) -> Section:
    shown = groups
    if len(groups):
        by = pd.to_numeric(groups["p_value"], errors="coerce").sort_values(kind="stable", na_position="last").index
        shown = groups.loc[by].assign(
            split=[f"{number(row['split_time'])} {row['time_unit']}" for row in groups.loc[by].to_dict("records")]
        )
    return Section(
        "sc_survival_groups",
        "Early against late events",
        "Marker of patients with the event before the split against those observed without it until then (rank-sum test; patients"
        " are the unit). Patients censored before the split belong to neither side. Cox uses more of the data; this is the"
        f" comparison that studies of responders show. Evidence `{keys.REPLICATED}`: at least 3 patients a side.",
        report.table(shown, SPLIT_COLS, f"{FOLDER}/<dataset>.survival_groups.tsv", context.max_rows, "no split was asked for"),
    )
