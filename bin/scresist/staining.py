"""Stained fields of view (multiplex immunohistochemistry) over the phases: values per sample, tests, concordance with RNA.

Fields of one section are not replicates: wherever two patients stand on each side the test is between patients. Only where phases
are compared within one patient do fields carry the test, labelled so (unit `field`, evidence `single_patient`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import minimize

from scresist import comparison, design, keys, long_table, panels
from scresist.design import Problem

SHARE, PERCENT, INTENSITY = "share", "percent", "intensity"
KINDS = {SHARE: 1.0, PERCENT: 100.0, INTENSITY: 1.0}  # kind -> what stands for the whole
UNIT_FIELD = "field"
AUTO = "auto"
UNITS = (AUTO, comparison.UNIT_PATIENT, UNIT_FIELD)
ARCSINE, AS_MEASURED = "arcsine_root", "none"
MIN_FIELDS = 2  # of a phase, for a test over fields
MIXED = "mixed_model"
LEAST_BETWEEN = 1e-6  # variance between patients (or samples of one) over that between fields, below which a model counts fields
NEEDED = (keys.PATIENT, keys.SAMPLE, keys.PHASE, "marker", "value")
ALIASES = {
    "protein": "marker", "stain": "marker", "antibody": "marker", "fov": "field", "roi": "field", "slide": "section",
    "n_nuclei": "n_cells", "cells": "n_cells", "measure": "kind",
}  # fmt: skip
# Names of proteins that differ from the symbol of their gene, without hyphens and in capitals.
GENES = {
    "HER2": "ERBB2", "KI67": "MKI67", "PD1": "PDCD1", "PDL1": "CD274", "TIM3": "HAVCR2", "HER3": "ERBB3", "TROP2": "TACSTD2",
    "EPCAM": "EPCAM", "PANCK": "", "CK8": "KRT8", "PCNA": "PCNA", "CD8": "CD8A", "CATHEPSINB": "CTSB", "CYSTATINC": "CST3",
}  # fmt: skip
VALUE_COLUMNS = (
    "marker", "gene", "kind", keys.PATIENT, keys.SAMPLE, keys.PHASE, "n_sections", "n_fields", "n_cells", "value", "sd", "min",
    "q1", "median", "q3", "max", "status", "reason",
)  # fmt: skip
TEST_COLUMNS = (
    "marker", "gene", keys.PATIENT, *comparison.TEST_COLUMNS, "df1", "df2", "groups", "mean_a", "mean_b", "rank_biserial",
    "transform", "reason",
)  # fmt: skip
CONCORDANCE_COLUMNS = (
    "marker", "gene", "contrast", keys.PATIENT, "unit", "effect_protein", "sign_protein", "cell_type", "effect_rna", "sign_rna",
    "agree", "evidence_protein", "evidence_rna", "reason",
)  # fmt: skip


# --- the table of fields


def gene_of(marker: str) -> str:
    """The gene that a protein's usual name stands for; the name itself, as it was written, where none is listed."""
    plain = "".join(ch for ch in marker.upper() if ch.isalnum())
    return GENES.get(plain, marker.strip())


def read_fields(
    paths: Sequence[Path], phases: pd.DataFrame, samples: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame, list[long_table.Fault]]:
    """The fields of all files (see `fields`), their rows as text (see `long_table.read`), and everything that is wrong.

    Parameters
    ----------
    phases
        phases.tsv: phase, order.
    samples
        samples.tsv, or None.
    """
    table, problems = long_table.read(paths, ALIASES, "one row per field and marker", "Add the fields")
    made = pd.DataFrame()
    if len(table):
        codes = phases.sort_values("order", kind="stable")["phase"].astype(str).tolist()
        made, faults = fields(table, codes, samples)
        problems += faults
    return made, table, problems


