"""Chapter of the report: which early tumour cells of a patient resemble the later ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scresist import keys, report
from scresist.layout import Chapter, Context, Heat, Section, by_patient, empty, items, patients_without, picture
from scresist.report import Col, count, esc, is_missing, listing, number, percent, to_number

STEP = "map_fates"
FOLDER = "04_microenvironment/fates/<patient>"
DATA, CONTROL = "data", "permuted_labels"
DIRECTION, RESEMBLANCE, PROBABILITY = "direction", "resemblance", "fate_probability"
ALPHA = 0.05
MOST_GROUPS = 40  # rows or columns of the heat map
LIMITS = (
    "A biopsy is a snapshot. No cell was seen twice, so nothing here says what a cell became; a line between two phases joins"
    " cells that look alike.",
    "Two biopsies of one patient differ in place, handling and depth of sequencing as well as in time. The null permutes the"
    " phases of cells within one biopsy set and cannot remove such differences: a group can resemble the later biopsy for any of"
    " these reasons.",
    "Cells of a clone that is not found later have no counterpart. Whether they died, were missed, or gained further events"
    " cannot be told from these data.",
    "Transport lets mass be lost and made at a price, because clones grow and recede; no rate of growth was given or estimated.",
    "p values count cells of one patient. Two or three biopsies of one patient can suggest a question for other patients; they"
    " cannot answer it.",
)
MEASURES = {
    DIRECTION: "direction along",
    RESEMBLANCE: "resemblance of",
    PROBABILITY: "share towards",
}
KINDS = {"order": "", "cytotrace_third": "CytoTRACE", "epi_cluster": "state", "clone": "clone"}


def fates(context: Context) -> Chapter:
    """Per patient with two or more phases: resemblance to the later phase beside its null, couplings, states, genes."""
    tables = context.tables
    tests = by_patient(tables.of_units("fate_tests", keys.PATIENT))
    couplings = by_patient(tables.of_units("couplings", keys.PATIENT))
    macro = by_patient(tables.of_units("macrostates", keys.PATIENT))
    drivers = by_patient(tables.of_units("fate_drivers", keys.PATIENT))
    rows = context.status[context.status["step"] == STEP]
    data = _named(tests[tests["control"] == DATA]) if "control" in tests else tests
    control = _named(tests[tests["control"] == CONTROL]) if "control" in tests else tests
    done = list(dict.fromkeys(tests["patient"])) if "patient" in tests else []
    nothing = "no patient has tumour cells in two phases on the time axis: " + (_why(rows) or context.why(STEP))
    value = [
        Col("patient", "patient"),
        Col("from_to", "phases"),
        Col("what", "quantity"),
        Col("n_cells", "cells", "int", "cells of the earlier phase"),
        Col("value", "value", "num", "log2 ratio; slope per sd of the order; or probability"),
        Col("null_low", "null from", "num", "2.5 % of the values under permuted phases"),
        Col("null_high", "to", "num", "97.5 % of the values under permuted phases"),
        Col("p_value", "p", "p", "two-sided, (b + 1)/(B + 1)"),
        Col("p_adjusted", "adjusted p", "p", "Benjamini-Hochberg over groups and pairs of phases"),
        Col("spearman", "Spearman", "num", "of resemblance and order, for the direction", 2),
        Col("evidence", "evidence", help="cell_level: exploratory, cells of one patient are not independent"),
        Col("status", "status", "status"),
    ]
    return Chapter(
        "fates",
        "Which early tumour cells resemble the late ones",
        _intro(data, macro, rows, done),
        [
            Section(
                "sc_fates_cells",
                "Cells of each patient",
                "The same cells four times, each dot one tumour cell: by phase; by CytoTRACE (1 early, 0 differentiated, read"
                " from how many genes a cell expresses); by resemblance to the last phase (orange more, violet less than the"
                " other cells of the clone, grey: last phase or no counterpart); by the terminal state a cell resembles most.",
                _pictures(context, done, nothing),
            ),
            Section(
                "sc_fates_tests",
                "Resemblance to the later phase, beside its null",
                "Direction: does resemblance change along CytoTRACE or pseudotime (below 0: towards low values). Resemblance:"
                " mean of a group against the other cells of the same clones, 0 = no difference. Share: mean probability of a"
                " terminal state. Each value stands beside the range that permuted phases give; the smallest p comes first.",
                report.table(_strongest_first(data), value, f"{FOLDER}.fate_tests.tsv", context.max_rows, nothing),
            ),
            Section(
                "sc_fates_control",
                "Control: permuted phases taken as data",
                "The same quantities for one fixed permutation of the phases. They should lie within the null; one in twenty p"
                " values below 0.05 is what chance gives.",
                _control_line(control)
                + report.table(_strongest_first(control), value, f"{FOLDER}.fate_tests.tsv", context.max_rows, nothing),
            ),
            Section(
                "sc_fates_clones",
                "Coupling of clones between first and last phase",
                "Rows: clones in the first phase, columns: clones in the last phase of the same patient; the colour is the share"
                " of the patient's coupled mass. Mass beside the diagonal changes clone: that happens only for clones that are"
                " not found in both phases.",
                "" if _clone_map(couplings) else empty(nothing if couplings.empty else "no patient has clones in both phases"),
                _clone_map(couplings),
            ),
            Section(
                "sc_fates_couplings",
                "Mass that changes clone or state",
                "One row per pair of phases. `used` couples every clone with itself where it is found in both phases; `free`"
                " ignores clones: what would change clone then says how far expression alone fails to tell the clones apart.",
                report.table(
                    _changed(couplings),
                    [
                        Col("patient", "patient"),
                        Col("from_to", "phases"),
                        Col("coupling", "coupling"),
                        Col("group_kind", "groups"),
                        Col("n_groups", "groups", "int"),
                        Col("mass_changed", "mass that changes group", "share", "share of the coupled mass", 1),
                        Col("status", "status", "status"),
                    ],
                    f"{FOLDER}.couplings.tsv (every pair of groups)",
                    context.max_rows,
                    nothing,
                ),
            ),
            Section(
                "sc_fates_states",
                "States of the last phase",
                "Groups in which a walk over similar cells of the last phase stays. A state is terminal when it keeps its cells"
                " with probability 0.96 or more; that none is, is a result: the last phase is then one cloud without ends.",
                report.table(
                    macro,
                    [
                        Col("patient", "patient"),
                        Col("state", "state"),
                        Col("terminal", "terminal", "bool"),
                        Col("n_cells", "cells", "int", "cells of the last phase that belong to it most"),
                        Col("stability", "stability", "num", "probability to stay in one step of the coarse chain", 3),
                        Col("top_clone", "largest clone"),
                        Col("top_clone_share", "share", "share"),
                        Col("top_epi_cluster", "largest expression state"),
                        Col("top_epi_cluster_share", "share", "share"),
                        Col("top_subtype", "largest subtype"),
                        Col("top_module", "highest module"),
                        Col("top_module_z", "by", "num", "sd of all tumour cells of the patient", 2),
                    ],
                    f"{FOLDER}.macrostates.tsv",
                    context.max_rows,
                    "no state was found in any patient" if done else nothing,
                ),
            ),
            Section(
                "sc_fates_drivers",
                "Genes of early cells that resemble the late ones (exploratory)",
                "Correlation, over the cells of the first phase and within clones, of a gene's expression with the resemblance to"
                " the last phase (`later`) or with the probability of a terminal state. Correlated is not driving; one patient.",
                report.table(
                    _few(drivers),
                    [
                        Col("patient", "patient"),
                        Col("fate", "towards"),
                        Col("gene", "gene"),
                        Col("correlation", "correlation", "num", "Pearson, within clones", 2),
                        Col("ci_low", "95 % from", "num", "Fisher's interval over cells", 2),
                        Col("ci_high", "to", "num", "Fisher's interval over cells", 2),
                        Col("n_cells", "cells", "int"),
                        Col("p_adjusted", "adjusted p", "p", "Benjamini-Hochberg over all genes"),
                        Col("evidence", "evidence", help="cell_level: exploratory"),
                    ],
                    f"{FOLDER}.fate_drivers.tsv",
                    context.max_rows,
                    "no gene could be correlated" if done else nothing,
                ),
            ),
            Section(
                "sc_fates_limits",
                "What two or three biopsies can and cannot say",
                "Read this before quoting a figure of this chapter.",
                items(LIMITS),
            ),
            patients_without(
                context, STEP, ("sc_fates_without", "Patients without fates"), "Why nothing was mapped, or what limits it.",
                rows, "tumour cells", "fates were mapped in every patient without a remark",
            ),
        ],
    )


def _named(tests: pd.DataFrame) -> pd.DataFrame:
    """With the phases and the quantity in words."""
    what = [
        " ".join(
            part for part in (MEASURES.get(r["measure"], r["measure"]), KINDS.get(r["group_kind"], ""), _text(r["group"])) if part
        )
        + (f" ({_text(r['fate'])})" if r["measure"] == PROBABILITY else "")
        for r in tests.to_dict("records")
    ]
    return tests.assign(from_to=tests["phase_from"] + " to " + tests["phase_to"], what=what)


def _text(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _strongest_first(tests: pd.DataFrame) -> pd.DataFrame:
    """Within a patient the smallest p first, directions before groups; rows without p last."""
    if tests.empty:
        return tests
    p = pd.to_numeric(tests["p_adjusted"], errors="coerce").fillna(2.0)
    place = tests["measure"].map({DIRECTION: 0, RESEMBLANCE: 1, PROBABILITY: 2}).fillna(3)
    return by_patient(tests.assign(_p=p, _m=place).sort_values(["_p", "_m"], kind="stable").drop(columns=["_p", "_m"]))


def _beyond(tests: pd.DataFrame) -> pd.DataFrame:
    return tests[pd.to_numeric(tests["p_adjusted"], errors="coerce") < ALPHA] if len(tests) else tests


def _control_line(control: pd.DataFrame) -> str:
    """How many p values of the control fall below 0.05, in words."""
    p = pd.to_numeric(control["p_value"], errors="coerce").dropna() if "p_value" in control else pd.Series(dtype=float)
    if p.empty:
        return ""
    low, left = int((p < ALPHA).sum()), len(_beyond(control))
    return items(
        [
            f"{low} of {count(len(p), 'p value')} of the control lie below 0.05 ({percent(low, len(p))}); {left} after"
            " adjustment. Rows of one patient share their cells, so that they fall together."
        ]
    )


def _changed(couplings: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of phases, coupling and kind of group."""
    if couplings.empty:
        return couplings
    found = couplings.drop_duplicates(["patient", "phase_from", "phase_to", "coupling", "group_kind"]).copy()
    sizes = couplings.groupby(["patient", "phase_from", "phase_to", "coupling", "group_kind"], sort=False)["group_from"].nunique()
    index = list(zip(*(found[n] for n in ("patient", "phase_from", "phase_to", "coupling", "group_kind")), strict=True))
    found["n_groups"] = [sizes[key] for key in index]
    found["from_to"] = found["phase_from"] + " to " + found["phase_to"]
    return found


