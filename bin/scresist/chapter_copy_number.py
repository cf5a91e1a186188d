"""Chapter of the report: copy-number profiles and which epithelial cells are called malignant from them."""

from __future__ import annotations

import pandas as pd

from scresist import keys, report
from scresist.layout import Bar, Chapter, Context, Heat, Section, empty, items
from scresist.report import Col, count, esc, listing, natural, percent, to_number

FOLDER = "03_tumour/copy_number/<patient>"
CALLS = {
    "n_malignant": ("malignant", "#D55E00"),
    "n_unresolved": ("unresolved", "#999999"),
    "n_non": ("not malignant", "#0072B2"),
}
CAVEAT = (
    "A call rests on gains and losses of whole chromosome arms. A tumour without them cannot be told from normal epithelium: its"
    " cells stay unresolved, which is not the same as normal."
)


def copy_number(context: Context) -> Chapter:
    """Calls by sample, arms, reference groups, clusters of profiles, sensitivity of the call, patients without a profile."""
    tables = context.tables
    calls = _ordered(tables.of_units("malignant", keys.PATIENT), ["patient", "sample"])
    arms = tables.of_units("cnv_arms", keys.PATIENT)
    reference = _ordered(tables.of_units("cnv_reference", keys.PATIENT), ["patient", "group"])
    clusters = _ordered(tables.of_units("malignant_clusters", keys.PATIENT), ["patient", "cluster"])
    moved = tables.of_units("malignant_sensitivity", keys.PATIENT)
    status = context.status
    inferred = status[status["step"] == "infer_cnv"]
    nothing = "no patient has epithelial cells with a call" if len(status) else "the steps wrote no status"
    heat, settings = arm_heat(arms), sensitivity_heat(moved)
    return Chapter(
        "copy_number",
        "Copy number and malignant cells",
        "".join(f"<p>{esc(line)}</p>" for line in [*sentences(calls), CAVEAT]),
        [
            Section(
                "sc_copy_number_calls",
                "Malignant, not malignant, unresolved",
                "One bar per sample over its epithelial cells. Malignant: the cell's group shows at least two shifted"
                " chromosome arms and the cell itself follows that pattern. The two rules in the last columns (top 10 % of the"
                " score, as the study did; score above the normal cells) are given for comparison and decide nothing.",
                before="" if len(calls) else empty(nothing),
                plot=call_bars(calls),
                after=report.table(
                    calls,
                    [
                        Col("patient", "patient"),
                        Col("sample", "sample"),
                        Col("phase", "phase"),
                        Col("n_epithelial", "epithelial cells", "int"),
                        Col("n_malignant", "malignant", "int"),
                        Col("n_non", "not malignant", "int"),
                        Col("n_unresolved", "unresolved", "int"),
                        Col("n_tumour", "used as tumour", "int", "cells that stand for the tumour in later steps"),
                        Col(
                            "tumour_basis",
                            "because of",
                            help="cnv: the call; epithelial: no call possible; none: switched off",
                        ),
                        Col("n_quota", "top 10 %", "int", "cells above the 90 % quantile of the patient's score"),
                        Col("agreement_quota", "agrees", "share", "with the call, over resolved cells"),
                        Col("n_refcut", "above normal", "int", "score above mean + 2 sd of the reference cells"),
                        Col("agreement_refcut", "agrees", "share", "with the call, over resolved cells"),
                        Col("status", "status", "status"),
                    ],
                    f"{FOLDER}.malignant.tsv",
                    context.max_rows,
                    nothing,
                ),
            ),
            Section(
                "sc_copy_number_arms",
                "Gains and losses by sample",
                "Mean over the epithelial cells of a sample, in standard deviations of the patient's own normal cells: above 0 a"
                " gain, below 0 a loss. All epithelial cells are in the mean, also those that are not malignant.",
                before="" if heat else empty("no patient has a copy-number profile"),
                plot=heat,
            ),
            Section(
                "sc_copy_number_clusters",
                "Groups of cells by profile",
                "The epithelial cells of a patient grouped by profile alone. Shifted arms: + gain, - loss. Groups of fewer than"
                " 10 cells are not judged.",
                report.table(
                    clusters,
                    [
                        Col("patient", "patient"),
                        Col("cluster", "group"),
                        Col("n_cells", "cells", "int"),
                        Col("n_samples", "samples", "int"),
                        Col("top_sample_share", "largest sample", "share", "share of the group's cells in one sample"),
                        Col("n_shifted", "shifted arms", "int"),
                        Col("arms", "which"),
                        Col("judged", "judged", "bool"),
                        Col("tumour_like", "tumour-like", "bool"),
                        Col("n_malignant", "malignant cells", "int"),
                    ],
                    f"{FOLDER}.malignant_clusters.tsv",
                    context.max_rows,
                    "no patient has a copy-number profile",
                ),
            ),
            Section(
                "sc_copy_number_reference",
                "Normal cells compared with",
                "Groups of the patient's own normal cells. Each was held against the others: two or more shifted arms mean that"
                " it may hold tumour cells; such a group is left out and the patient carries a note.",
                report.table(
                    reference,
                    [
                        Col("patient", "patient"),
                        Col("group", "group"),
                        Col("main_types", "cell types"),
                        Col("n_cells", "cells", "int"),
                        Col("arms_shifted", "shifted arms", "int", "empty: no other group to compare with"),
                        Col("arms", "which"),
                        Col("n_suspect", "left out", "int", "cells that may be tumour cells"),
                        Col("used", "used", "bool"),
                    ],
                    f"{FOLDER}.cnv_reference.tsv",
                    context.max_rows,
                    "no patient has reference cells",
                ),
            ),
            Section(
                "sc_copy_number_sensitivity",
                "How the call moves with its thresholds",
                "Overlap of the malignant cells with those of the thresholds in use (Jaccard index: 1 = the same cells, 0 = none"
                " in common). Columns: shift of an arm in standard deviations / number of shifted arms asked for.",
                before="" if settings else empty("no patient has malignant cells under any threshold"),
                plot=settings,
                after=f'<p class="sc-source">As a file: <code>{esc(FOLDER)}.malignant_sensitivity.tsv</code></p>',
            ),
            Section(
                "sc_copy_number_without",
                "Patients with a note",
                "Patients without a copy-number profile, or whose profile needs care, and what was found.",
                report.table(
                    inferred[inferred["status"] != keys.OK],
                    [
                        Col("unit", "patient"),
                        Col("status", "status", "status"),
                        Col("n_cells", "epithelial cells", "int"),
                        Col("reason", "what was found"),
                    ],
                    "report/status.tsv",
                    context.max_rows,
                    "every patient has a profile without a note",
                )
                + items(_quiet(status)),
            ),
        ],
    )