def fields(
    table: pd.DataFrame, phases: Sequence[str], samples: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[tuple[str, Problem]]]:
    """Fields of view from a long table of text (`long_table.parse`), and everything that is wrong with it.

    Parameters
    ----------
    table
        `patient, sample, phase, marker, value` and, where given, `section, field, n_cells, gene` and `kind` (share, percent,
        intensity). Without `kind` a marker is an intensity where its values exceed 1, and a share of positive cells where all
        values of its tables lie within 0 and 1; beside larger values it might as well be a percentage, and must say so.
    phases
        codes of the phases of the run.
    samples
        the design (sample, patient, phase): a sample of that name must be the same there.

    Returns
    -------
    fields
        marker, gene, kind, patient, sample, phase, section, field, value, n_cells; sorted.
    problems
        (file, problem); `fields` is usable only when empty.
    """
    problems: list[tuple[str, Problem]] = []
    for name, part in table.groupby(long_table.FILE, sort=True):
        problems += long_table.absent(part.dropna(axis=1, how="all"), str(name), NEEDED)
    columns = ["marker", "gene", "kind", keys.PATIENT, keys.SAMPLE, keys.PHASE, "section", "field", "value", "n_cells"]
    if problems:
        return pd.DataFrame(columns=columns), problems
    made = pd.DataFrame(index=table.index)
    for column in (keys.PATIENT, keys.SAMPLE, keys.PHASE, "marker"):
        made[column] = long_table.filled(table, column, problems)
    made["value"] = long_table.numbers(table, "value", problems)
    made["n_cells"] = np.nan
    if "n_cells" in table:
        given = table["n_cells"].fillna("").astype(str) != ""
        made.loc[given, "n_cells"] = long_table.numbers(table[given], "n_cells", problems, low=0.0)
    made["section"] = _optional(table, "section", "1")
    own = [keys.SAMPLE, "section", "marker"]
    made["field"] = _optional(table, "field", "")
    bare = made["field"] == ""  # unnamed fields are told apart by the order of their values, not of their rows
    if bare.any():
        rank = made[bare].groupby(own, sort=False)["value"].rank(method="first").fillna(0).astype(int)
        made.loc[bare, "field"] = "unnamed-" + rank.astype(str)
    made["kind"] = _optional(table, "kind", "").str.lower()
    made["gene"] = _optional(table, "gene", "")
    empty = made["gene"] == ""
    made.loc[empty, "gene"] = [gene_of(marker) for marker in made.loc[empty, "marker"]]
    problems += _phase_problems(made, table, phases, samples)
    problems += _kind_problems(made, table)
    twice = made.duplicated([*own, "field"], keep=False) & ~bare
    for (sample, section, marker, field), part in made[twice].groupby([*own, "field"], sort=True):
        rows = table.loc[part.index, long_table.ROW].tolist()
        fault = Problem(
            "field", f"section {section}, field {field}, marker {marker} stands in rows {', '.join(map(str, rows[:6]))}",
            "one row per field and marker", "Name the fields apart, or remove the repeats", rows[1], str(sample),
        )  # fmt: skip
        problems.append((str(table.at[part.index[1], long_table.FILE]), fault))
    order = ["marker", keys.PATIENT, keys.SAMPLE, keys.PHASE, "section", "field", "value"]
    return made[columns].sort_values(order, ignore_index=True), problems


def _optional(table: pd.DataFrame, column: str, default: str) -> pd.Series:
    given = table[column].fillna("").astype(str) if column in table else pd.Series("", index=table.index)
    return given.where(given != "", default)


def _phase_problems(
    made: pd.DataFrame, table: pd.DataFrame, phases: Sequence[str], samples: pd.DataFrame | None
) -> list[tuple[str, Problem]]:
    """Phases that the run does not know, samples of two patients or phases, samples that are others in the design."""
    problems = []

    def fault(at: Any, column: str, value: str, expected: str, mend: str, sample: str = "") -> None:
        problem = Problem(column, value, expected, mend, int(table.at[at, long_table.ROW]), sample)
        problems.append((str(table.at[at, long_table.FILE]), problem))

    for phase, part in made[made[keys.PHASE] != ""].groupby(keys.PHASE, sort=True):
        if phase not in phases:
            near = design.nearest(str(phase), phases)
            mend = f"Write {near}" if near else "Correct it, or add the phase to the phase table"
            fault(part.index[0], keys.PHASE, f"{str(phase)!r} in {len(part)} rows", ", ".join(phases), mend)
    known = {} if samples is None else samples.set_index(keys.SAMPLE)[[keys.PATIENT, keys.PHASE]].to_dict("index")
    for sample, part in made[made[keys.SAMPLE] != ""].groupby(keys.SAMPLE, sort=True):
        for column in (keys.PATIENT, keys.PHASE):
            words = sorted(set(part[column]) - {""})
            if len(words) > 1:
                odd = part.index[part[column] == words[1]][0]
                fault(odd, column, f"{' and '.join(words)}", f"one {column} per sample", "Correct one of them", str(sample))
            elif words and sample in known and words[0] != known[sample][column]:
                expected = f"{known[sample][column]}, as in the samplesheet"
                fault(part.index[0], column, words[0], expected, "Correct it, or name the sample differently", str(sample))
    return problems