def _ends(couplings: pd.DataFrame) -> pd.DataFrame:
    """The used couplings of clones between the first and the last phase of each patient."""
    if couplings.empty:
        return couplings
    mine = couplings[(couplings["coupling"] == "used") & (couplings["group_kind"] == "clone")]
    parts = []
    for _, part in mine.groupby("patient", sort=False):
        first = part["phase_from"].iloc[0]  # pairs stand in order: successive ones, then first and last
        last = part["phase_to"].iloc[-1]
        parts.append(part[(part["phase_from"] == first) & (part["phase_to"] == last)])
    return pd.concat(parts, ignore_index=True) if parts else mine


def _clone_map(couplings: pd.DataFrame) -> Heat | None:
    """Clones of the first phase against clones of the last phase, all patients; other patients' fields stay empty."""
    found = _ends(couplings)
    if found.empty:
        return None
    found = found.assign(row=found["group_from"] + " " + found["phase_from"], column=found["group_to"] + " " + found["phase_to"])
    rows, columns = (list(dict.fromkeys(found[name]))[:MOST_GROUPS] for name in ("row", "column"))
    mass = {(r["row"], r["column"]): to_number(r["mass"]) for r in found.to_dict("records")}
    values = [[None if (m := mass.get((r, c))) is None else float(f"{m:.3g}") for c in columns] for r in rows]
    return Heat(
        values, [esc(c) for c in columns], [esc(r) for r in rows], "Coupled mass between clones", "clone in the last phase",
        "clone in the first phase", "share of the patient's mass",
    )  # fmt: skip


