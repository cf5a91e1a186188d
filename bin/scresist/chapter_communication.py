"""Chapter of the report: signals between cell types, and which of them rise or fall between phases."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from scresist import keys, report
from scresist.layout import Bar, Chapter, Context, Heat, Section, empty, items
from scresist.report import Col, count, listing, number, percent, to_number

FOLDER = "04_microenvironment/communication"
STEP = "compare_communication"
ALL_PHASES = "phases"
OTHER = "other:"  # pathway of a pair that the table does not name; flow.py reads it from pair_tables, which loads numba
SIDES = ("#D55E00", "#0072B2")  # side A, side B
CALLED_P = 0.05
TOLD = 3  # pathways per comparison in the sentences
PATHWAYS_SHOWN = 25  # rows of the heat map over phases
BARS_SHOWN = 15  # pathways per comparison
CONTRASTS_SHOWN = 5
MATRICES_SHOWN = 4  # pathways with a map of senders and receivers
TYPES_SHOWN = 12  # senders and receivers of such a map
PAIRS_SHOWN = 30
LIANA_SHOWN = 5  # pairs per sample


def communication(context: Context) -> Chapter:
    """Sentences, shares over phases, ranked changes, senders and receivers, pairs, absent types, LIANA's consensus."""
    title = "Signals between cell types"
    ranknet, by_phase = context.tables.get("ranknet"), context.tables.get("comm_phase")
    drivers = context.tables.get("pathway_drivers")
    if ranknet.empty:
        sections = [
            Section("sc_communication_phases", "Pathways over phases", "Not available.", empty("None: " + context.why(STEP))),
            _absent(context),
            *_liana(context),
        ]
        return Chapter("sc_communication", title, HEAD, sections)
    sections = [
        _phases(context, by_phase),
        *_changes(context, ranknet),
        _tests(context, ranknet),
        *_matrices(by_phase, ranknet),
        _leaders(context, by_phase, ranknet),
        _pairs(context, drivers),
        _absent(context),
        *_liana(context),
    ]
    return Chapter("sc_communication", title, HEAD + items(_told(context, ranknet, drivers)), sections)