def _kind_problems(made: pd.DataFrame, table: pd.DataFrame) -> list[tuple[str, Problem]]:
    """Fills in the kind of every marker; kinds that are unknown or differ within a marker, values beyond their kind."""
    problems = []
    files = table[long_table.FILE]
    large = set(files[made["value"] > 1])
    for marker, part in made.groupby("marker", sort=True):
        words = sorted(set(part["kind"]) - {""})
        at = part.index[0]
        if len(words) > 1 or (words and words[0] not in KINDS):
            at = part.index[part["kind"] == words[-1]][0]
            fault = Problem("kind", f"marker {marker}: {', '.join(words)}", f"one of {', '.join(KINDS)} per marker",
                            "Write the same known word in all rows of the marker", int(table.at[at, long_table.ROW]))  # fmt: skip
            problems.append((str(table.at[at, long_table.FILE]), fault))
            continue
        within = bool(part["value"].between(0, 1).all())
        kind = words[0] if words else SHARE if within else INTENSITY
        made.loc[part.index, "kind"] = kind
        for name, own in part.groupby(files.loc[part.index], sort=True):
            if not words and own["value"].between(0, 1).all() and (name in large or not within):
                other = "others of the table" if name in large else "those of another table"
                fault = Problem("kind", f"marker {marker}: empty, its values lie within 0 and 1, {other} do not",
                                f"one of {', '.join(KINDS)}", "Write it: shares and percentages below 1 look the same",
                                int(table.at[own.index[0], long_table.ROW]))  # fmt: skip
                problems.append((str(name), fault))
        if kind == INTENSITY:
            continue
        for odd in part.index[~part["value"].between(0, KINDS[kind]) & part["value"].notna()]:
            mend = "Write percent in the column kind" if kind == SHARE else "Correct the value"
            fault = Problem("value", f"marker {marker}: {part.at[odd, 'value']:g}", f"a {kind} within 0 and {KINDS[kind]:g}",
                            mend, int(table.at[odd, long_table.ROW]))  # fmt: skip
            problems.append((str(table.at[odd, long_table.FILE]), fault))
    return problems


def transformed(values: np.ndarray, kind: str) -> np.ndarray:
    """arcsin(sqrt(share)) of shares and percentages, which evens out their spread; intensities as they are."""
    values = np.asarray(values, dtype=float)
    return values if kind == INTENSITY else np.arcsin(np.sqrt(values / KINDS[kind]))