def _few(drivers: pd.DataFrame, most: int = 8) -> pd.DataFrame:
    """The strongest genes of each sign per patient and fate."""
    if drivers.empty:
        return drivers
    rank = pd.to_numeric(drivers["rank"], errors="coerce")
    return drivers[rank.abs() <= most]


def _pictures(context: Context, patients: list[str], nothing: str) -> str:
    """The picture of each patient that was mapped."""
    drawn = context.tables.pictures("fates")
    shown = [patient for patient in patients if patient in drawn]
    if not shown:
        return empty(nothing)
    alt = "tumour cells by phase, CytoTRACE, resemblance to the last phase and fate"
    html = "".join(f"<h4>{esc(p)}</h4>" + picture(drawn[p], f"{p}: {alt}") for p in shown[: context.max_rows])
    left = len(shown) - context.max_rows
    return html + (empty(f"{left} more as files: {FOLDER}.fates.png") if left > 0 else "")


def _why(rows: pd.DataFrame) -> str:
    words = rows["status"].value_counts().sort_index()
    return listing([f"{word} in {count(int(n), 'patient')}" for word, n in words.items()])


def _intro(data: pd.DataFrame, macro: pd.DataFrame, rows: pd.DataFrame, done: list[str]) -> str:
    """What a clinician reads first."""
    text = (
        "Some tumour cells of the first biopsy may already look like those that are there when the tumour has become resistant."
        " Where a patient was biopsied more than once, each tumour cell is compared with the tumour cells of the later biopsies,"
        " within its own clone, and the question is whether some groups of early cells resemble the late ones more than chance"
        " gives. Resembling is all that can be said: no cell was followed."
    )
    if done:
        text += f" {count(len(done), 'patient')} could be compared."
    elif len(rows):
        text += f" In this run no patient could be compared ({_why(rows)})."
    lines = [_story(patient, data[data["patient"] == patient], macro) for patient in done]
    return f"<p>{esc(text)}</p>" + (items(lines) if lines else "")