def _ordered(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    if frame.empty:
        return frame
    order = sorted(range(len(frame)), key=lambda at: [natural(frame[name].iloc[at]) for name in by if name in frame])
    return frame.iloc[order].reset_index(drop=True)


def _quiet(status: pd.DataFrame) -> list[str]:
    found = status[(status["step"] == "call_malignant") & (status["status"] == keys.CNV_QUIET)]
    return [f"{row.unit}: {row.sentence}" for row in found.itertuples()]


def sentences(calls: pd.DataFrame) -> list[str]:
    """What a clinician should know first: how many patients have a call, how many cells, who is quiet."""
    if calls.empty:
        return ["No epithelial cells were found in which malignant cells could be called."]
    numbers = calls.assign(**{name: pd.to_numeric(calls[name], errors="coerce").fillna(0) for name in (*CALLS, "n_epithelial")})
    with_call = sorted(set(numbers.loc[numbers["tumour_basis"] == "cnv", "patient"]), key=natural)
    quiet = sorted(set(numbers.loc[numbers["status"] == keys.CNV_QUIET, "patient"]), key=natural)
    mine = numbers[numbers["patient"].isin(with_call)]
    total, n_malignant = int(mine["n_epithelial"].sum()), int(mine["n_malignant"].sum())
    lines = []
    if with_call:
        lines.append(
            f"In {count(len(with_call), 'patient')} epithelial cells with gains or losses of whole chromosome arms were found:"
            f" {n_malignant:,} of {total:,} epithelial cells ({percent(n_malignant, total)}) are called malignant."
        )
    else:
        lines.append("In no patient epithelial cells with gains or losses of whole chromosome arms were found.")
    if quiet:
        lines.append(f"No such change was found in {listing(quiet)}; their epithelial cells stay unresolved.")
    return lines


def call_bars(calls: pd.DataFrame) -> Bar | None:
    """Stacked bars of the three calls, one per sample."""
    if calls.empty:
        return None
    data = {
        str(row["sample"]): {name: int(to_number(row[name]) or 0) for name in CALLS if name in row}
        for row in calls.to_dict("records")
    }
    return Bar(data, CALLS, "Calls of epithelial cells", "epithelial cells")


def arm_heat(arms: pd.DataFrame) -> Heat | None:
    """Samples x chromosome arms: mean z-score of the epithelial cells, weighted over main types by cells."""
    if arms.empty:
        return None
    mine = arms[arms["cnv_role"] == keys.CNV_ROLE_QUERY].copy()
    if mine.empty:
        return None
    for name in ("mean_z", "n_cells"):
        mine[name] = pd.to_numeric(mine[name], errors="coerce")
    mine["sum"] = mine["mean_z"] * mine["n_cells"]
    added = mine.groupby(["patient", "sample", "arm"])[["sum", "n_cells"]].sum()
    wide = (added["sum"] / added["n_cells"]).unstack("arm")
    columns = sorted(wide.columns, key=natural)
    rows = sorted(wide.index, key=lambda key: [natural(part) for part in key])
    cells = mine.drop_duplicates(["patient", "sample", "main_type"]).groupby(["patient", "sample"])["n_cells"].sum()
    values = [[None if pd.isna(wide.loc[row, arm]) else round(float(wide.loc[row, arm]), 3) for arm in columns] for row in rows]
    labels = [f"{sample} (n = {int(cells[(patient, sample)]):,})" for patient, sample in rows]
    return Heat(
        values,
        columns,
        labels,
        "Copy number of chromosome arms in epithelial cells",
        "chromosome arm",
        "sample (epithelial cells)",
        "mean z-score against the patient's normal cells",
    )


def sensitivity_heat(moved: pd.DataFrame) -> Heat | None:
    """Patients x thresholds: overlap with the malignant cells of the thresholds in use; None without any."""
    if moved.empty:
        return None
    standard = moved[moved["is_default"] == "true"].drop_duplicates("patient").set_index("patient")
    grid = moved[
        (moved["third_shift"] == moved["patient"].map(standard["third_shift"]))
        & (moved["cell_quantile"] == moved["patient"].map(standard["cell_quantile"]))
    ]
    grid = grid.assign(setting=grid["arm_shift"] + " / " + grid["min_shifted_arms"])
    grid = grid.drop_duplicates(["patient", "setting"])
    values = pd.to_numeric(grid["jaccard_to_default"], errors="coerce")
    if values.isna().all():
        return None
    wide = grid.assign(value=values).pivot(index="patient", columns="setting", values="value")
    columns, rows = sorted(wide.columns, key=natural), sorted(wide.index, key=natural)
    return Heat(
        [[None if pd.isna(wide.loc[row, name]) else round(float(wide.loc[row, name]), 3) for name in columns] for row in rows],
        columns,
        [str(row) for row in rows],
        "Malignant cells under other thresholds",
        "shift of an arm (sd) / shifted arms asked for",
        "patient",
        "overlap with the call in use (Jaccard index, 0 to 1)",
    )