def sample_values(table: pd.DataFrame) -> pd.DataFrame:
    """staining_values.tsv: one row per marker and sample; the value is the mean of the means of its sections."""
    rows = []
    for (marker, sample), part in table.groupby(["marker", keys.SAMPLE], sort=True):
        values = part["value"].to_numpy(dtype=float)
        quartiles = np.percentile(values, [0, 25, 50, 75, 100])
        first = part.iloc[0]
        few = len(values) < MIN_FIELDS
        rows.append(
            {
                "marker": marker, "gene": first["gene"], "kind": first["kind"], keys.PATIENT: first[keys.PATIENT],
                keys.SAMPLE: sample, keys.PHASE: first[keys.PHASE], "n_sections": part["section"].nunique(),
                "n_fields": len(values), "n_cells": part["n_cells"].sum(min_count=1),
                "value": part.groupby("section", sort=True)["value"].mean().mean(),
                "sd": values.std(ddof=1) if len(values) > 1 else np.nan,
                **dict(zip(("min", "q1", "median", "q3", "max"), quartiles, strict=True)),
                "status": keys.WARNING if few else keys.OK, "reason": "1 field: its spread is unknown" if few else "",
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(VALUE_COLUMNS))


# --- tests


def _row(contrast: str, unit: str, test: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TEST_COLUMNS, np.nan)
    row.update(dict.fromkeys(("marker", "gene", keys.PATIENT, "adjust_method", "effect_name", "groups", "reason"), ""))
    row.update(contrast=contrast, unit=unit, test=test, transform=AS_MEASURED, status=keys.OK)
    return row


def contrasts_of(samples: pd.DataFrame, phases: pd.DataFrame) -> list[comparison.Contrast]:
    """The contrasts between phases that the stained samples allow, named and paired as those of CHECK_DESIGN.

    Parameters
    ----------
    samples
        sample, patient, phase of the stained samples, one row each.
    phases
        phases.tsv.
    """
    only = samples[[keys.SAMPLE, keys.PATIENT, keys.PHASE]]
    found = design.default_contrasts(only, phases)
    return comparison.contrasts(design.contrast_table(found, only, "auto", comparison.LIMITED_FROM))


def patient_rows(mine: pd.DataFrame, contrasts: Sequence[comparison.Contrast], phases: Sequence[str]) -> list[dict[str, Any]]:
    """Tests between patients on the values of one marker: rank tests of each contrast, Kruskal-Wallis and Dunn over phases.

    mine: the marker's rows of `sample_values`. Samples of a patient are weighted by cells where every sample tells them.
    """
    values = mine.set_index(keys.SAMPLE)["value"]
    weights = mine.set_index(keys.SAMPLE)["n_cells"]
    counted = bool((weights > 0).all())
    weights = weights if counted else pd.Series(1.0, index=values.index)
    patient_of = dict(zip(mine[keys.SAMPLE], mine[keys.PATIENT], strict=True))
    rows = []
    for contrast in contrasts:
        row = _row(contrast.name, comparison.UNIT_PATIENT, "")
        row.update(comparison.compare(values, weights, contrast, patient_of))
        for column, side in (("mean_a", contrast.samples_a), ("mean_b", contrast.samples_b)):
            row[column] = comparison.by_patient(values, weights, side, patient_of)["value"].mean()
        found = f"{row['n_patients_a']} against {row['n_patients_b']} patients"
        if row["status"] == keys.NO_REPLICATES:
            row["reason"] = f"{found}; {comparison.LIMITED_FROM} a side needed for a test"
        elif row["status"] == keys.NOT_ESTIMABLE:
            row["reason"] = "all values are equal" if min(row["n_patients_a"], row["n_patients_b"]) else f"{found} with a value"
        if not counted:
            row.update(n_cells_a=np.nan, n_cells_b=np.nan)
        rows.append(row)
    by_phase = panels.patient_phase_values(values, weights, mine, phases)
    for found in panels.patient_kruskal(by_phase):
        rows.append({**_row("", "", ""), **{name: value for name, value in found.items() if name in TEST_COLUMNS}})
    return rows


def field_rows(mine: pd.DataFrame, patient: str, phases: Sequence[str], alpha: float) -> list[dict[str, Any]]:
    """Tests over the fields of one patient and marker: analysis of variance, Tukey's pairs, Kruskal-Wallis, Dunn's pairs.

    Parameters
    ----------
    mine
        the fields of the patient and marker.
    phases
        all phases in order; pairs are named later_vs_earlier.

    Phases with fewer than two fields leave the tests; fewer than two phases left: `not_estimable`.
    """
    kind = str(mine["kind"].iloc[0])
    found = {p: mine.loc[mine[keys.PHASE] == p].sort_values(["section", "field", "value"]) for p in phases}
    sizes = {p: len(part) for p, part in found.items() if len(part)}
    groups = {p: part["value"].to_numpy(dtype=float) for p, part in found.items() if len(part) >= MIN_FIELDS}
    lost = ", ".join(f"{p} {n}" for p, n in sizes.items() if n < MIN_FIELDS)
    changed = {p: transformed(values, kind) for p, values in groups.items()}
    transform = AS_MEASURED if kind == INTENSITY else ARCSINE
    told = ";".join(f"{p}={n}" for p, n in sizes.items())

    def row(contrast: str, test: str, transform: str) -> dict[str, Any]:
        made = _row(contrast, UNIT_FIELD, test)
        made.update({keys.PATIENT: patient, "groups": told, "transform": transform, "evidence": keys.SINGLE_PATIENT})
        return made

    anova, rank = row(panels.ALL_PHASES, "anova", transform), row(panels.ALL_PHASES, "kruskal_wallis", AS_MEASURED)
    anova["effect_name"], rank["effect_name"] = "eta_squared", "epsilon_squared"
    rows = [anova]
    note = f"left out, fewer than {MIN_FIELDS} fields: {lost}" if lost else ""
    for one in (anova, rank):
        if note:
            one.update(status=keys.WARNING, reason=note)
    if len(groups) < 2:
        why = f"{len(groups)} phases with {MIN_FIELDS} fields or more, 2 needed ({told})"
        for one in (anova, rank):
            one.update(status=keys.NOT_ESTIMABLE, reason=why)
        return [anova, rank]
    values = list(changed.values())
    total = np.concatenate(values)
    anova.update(df1=len(values) - 1, df2=len(total) - len(values))
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in values)
    spread = within > 1e-24 * max(float(total @ total), 1.0)
    tukey = interval = None
    if spread:
        test = stats.f_oneway(*values)
        effect = 1 - within / float(((total - total.mean()) ** 2).sum())
        anova.update(statistic=float(test.statistic), p_value=float(test.pvalue), effect=effect)
        tukey = stats.tukey_hsd(*values)
        interval = tukey.confidence_interval(1 - alpha)
    else:
        anova.update(status=keys.NOT_ESTIMABLE, reason="the fields of each phase are equal: there is no spread to test against")
    names = list(groups)
    cells = {p: found[p]["n_cells"].sum(min_count=1) for p in names}
    pairs = [(a, b) for i, b in enumerate(names) for a in names[i + 1 :]]
    for a, b in pairs:
        one = row(f"{a}_vs_{b}", "tukey_hsd", transform)
        i, j = names.index(a), names.index(b)
        one.update(
            n_a=len(groups[a]), n_b=len(groups[b]), n_patients_a=1, n_patients_b=1, n_cells_a=cells[a], n_cells_b=cells[b],
            effect=float(changed[a].mean() - changed[b].mean()), mean_a=groups[a].mean(), mean_b=groups[b].mean(),
            effect_name="mean_difference" if transform == AS_MEASURED else "mean_difference_arcsine_root",
        )  # fmt: skip
        if tukey is not None and interval is not None:
            one.update(
                ci_low=float(interval.low[i, j]), ci_high=float(interval.high[i, j]), p_value=float(tukey.pvalue[i, j]),
                p_adjusted=float(tukey.pvalue[i, j]), adjust_method="Tukey",
            )  # fmt: skip
        else:
            one.update(status=keys.NOT_ESTIMABLE, reason="no spread within the phases")
        rows.append(one)
    rank["statistic"], rank["p_value"], rank["effect"] = comparison.kruskal(list(groups.values()))
    if not np.isfinite(rank["p_value"]):
        rank.update(status=keys.NOT_ESTIMABLE, reason="all values are equal")
    rows.append(rank)
    if np.isfinite(rank["p_value"]):
        for record in comparison.dunn(groups).to_dict("records"):
            b, a = record["group_a"], record["group_b"]  # its z is B minus A: the later phase minus the earlier
            one = row(f"{a}_vs_{b}", "dunn", AS_MEASURED)
            one.update(
                n_a=len(groups[a]), n_b=len(groups[b]), n_patients_a=1, n_patients_b=1, n_cells_a=cells[a], n_cells_b=cells[b],
                effect=float(groups[a].mean() - groups[b].mean()), effect_name="mean_difference", statistic=record["z"],
                p_value=record["p_value"], p_adjusted=record["p_adjusted"], adjust_method="BH:pairs",
                mean_a=groups[a].mean(), mean_b=groups[b].mean(), rank_biserial=comparison.rank_biserial(groups[a], groups[b]),
            )  # fmt: skip
            rows.append(one)
    return rows