def _story(patient: str, tests: pd.DataFrame, macro: pd.DataFrame) -> str:
    """One sentence per patient about its first and last phase, with numbers."""
    first, last = tests["phase_from"].iloc[0], tests["phase_to"].iloc[-1]
    ends = tests[(tests["phase_from"] == first) & (tests["phase_to"] == last)]
    told = [_finding(row, first, last) for row in _strongest_first(_beyond(ends)).to_dict("records")]
    text = f"{patient}, {first} against {last}: "
    text += "; ".join(told[:3]) if told else f"no group of {first} cells resembles the {last} cells beyond the null"
    mine = macro[macro["patient"] == patient] if "patient" in macro else macro
    n_ends = int((mine["terminal"].str.lower() == "true").sum()) if len(mine) else 0
    text += f"; {count(n_ends, 'terminal state')} of the {last} cells" if n_ends else f"; the {last} cells have no terminal state"
    return text + " (exploratory: cells, one patient)."


def _finding(row: Mapping[str, Any], first: str, last: str) -> str:
    value, centre = to_number(row["value"]) or 0.0, to_number(row["null_mean"]) or 0.0
    null = f"{number(row['value'])}, permuted phases {number(row['null_low'])} to {number(row['null_high'])}"
    null += f", p {number(row['p_value'])}"
    more = value > centre
    if row["measure"] == DIRECTION:
        if row["group"] == "cytotrace":
            who = f"{'less' if more else 'more'} differentiated {first} cells (CytoTRACE)"
        else:
            who = f"{first} cells {'further from' if more else 'nearer to'} the root of the pseudotime"
        return f"{who} resemble the {last} cells more (slope {null})"
    who = f"{first} cells of {KINDS.get(str(row['group_kind']), '')} {_text(row['group'])}"
    if row["measure"] == RESEMBLANCE:
        return f"{who} resemble the {last} cells {'more' if more else 'less'} than others (log2 ratio {null})"
    return f"{who} resemble {_text(row['fate'])} {'more' if more else 'less'} (probability {null})"