HEAD = (
    "<p>Cells talk to each other with molecules that one cell makes (ligands) and another senses (receptors). From which cell"
    " types express both sides of a known pair, this chapter infers who may signal to whom, adds that up per pathway"
    " (<em>information flow</em>), and asks which pathways are stronger in one phase of therapy than in another. It is"
    " inferred from RNA: no contact, no protein and no effect was measured, so read it as a list of what to stain or block"
    " next.</p>"
)


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of pathways with a name, not of single ligands."""
    return frame[~frame["pathway"].astype(str).str.startswith(OTHER)] if len(frame) else frame


def _number(row: pd.Series | dict, name: str) -> float | None:
    return to_number(row.get(name))


def _sides(context: Context, contrast: str) -> tuple[str, str]:
    table = context.tables.get("contrasts")
    if {"contrast", "side_a", "side_b"} <= set(table):
        row = table[table["contrast"] == contrast]
        if len(row):
            return str(row["side_a"].iloc[0]), str(row["side_b"].iloc[0])
    a, _, b = contrast.partition("_vs_")
    return a, b or "the other side"


def _contrasts(ranknet: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(ranknet["contrast"]) if name != ALL_PHASES]


def _lead(drivers: pd.DataFrame, contrast: str, pathway: str, level: str, column: str, sign: float) -> str:
    """The sender or receiver that carries most of a change in its direction."""
    if drivers.empty:
        return ""
    mine = drivers[(drivers["contrast"] == contrast) & (drivers["pathway"] == pathway) & (drivers["level"] == level)]
    deltas = [(to_number(d), name) for d, name in zip(mine["delta"], mine[column], strict=True)]
    fitting = [(abs(d), str(name)) for d, name in deltas if d is not None and d * sign > 0]
    return max(fitting, key=lambda item: (item[0], item[1]))[1] if fitting else ""


def _told(context: Context, ranknet: pd.DataFrame, drivers: pd.DataFrame) -> list[str]:
    """One sentence per comparison and leading change; claims only where patients stand behind them."""
    lines = []
    for contrast in _contrasts(ranknet)[:CONTRASTS_SHOWN]:
        a, b = _sides(context, contrast)
        mine = _named(ranknet[ranknet["contrast"] == contrast])
        claims, looks = [], []
        for row in mine.to_dict("records"):
            effect, cell, equal = (_number(row, name) for name in ("effect", "cell_effect", "cell_effect_equal"))
            if effect is None or cell is None or effect * cell <= 0 or (equal is not None and equal * cell < 0):
                continue  # patients and cells, or all and equal numbers of cells, disagree on the direction
            p, cell_p = _number(row, "p_adjusted"), _number(row, "cell_p_adjusted")
            tested = p is not None and p < CALLED_P and row["evidence"] in report.EVIDENCE_CLAIMS
            sender = _lead(drivers, contrast, row["pathway"], "sender", "source", effect)
            receiver = _lead(drivers, contrast, row["pathway"], "receiver", "target", effect)
            route = f", most of it sent by {sender} and received by {receiver}" if sender and receiver else ""
            text = f"{row['pathway']} {'higher' if effect > 0 else 'lower'}{route}"
            if tested:
                claims.append(f"{text} (adjusted p {number(p)} between patients, {row['evidence']})")
            elif cell_p is not None and cell_p < CALLED_P:
                looks.append(text)
        start = f"{a} against {b}"
        if claims:
            lines.append(f"{start}: {'; '.join(claims[:TOLD])}.")
        if looks:
            lines.append(f"{start}, exploratory (cells of the samples at hand, not patients): {'; '.join(looks[:TOLD])}.")
        if not claims and not looks:
            known = mine["rank"].notna().any() if "rank" in mine else False
            why = "no pathway changed beyond chance" if known else _reason(mine)
            lines.append(f"{start}: {why}.")
    absent = context.tables.get("comm_absent")
    gone = absent[absent["absent_from_phase"] == keys.YES] if len(absent) else absent
    if len(gone):
        pairs = [f"{t} in {p}" for t, p in dict.fromkeys(zip(gone["cell_type"], gone[keys.PHASE], strict=True))]
        lines.append(f"Too few cells in a whole phase: {listing(pairs)}. Their signals are left out there, not counted as lost.")
    return lines


def _reason(rows: pd.DataFrame) -> str:
    reasons = [r for r in rows["reason"] if not report.is_missing(r)] if "reason" in rows else []
    return f"not comparable ({reasons[0]})" if reasons else "nothing to compare"


def _phases(context: Context, by_phase: pd.DataFrame) -> Section:
    title, id_ = "Pathways over phases", "sc_communication_phases"
    reading = (
        "Rows are pathways, columns phases; the colour is the share of a pathway's information flow that falls to the phase (a"
        " row adds up to 1, even shares mean no change). Only cell types that every sample has are counted, the same in all"
        " columns. An empty row has links only at types that some sample lacks: it cannot be compared, which is no zero."
    )
    mine = _named(by_phase[by_phase["level"] == "pathway"]) if len(by_phase) else by_phase
    phases = [p for p in context.phases() if len(mine) and p in set(mine[keys.PHASE])]
    value = {(r["pathway"], r[keys.PHASE]): to_number(r["share"]) for r in mine.to_dict("records")}
    spread = {}
    for pathway in sorted(set(mine["pathway"])) if len(mine) else []:
        row = [value.get((pathway, p)) for p in phases]
        known = [v for v in row if v is not None]
        spread[pathway] = max(known) - min(known) if known else -1.0
    ranks = context.tables.get("ranknet")
    ranks = ranks[ranks["contrast"] == ALL_PHASES] if len(ranks) else ranks
    place = {p: to_number(r) for p, r in zip(ranks["pathway"], ranks["rank"], strict=True)} if len(ranks) else {}
    order = sorted(spread, key=lambda p: (place.get(p) is None, place.get(p) or 0, -spread[p], p))[:PATHWAYS_SHOWN]
    if not order or not any(value.get((p, phase)) is not None for p in order for phase in phases):
        return Section(id_, title, reading, empty("No phases could be compared: " + context.why(STEP)))
    rows = [[_rounded(value.get((p, phase))) for phase in phases] for p in order]
    unit = "share of the flow (0 to 1)"
    plot = Heat(rows, phases, order, "Share of each pathway's flow", "phase", "pathway, largest change first", unit)
    more = f"The {len(order)} largest changes of {count(len(spread), 'pathway')}; flows: <code>{FOLDER}/comm_phase.tsv</code>"
    return Section(id_, title, reading, plot=plot, after=f'<p class="sc-source">{more}</p>')


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _changes(context: Context, ranknet: pd.DataFrame) -> list[Section]:
    made = []
    for i, contrast in enumerate(_contrasts(ranknet)[:CONTRASTS_SHOWN], start=1):
        a, b = _sides(context, contrast)
        title, id_ = f"Changes, {a} against {b}", f"sc_communication_change_{i}"
        reading = (
            "One bar per pathway, the largest change on top. The bar divides its information flow between the two sides, as"
            " CellChat's ranking does; the middle, 50 %, is no change. A short flow can tip as easily as a long one: the table"
            " below says how large it is and how sure the change is."
        )
        mine = _named(ranknet[(ranknet["contrast"] == contrast) & ranknet["rank"].notna()]).head(BARS_SHOWN)
        bars = {}
        for row in mine.to_dict("records"):
            shares = [_number(row, f"share_{x}") for x in "ab"]
            if None not in shares:
                bars[row["pathway"]] = {x: round(100 * share, 2) for x, share in zip("ab", shares, strict=True)}
        if not bars:
            rows = ranknet[ranknet["contrast"] == contrast]
            made.append(Section(id_, title, reading, empty(f"No pathway could be compared: {_reason(rows)}.")))
            continue
        cats = {"a": (a, SIDES[0]), "b": (b, SIDES[1])}
        made.append(Section(id_, title, reading, plot=Bar(bars, cats, f"Information flow, {a} and {b}", "share of the flow (%)")))
    return made


TEST_COLS = [
    Col("contrast", "contrast"),
    Col("rank", "rank", "int", "by the change over cells, moderated (cell_d)"),
    Col("pathway", "pathway"),
    Col("flow_a", "flow A", "num", "mean over patients, types in common"),
    Col("flow_b", "flow B", "num", "mean over patients, types in common"),
    Col("n_patients_a", "patients A", "int"),
    Col("n_patients_b", "patients B", "int"),
    Col("effect", "A minus B", "num", "difference of flows over patients"),
    Col("p_value", "p, patients", "p", "rank-sum or signed-rank"),
    Col("p_adjusted", "adjusted p, patients", "p"),
    Col("p_min_attainable", "least possible p", "p", "the smallest p that so many patients can give"),
    Col("cell_z", "z, cells", "num", "against cells that change places between the samples (exploratory)", 1),
    Col("cell_p_adjusted", "adjusted p, cells", "p", "exploratory: cells of a patient are no replicates"),
    Col("cellchat_pair_p", "CellChat's paired p", "p", "Wilcoxon over pairs of cell types, which share cells (exploratory)"),
    Col("evidence", "evidence", help="replicated: 3 or more patients a side; limited: 2; single_patient: exploratory"),
    Col("status", "status", "status"),
]


def _tests(context: Context, ranknet: pd.DataFrame) -> Section:
    mine = _named(ranknet[(ranknet["contrast"] != ALL_PHASES)])
    first = mine[[to_number(r) is not None and to_number(r) <= BARS_SHOWN for r in mine["rank"]]]
    return Section(
        "sc_communication_tests",
        "How sure the changes are",
        "Three tests stand side by side because they answer different questions. Patients: would other patients show it? Only"
        " this supports a statement about a phase. Cells: could cells of one and the same mixture, dealt out at random, give such"
        " a difference? A batch effect passes this test too. CellChat's paired test treats pairs of cell types as if they were"
        " independent; it is given to compare with published work.",
        report.table(
            first, TEST_COLS, f"{FOLDER}/ranknet.tsv", max(context.max_rows, len(first)), context.why(STEP), len(ranknet)
        ),
    )


def _headline(ranknet: pd.DataFrame, with_matrix: Sequence[str]) -> list[str]:
    """Pathways for the maps: the best ranked of all comparisons, each comparison in turn."""
    mine = _named(ranknet[ranknet["pathway"].isin(list(with_matrix))])
    keyed = [(to_number(r), i, p) for i, (r, p) in enumerate(zip(mine["rank"], mine["pathway"], strict=True))]
    return list(dict.fromkeys(p for r, _, p in sorted(k for k in keyed if k[0] is not None)))[:MATRICES_SHOWN]


def _matrices(by_phase: pd.DataFrame, ranknet: pd.DataFrame) -> list[Section]:
    if by_phase.empty:
        return []
    cells = by_phase[by_phase["level"] == "types"]
    made = []
    for i, pathway in enumerate(_headline(ranknet, sorted(set(cells["pathway"]))), start=1):
        mine = cells[cells["pathway"] == pathway]
        value = {(r[keys.PHASE], r["source"], r["target"]): to_number(r["flow"]) for r in mine.to_dict("records")}
        weight: dict[str, float] = {}
        for (_, source, target), flow in value.items():
            for name in {source, target}:
                weight[name] = weight.get(name, 0.0) + (flow or 0.0)
        kept = sorted(sorted(weight, key=lambda name: (-weight[name], name))[:TYPES_SHOWN])
        phases = list(dict.fromkeys(mine[keys.PHASE]))
        columns = [(phase, target) for phase in phases for target in kept]
        rows = [[_rounded(value.get((phase, source, target))) for phase, target in columns] for source in kept]
        plot = Heat(
            rows, [f"{phase}: {target}" for phase, target in columns], kept, f"{pathway}: who signals to whom", "phase: receiver",
            "sender", "flow (sum of probabilities)",
        )  # fmt: skip
        reading = (
            "Rows send, columns receive, one block of columns per phase; the colour is the sum of the pathway's probabilities,"
            " mean over the patients of the phase that have both types. Empty fields: no sample of the phase has enough cells of"
            " both, so the signal is not estimable, which is not zero."
        )
        made.append(Section(f"sc_communication_map_{i}", f"Senders and receivers: {pathway}", reading, plot=plot))
    return made


def _leaders(context: Context, by_phase: pd.DataFrame, ranknet: pd.DataFrame) -> Section:
    rows = []
    if len(by_phase):
        over = _named(ranknet[(ranknet["contrast"] == ALL_PHASES) & ranknet["rank"].notna()])
        mine = by_phase[by_phase["level"].isin(["sender", "receiver"])]
        for pathway in over["pathway"].head(PATHWAYS_SHOWN):
            for phase in context.phases():
                part = mine[(mine["pathway"] == pathway) & (mine[keys.PHASE] == phase)]
                if len(part):
                    rows.append(
                        {
                            "pathway": pathway, "phase": phase, "senders": _listed(part[part["level"] == "sender"], "source"),
                            "receivers": _listed(part[part["level"] == "receiver"], "target"),
                        }
                    )  # fmt: skip
    columns = [Col("pathway", "pathway"), Col("phase", "phase"), Col("senders", "senders"), Col("receivers", "receivers")]
    return Section(
        "sc_communication_leaders",
        "Leading senders and receivers",
        "The three types that send and receive most of a pathway in each phase, with their part of its flow. Types with few cells"
        " have noisy averages; look at the cell numbers before naming one.",
        report.table(pd.DataFrame(rows), columns, f"{FOLDER}/comm_phase.tsv", context.max_rows, context.why(STEP)),
    )


def _listed(part: pd.DataFrame, column: str) -> str:
    return ", ".join(f"{r[column]} {percent(to_number(r['share']) or 0.0, 1)}" for r in part.to_dict("records"))


PAIR_COLS = [
    Col("contrast", "contrast"),
    Col("pathway", "pathway"),
    Col("pair", "pair"),
    Col("source", "sender"),
    Col("target", "receiver"),
    Col("delta", "change of probability", "num", "A minus B, mean over patients"),
    Col("ligand_a", "ligand A", "num", "mean ln(1 + counts per 10,000) in the sender; the least of the subunits", 2),
    Col("ligand_b", "ligand B", "num", "mean ln(1 + counts per 10,000) in the sender; the least of the subunits", 2),
    Col("receptor_a", "receptor A", "num", "mean ln(1 + counts per 10,000) in the receiver; the least of the subunits", 2),
    Col("receptor_b", "receptor B", "num", "mean ln(1 + counts per 10,000) in the receiver; the least of the subunits", 2),
]


def _pairs(context: Context, drivers: pd.DataFrame) -> Section:
    mine = _named(drivers[(drivers["level"] == "interaction") & drivers["delta"].notna()]) if len(drivers) else drivers
    if len(mine):
        ranks = context.tables.get("ranknet")
        contrasts = {name: i for i, name in enumerate(_contrasts(ranks))}
        place = {(c, p): to_number(r) for c, p, r in zip(ranks["contrast"], ranks["pathway"], ranks["rank"], strict=True)}
        n = max(1, PAIRS_SHOWN // len(contrasts)) if contrasts else 0
        mine = mine[[to_number(r) == 1 for r in mine["rank"]]]  # the largest of each pathway
        mine = mine.assign(
            at=mine["contrast"].map(contrasts),
            place=[place.get((c, p)) for c, p in zip(mine["contrast"], mine["pathway"], strict=True)],
        )
        mine = mine.sort_values(["at", "place"], kind="stable").groupby("at", sort=False).head(n)
    return Section(
        "sc_communication_pairs",
        "Ligands and receptors behind the changes",
        "The single signal (one ligand-receptor pair from one type to another) that changes most in each of the leading"
        " pathways, with the expression of both sides. A change of probability is only believable when the expression beside it"
        " moves the same way.",
        report.table(
            mine, PAIR_COLS, f"{FOLDER}/pathway_drivers.tsv", PAIRS_SHOWN, context.why(STEP), len(drivers) if len(mine) else None
        ),
    )


def _absent(context: Context) -> Section:
    absent = context.tables.get("comm_absent")
    columns = [
        Col("cell_type", "cell type"),
        Col(keys.SAMPLE, "sample"),
        Col(keys.PHASE, "phase"),
        Col("n_cells", "cells", "int"),
        Col("absent_from_phase", "in no sample of the phase"),
        Col("contrasts", "left out of"),
    ]
    if len(absent):
        place = {phase: i for i, phase in enumerate(context.phases())}
        absent = absent.assign(
            order=absent[keys.PHASE].map(place), whole=absent["absent_from_phase"] != keys.YES,
            contrasts=[str(c).replace(",", ", ") if not report.is_missing(c) else "" for c in absent["contrasts"]],
        )  # fmt: skip
        absent = absent.sort_values(["whole", "order", "cell_type", keys.SAMPLE], kind="stable")
    return Section(
        "sc_communication_absent",
        "Cell types that could not be estimated",
        "A type with too few cells in a sample has no average there. It leaves every comparison that the sample is part of, so"
        " that a type that was not sampled is never read as a signal that was lost.",
        report.table(absent, columns, f"{FOLDER}/comm_absent.tsv", context.max_rows, "every sample could estimate every type"),
    )


def _liana(context: Context) -> list[Section]:
    """LIANA's consensus per sample, where that was run."""
    top = context.tables.of_units("liana_top", keys.SAMPLE)
    if top.empty or not {"source", "target"} <= set(top):
        return []
    first = top.groupby(keys.SAMPLE, sort=False).head(LIANA_SHOWN)
    place = {sample: i for i, sample in enumerate(context.samples())}
    first = first.assign(order=first[keys.SAMPLE].map(place)).sort_values("order", kind="stable")
    columns = [
        Col(keys.SAMPLE, "sample"),
        Col("source", "sender"),
        Col("target", "receiver"),
        Col("ligand", "ligand"),
        Col("receptor", "receptor"),
        Col("magnitude_rank", "rank by strength", "p", "0 to 1 over methods; small is strong"),
        Col("specificity_rank", "rank by specificity", "p", "0 to 1 over methods; small is specific to the two types"),
    ]
    source = f"{FOLDER}/<sample>.liana.tsv.gz"
    return [
        Section(
            "sc_communication_liana",
            "Consensus of several methods",
            f"The {LIANA_SHOWN} strongest signals of each sample by the consensus of the methods in LIANA, which does not use the"
            " pathways above. It ranks within one sample; ranks of two samples are not to be compared.",
            report.table(first, columns, source, max(context.max_rows, len(first)), "", len(top)),
        )
    ]