def mixed_row(mine: pd.DataFrame, contrast: comparison.Contrast, alpha: float) -> dict[str, Any] | None:
    """One contrast over all fields with a random level for each patient (and sample, where a patient has several).

    Parameters
    ----------
    mine
        the fields of one marker.
    contrast
        with two patients a side or more; without fields that repeat within a sample there is nothing to model (None).

    Fitted by restricted likelihood (`mixed_effect`); the fixed effect is tested with t and as many degrees of freedom as patients
    allow: patients minus 2, or pairs minus 1. Balanced data give the t test on patient means.
    """
    side = {**dict.fromkeys(contrast.samples_a, 1.0), **dict.fromkeys(contrast.samples_b, 0.0)}
    part = mine[mine[keys.SAMPLE].isin(list(side))].copy()
    part["side"] = part[keys.SAMPLE].map(side)
    if contrast.paired:
        both = part.groupby(keys.PATIENT)["side"].nunique()
        part = part[part[keys.PATIENT].isin(both.index[both == 2])]
    a, b = part[part["side"] == 1], part[part["side"] == 0]
    n_a, n_b = a[keys.PATIENT].nunique(), b[keys.PATIENT].nunique()
    if min(n_a, n_b) < comparison.LIMITED_FROM or not contrast.testable:
        return None
    if part.groupby(keys.SAMPLE).size().max() < 2:
        return None
    kind = str(part["kind"].iloc[0])
    part["y"] = transformed(part["value"].to_numpy(dtype=float), kind)
    row = _row(contrast.name, comparison.UNIT_PATIENT, MIXED)
    df = n_a - 1 if contrast.paired else part[keys.PATIENT].nunique() - 2
    row.update(
        n_a=a[keys.SAMPLE].nunique(), n_b=b[keys.SAMPLE].nunique(), n_patients_a=n_a, n_patients_b=n_b,
        n_cells_a=a["n_cells"].sum(min_count=1), n_cells_b=b["n_cells"].sum(min_count=1), df1=1, df2=df,
        groups=f"fields {len(a)} and {len(b)}", mean_a=a.groupby(keys.PATIENT)["value"].mean().mean(),
        mean_b=b.groupby(keys.PATIENT)["value"].mean().mean(), evidence=comparison.evidence(n_a, n_b),
        transform=AS_MEASURED if kind == INTENSITY else ARCSINE,
        effect_name="mean_difference" if kind == INTENSITY else "mean_difference_arcsine_root",
    )  # fmt: skip
    if np.ptp(part["y"]) == 0 or df < 1:
        row.update(status=keys.NOT_ESTIMABLE, reason="all values are equal" if df >= 1 else "no degree of freedom is left")
        return row
    effect, se, ratios = mixed_effect(part["y"], part["side"], part[keys.SAMPLE], part[keys.PATIENT])
    if not se > 0:
        row.update(effect=effect, status=keys.NOT_ESTIMABLE, reason="there is no spread to test against")
        return row
    t = effect / se
    half = float(stats.t.ppf(1 - alpha / 2, df)) * se
    row.update(effect=effect, ci_low=effect - half, ci_high=effect + half, statistic=t, p_value=float(2 * stats.t.sf(abs(t), df)))
    # the level of a patient cancels within pairs: there only samples protect against counting fields
    if (ratios[0] if contrast.paired else sum(ratios)) <= LEAST_BETWEEN:
        who = "samples of a patient" if contrast.paired else "patients"
        row.update(status=keys.WARNING, reason=f"{who} do not differ beyond their fields: the model counts fields")
    return row


def mixed_effect(
    y: pd.Series, side: pd.Series, sample: pd.Series, patient: pd.Series
) -> tuple[float, float, tuple[float, float]]:
    """Effect of the side with its standard error in y = a + b side + patient + sample + field, by restricted likelihood.

    Parameters
    ----------
    y, side, sample, patient
        by field; the side (1 or 0) is that of the sample.

    Returns
    -------
    effect, se
        of the side.
    ratios
        variance between samples (of a patient, where some patient has several), and between patients, over that between fields.

    As the side is constant within a sample, means and sizes of samples and the sum of squares within them say all: with variances
    in units of that of fields, the means have the covariance D = diag(1/n) + s + p (s within a sample, p within a patient), and
    -2 log L = (N - 2) log(SSW + r'D^-1 r) + log |D| + log |X'D^-1 X| (Patterson and Thompson 1971). Without patients that have
    several samples both variances are one.
    """
    frame = pd.DataFrame({"y": y, "side": side, "sample": sample, "patient": patient})
    by = frame.groupby("sample", sort=True)
    mean, n = by["y"].mean().to_numpy(), by["y"].size().to_numpy(dtype=float)
    x = np.column_stack([np.ones(len(n)), by["side"].first().to_numpy(dtype=float)])
    owner = by["patient"].first().to_numpy()
    same = (owner[:, None] == owner[None, :]).astype(float)
    several = bool((same.sum(axis=1) > 1).any())
    within = float(((frame["y"] - by["y"].transform("mean")) ** 2).sum())
    freedom = len(frame) - x.shape[1]

    def solve(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
        cover = np.diag(1 / n + ratios[0]) + (same * ratios[1] if several else 0)
        inverse = np.linalg.inv(cover)
        information = x.T @ inverse @ x
        beta = np.linalg.solve(information, x.T @ inverse @ mean)
        rest = mean - x @ beta
        total = within + float(rest @ inverse @ rest)
        # without any spread the likelihood has no bound; a floor keeps its logarithm finite
        fit = freedom * np.log(max(total, 1e-300)) + np.linalg.slogdet(cover)[1] + np.linalg.slogdet(information)[1]
        return beta, np.linalg.inv(information), total, float(fit)

    grid = np.concatenate([[0.0], 10.0 ** np.arange(-2, 3.1, 1.0)])
    starts = [(s, p) for s in grid for p in (grid if several else [0.0])]
    start = min(starts, key=lambda ratios: solve(np.array(ratios))[3])
    # roots as coordinates: the search crosses 0 freely and its square cannot be negative
    found = minimize(
        lambda root: solve(root**2 * np.array([1.0, float(several)]))[3], np.sqrt(start), method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 2000, "initial_simplex": _simplex(np.sqrt(start))},
    )  # fmt: skip
    ratios = found.x**2 * np.array([1.0, float(several)])
    beta, covariance, total, _ = solve(ratios)
    return float(beta[1]), float(np.sqrt(covariance[1, 1] * total / freedom)), (float(ratios[0]), float(ratios[1]))


def _simplex(start: np.ndarray) -> np.ndarray:
    """Three points around a start, far enough apart also where it is 0."""
    step = np.maximum(0.3 * start, 0.05)
    return np.array([start, start + [step[0], 0.0], start + [0.0, step[1]]])


def all_tests(
    table: pd.DataFrame, values: pd.DataFrame, phases: pd.DataFrame, unit: str = AUTO, alpha: float = 0.05
) -> pd.DataFrame:
    """staining_tests.tsv.

    Parameters
    ----------
    table, values
        fields, and `sample_values` of them.
    phases
        phases.tsv.
    unit
        `auto`: between patients, and over fields for those patients with several phases of which some pair has too few patients
        for a test; `patient`: never over fields; `field`: always over fields as well.
    """
    order = phases.sort_values("order", kind="stable")["phase"].astype(str).tolist()
    samples = values[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].drop_duplicates().sort_values(keys.SAMPLE)
    made = []
    for marker, mine in table.groupby("marker", sort=True):
        own = values[values["marker"] == marker]
        stained = samples[samples[keys.SAMPLE].isin(own[keys.SAMPLE])]
        contrasts = contrasts_of(stained, phases)
        rows = patient_rows(own, contrasts, order)
        tested = {row["contrast"] for row in rows if np.isfinite(row["p_value"])}
        rows += [row for contrast in contrasts if (row := mixed_row(mine, contrast, alpha)) is not None]
        for patient, part in mine.groupby(keys.PATIENT, sort=True):
            here = [p for p in order if p in set(part[keys.PHASE])]
            pairs = {f"{a}_vs_{b}" for i, b in enumerate(here) for a in here[i + 1 :]}
            alone = samples[keys.PATIENT].nunique() == 1
            if (len(here) > 1 or alone) and unit != comparison.UNIT_PATIENT and (unit == UNIT_FIELD or alone or pairs - tested):
                rows += field_rows(part, str(patient), order, alpha)
        gene = str(mine["gene"].iloc[0])
        made += [{**row, "marker": marker, "gene": gene} for row in rows]
    return adjusted(made)


def adjusted(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table; BH over markers within contrast, unit, test and patient, except for pairs adjusted among themselves."""
    frame = pd.DataFrame(list(rows), columns=list(TEST_COLUMNS))
    for column in ("p_value", "p_adjusted"):
        frame[column] = frame[column].astype(float)
    open_ = frame["adjust_method"].fillna("") == ""
    for _, part in frame[open_].groupby(["contrast", "unit", "test", keys.PATIENT], sort=False):
        frame.loc[part.index, "p_adjusted"] = comparison.adjust(part["p_value"])
    frame.loc[open_, "adjust_method"] = "BH:markers"
    return frame


# --- concordance with transcripts


def sign(value: float) -> str:
    """up, down, or nothing."""
    return "" if not np.isfinite(value) or value == 0 else "up" if value > 0 else "down"


def concordance(tests: pd.DataFrame, rna: pd.DataFrame) -> pd.DataFrame:
    """staining_concordance.tsv: the sign of each change of a protein against that of its transcript (TRACK_PANELS).

    Parameters
    ----------
    tests
        staining_tests.tsv; patient-level rows of contrasts, and Tukey's pairs over fields.
    rna
        panel_tests.tsv; its rows between patients on the mean, in tumour cells where the panel has them, else in the first cell
        type by name.
    """
    if tests.empty:
        return pd.DataFrame(columns=list(CONCORDANCE_COLUMNS))
    patient = (tests["unit"] == comparison.UNIT_PATIENT) & ~tests["test"].isin([MIXED, "kruskal_wallis", "dunn"])
    over_fields = (tests["unit"] == UNIT_FIELD) & (tests["test"] == "tukey_hsd")
    known: dict[tuple[str, str], dict[str, Any]] = {}
    if len(rna):
        mine = rna[(rna["unit"] == comparison.UNIT_PATIENT) & (rna["measure"] == "mean")]
        mine = mine[~mine["test"].isin(["kruskal_wallis", "dunn"])]
        mine = mine.assign(later=(mine["cell_type"] != keys.TUMOUR).astype(int), value=pd.to_numeric(mine["effect"]))
        mine = mine[mine["value"].notna()].sort_values(["later", "cell_type", "panel"], kind="stable")
        for record in mine.to_dict("records"):
            known.setdefault((str(record["gene"]).upper(), str(record["contrast"])), record)
    rows = []
    for record in tests[patient | over_fields].to_dict("records"):
        found = known.get((str(record["gene"]).upper(), record["contrast"]))
        protein, transcript = sign(float(record["effect"])), sign(float(found["value"])) if found else ""
        agree = "" if not protein or not transcript else keys.YES if protein == transcript else keys.NO
        reason = "" if found else "the transcript was not compared in this contrast"
        if found and not protein:
            reason = "the protein has no change to compare"
        rows.append(
            {
                "marker": record["marker"], "gene": record["gene"], "contrast": record["contrast"],
                keys.PATIENT: record[keys.PATIENT], "unit": record["unit"], "effect_protein": record["effect"],
                "sign_protein": protein, "cell_type": found["cell_type"] if found else "",
                "effect_rna": found["value"] if found else np.nan, "sign_rna": transcript, "agree": agree,
                "evidence_protein": record["evidence"], "evidence_rna": found["evidence"] if found else "", "reason": reason,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(CONCORDANCE_COLUMNS))
