"""Chapter of the report: what the changed genes do (gene sets) and which pathways are active."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from scresist import keys, report
from scresist.layout import Bar, Chapter, Context, Heat, Section, empty, items, picture
from scresist.report import Col, count, esc, listing, natural, number

FOLDER = "03_tumour/enrichment"
LEVEL = 0.05
CLAIMS = (keys.REPLICATED, keys.LIMITED)
TUMOUR = "tumour"
PROGENY = "progeny"
MOST_SENTENCES = 8
SETS_PER_SENTENCE = 3
MOST_HEAT_ROWS = 40
WITHOUT_WORDS = {"epi_clusters": "tumour states", "modules": "modules"}


def enrichment(context: Context) -> Chapter:
    """Gene sets at the ends of rankings and in lists of genes; activity of pathways per sample and its tests."""
    groups = context.tables.of_units("enrichment_groups", "unit")
    gsea, ora = context.tables.of_units("gsea_top", "unit"), context.tables.of_units("ora_top", "unit")
    scored, tests = context.tables.get("activity"), context.tables.get("activity_tests")
    return Chapter(
        "sc_enrichment",
        "Pathways and gene sets",
        _intro(groups, gsea, tests),
        [
            _numbers_section(context, groups),
            _pictures(
                context, "dots", "enrichment_dots", "Gene sets over groups",
                "One picture per comparison. Rows are gene sets, columns cell types, states or modules. Upper part: colour ="
                " normalised enrichment score (orange-red: at the high end of the ranking, blue: at the low end). Lower"
                " part: colour = how many times as many of the chosen genes as expected lie in the set (up or down). The"
                " larger the dot, the smaller the adjusted p; a dark rim marks values below 0.05.",
            ),
            _pictures(
                context, "running", "running_sum", "Running sums of the strongest sets",
                "The curve walks down the ranking from the gene with the highest score to the one with the lowest: it rises"
                " at each gene of the set (marks below) and falls at every other gene. A peak near the left end means that"
                " the set is high on side A, a trough near the right end that it is low. Without enrichment the curve stays"
                " close to zero.",
            ),
            _gsea_section(context, gsea),
            _ora_section(context, ora),
            _activity_section(context, scored),
            _tests_section(context, tests),
        ],
    )  # fmt: skip


def nice(name: object) -> str:
    """A set's name in small letters without the prefix of its collection."""
    words = str(name).split("_")
    return " ".join(words[1:] if len(words) > 1 and words[0].isupper() else words).lower()


def _low(frame: pd.DataFrame, column: str = "padj") -> pd.DataFrame:
    """Rows with an adjusted p below 0.05."""
    return frame[pd.to_numeric(frame[column], errors="coerce") < LEVEL] if column in frame else frame.head(0)


def _intro(groups: pd.DataFrame, gsea: pd.DataFrame, tests: pd.DataFrame) -> str:
    """What a reader without bioinformatics takes along."""
    head = (
        "<p>A list of changed genes becomes readable when it is compared with sets of genes known to work together, such as"
        " the genes of cell division or of the response to interferon. This chapter says which sets hold more of the changed"
        " genes than chance gives, and which signalling pathways are active in each sample. A set is a name for its genes:"
        " what is found is that these genes change, not that the process was seen.</p>"
    )
    lines = [*sentences(gsea), *_activity_sentences(tests)]
    if groups.empty:
        lines.append("No list of genes was compared with gene sets.")
    elif not lines:
        lines.append("No gene set of a comparison with at least two patients a side has an adjusted p below 0.05.")
    return head + items(lines)


def sentences(gsea: pd.DataFrame) -> list[str]:
    """One sentence per comparison and direction for the tumour cells, from comparisons between patients only."""
    if gsea.empty:
        return []
    mine = _low(gsea)
    mine = mine[(mine["source"] == "expression") & (mine["group"] == TUMOUR) & mine["evidence"].isin(CLAIMS)]
    lines = []
    for (contrast, direction), part in mine.groupby(["contrast", "direction"], sort=True):
        strength = pd.to_numeric(part["nes"]).abs()
        names = [nice(name) for name in part.assign(_s=-strength).sort_values(["_s", "set"])["set"].head(SETS_PER_SENTENCE)]
        word = "higher" if direction == "up" else "lower"
        evidence = part["evidence"].iloc[0]
        lines.append(f"{contrast}, tumour cells ({evidence}): {word} are the genes of {listing(names)}.")
    return lines[:MOST_SENTENCES]


def _activity_sentences(tests: pd.DataFrame) -> list[str]:
    if tests.empty:
        return []
    known = tests[tests["evidence"].isin(CLAIMS)]
    low = _low(known, "p_adjusted")
    n_tested = int(pd.to_numeric(known["p_value"], errors="coerce").notna().sum())
    lines = [f"Pathway activity between patients: {count(n_tested, 'test')}, {len(low)} with an adjusted p below 0.05."]
    limits = known.assign(_p=pd.to_numeric(known["p_min_attainable"], errors="coerce")).groupby("contrast")["_p"].min()
    blocked = [name for name, least in limits.items() if least > LEVEL]
    if blocked:
        lines.append(f"{listing(blocked)}: with so few patients no test can give p below 0.05; read the effects.")
    return lines


def _order(names: Sequence[str]) -> list[str]:
    """Tumour cells first, then by name."""
    return sorted(names, key=lambda name: (name != TUMOUR, natural(name)))


def _numbers_section(context: Context, groups: pd.DataFrame) -> Section:
    name, title = "sc_enrichment_numbers", "How many sets were found"
    if groups.empty:
        return Section(name, title, "Not available.", empty("No list of genes was compared: " + _why(context)))
    found = groups.assign(n=pd.to_numeric(groups["n_significant"], errors="coerce").fillna(0))
    found["label"] = found["unit"].astype(str) + " / " + found["group"].astype(str)
    order = sorted(set(found["label"]), key=lambda text: (f" / {TUMOUR}" not in text, natural(text)))
    bars = {}
    for label in order[: context.max_rows]:
        mine = found[found["label"] == label]
        ora = mine[mine["method"] == "ora"].groupby("direction")["n"].sum()
        ranked = mine.loc[mine["method"] == "gsea", "n"].sum()
        bars[label] = {"gsea": int(ranked), "up": int(ora.get("up", 0)), "down": int(ora.get("down", 0))}
    cats = {
        "gsea": ("by ranked genes", "#0072B2"),
        "up": ("by genes that rose", "#D55E00"),
        "down": ("by genes that fell", "#56B4E9"),
    }
    return Section(
        name,
        title,
        "One bar per comparison and group of cells: sets with an adjusted p below 0.05 by each method (ranked genes: GSEA;"
        " genes that rose or fell: over-representation). Similar sets share genes, so their number says little about the"
        " number of processes.",
        plot=Bar(bars, cats, "Gene sets with adjusted p below 0.05", "gene sets"),
        after=report.table(
            groups,
            [
                Col("unit", "comparison"),
                Col("group", "group"),
                Col("evidence", "evidence", help="replicated: 3 or more patients a side; limited: 2; cell_level: exploratory"),
                Col("method", "method"),
                Col("direction", "direction"),
                Col("collection", "collection"),
                Col("query", "chosen genes", "int", "chosen genes that are in any set of the collection"),
                Col("universe", "universe", "int", "tested genes that are in any set of the collection"),
                Col("n_sets", "sets tested", "int"),
                Col("n_significant", "adjusted p < 0.05", "int"),
                Col("status", "status", "status"),
                Col("reason", "remark"),
            ],
            f"{FOLDER}/<unit>.enrichment_groups.tsv",
            context.max_rows,
        ),
    )


def _why(context: Context) -> str:
    """Sentence and reason of the first row of the step, of whatever unit."""
    mine = context.status[context.status["step"] == "enrich_genes"]
    if mine.empty:
        return "no status row was written"
    row = mine.iloc[0]
    return " ".join(str(row[name]) for name in ("sentence", "reason") if not report.is_missing(row[name]))


def _pictures(context: Context, short: str, kind: str, title: str, reading: str) -> Section:
    found = context.tables.pictures(kind)
    if not found:
        return Section(f"sc_enrichment_{short}", title, "Not available.", empty("No picture was drawn: " + _why(context)))
    blocks = [
        f"<h4>{esc(WITHOUT_WORDS.get(unit, unit))}</h4>" + picture(content, f"{title}: {unit}") for unit, content in found.items()
    ]
    return Section(f"sc_enrichment_{short}", title, reading, "".join(blocks))


def _gsea_section(context: Context, gsea: pd.DataFrame) -> Section:
    frame = gsea
    if len(frame):
        place = {group: at for at, group in enumerate(_order(sorted(set(frame["group"]))))}
        frame = frame.assign(_g=frame["group"].map(place), _p=pd.to_numeric(frame["padj"], errors="coerce"))
        frame = frame.assign(_n=-pd.to_numeric(frame["nes"], errors="coerce").abs(), set=[nice(name) for name in frame["set"]])
        frame = frame.sort_values(["_g", "_p", "_n", "set"], kind="stable")
    return Section(
        "sc_enrichment_gsea",
        "Sets at the ends of the rankings",
        "Normalised score above 0: the set's genes are high on side A (or high in the state, module or stratum). p comes"
        " from random gene orders, so its smallest value is bounded by their number; q is the false discovery rate of the"
        " original method. Rows with evidence cell_level or single_patient are exploratory.",
        report.table(
            frame,
            [
                Col("unit", "comparison"),
                Col("group", "group"),
                Col("evidence", "evidence"),
                Col("collection", "collection"),
                Col("set", "gene set"),
                Col("set_size", "genes", "int", "ranked genes of the set"),
                Col("nes", "normalised score", "num", "enrichment score / mean of random sets of that size and sign", 2),
                Col("p", "p", "p"),
                Col("padj", "adjusted p", "p", "Benjamini-Hochberg within group and collection"),
                Col("q_broad", "q", "p"),
                Col("leading_edge", "first genes of the leading edge"),
            ],
            f"{FOLDER}/<unit>.gsea.tsv.gz",
            context.max_rows,
            "no ranking was tested",
        ),
    )


def _ora_section(context: Context, ora: pd.DataFrame) -> Section:
    frame = ora
    if len(frame):
        place = {group: at for at, group in enumerate(_order(sorted(set(frame["group"]))))}
        frame = frame.assign(_g=frame["group"].map(place), _p=pd.to_numeric(frame["p"], errors="coerce"))
        frame = frame.assign(set=[nice(name) for name in frame["set"]]).sort_values(["_g", "_p", "set"], kind="stable")
    return Section(
        "sc_enrichment_ora",
        "Sets in the chosen genes",
        "Chosen genes are those that passed the thresholds of their step, rising and falling ones apart. They are compared"
        " with all genes that were tested and are in any set, not with the whole genome. Times expected: 3 means three times"
        " as many genes of the set among the chosen as chance gives.",
        report.table(
            frame,
            [
                Col("unit", "comparison"),
                Col("group", "group"),
                Col("direction", "direction"),
                Col("evidence", "evidence"),
                Col("collection", "collection"),
                Col("set", "gene set"),
                Col("hits", "chosen genes in it", "int"),
                Col("set_size", "genes", "int"),
                Col("fold", "times expected", "num", digits=1),
                Col("p", "p", "p"),
                Col("padj", "adjusted p", "p"),
                Col("genes", "strongest genes"),
            ],
            f"{FOLDER}/<unit>.ora.tsv.gz",
            context.max_rows,
            "no group has enough chosen genes",
        ),
    )


def centred(scored: pd.DataFrame, cell_type: str, samples: Sequence[str]) -> pd.DataFrame:
    """Sources x samples: score minus the mean of that source over the samples; sources by their spread, the widest first."""
    mine = scored[(scored["cell_type"] == cell_type) & (scored["level"] == "pseudobulk")]
    mine = mine.assign(score=pd.to_numeric(mine["score"], errors="coerce"))
    wide = mine.pivot_table(index="source", columns="sample", values="score")
    wide = wide.reindex(columns=[name for name in samples if name in wide.columns])
    wide = wide.sub(wide.mean(axis=1), axis=0)
    spread = wide.std(axis=1).fillna(0)
    order = sorted(wide.index, key=lambda name: (-spread[name], name))
    return wide.loc[order]


def _activity_section(context: Context, scored: pd.DataFrame) -> Section:
    name, title = "sc_enrichment_activity", "Pathway activity per sample"
    if scored.empty:
        return Section(name, title, "Not available.", empty("No activity: " + context.why("score_activity")))
    networks = sorted(set(scored["network"]), key=lambda text: (text != PROGENY, text))
    mine = scored[scored["network"] == networks[0]]
    sizes = mine.drop_duplicates(["sample", "cell_type"]).assign(n=lambda f: pd.to_numeric(f["n_cells"]))
    by_type = sizes.groupby("cell_type")["n"].sum()
    kind = TUMOUR if TUMOUR in by_type else by_type.sort_index().idxmax()
    wide = centred(mine, kind, context.samples()).head(MOST_HEAT_ROWS)
    if wide.shape[1] < 2:
        text = f"Only {count(wide.shape[1], 'sample')} with enough cells of {kind}: there is nothing to compare it with."
        return Section(name, title, "Not available.", empty(text))
    phase = dict(zip(context.design[keys.SAMPLE], context.design[keys.PHASE], strict=True))
    cells = sizes[sizes["cell_type"] == kind].set_index("sample")["n"]
    columns = [f"{sample} ({phase.get(sample, '')}, n={number(cells.get(sample))})" for sample in wide.columns]
    values = [[None if value != value else round(float(value), 3) for value in row] for row in wide.to_numpy()]
    method = mine["method"].iloc[0]
    return Section(
        name,
        title,
        f"Cells of type {kind}, network {networks[0]}. Each value is the activity score of the sample (t value of a linear"
        f" model, method {method}, on the summed counts of its cells) minus the mean over all samples: above 0 = more active"
        " than on average. Samples stand in the order of the phases, n is the number of cells; the pathways that differ most"
        " stand first.",
        plot=Heat(
            values, columns, list(wide.index), f"Activity in {kind}", "sample (phase, cells)", "pathway", "score minus mean (t)"
        ),
        after=f'<p class="sc-source">All cell types and networks: <code>{FOLDER}/activity.tsv</code></p>',
    )


def _tests_section(context: Context, tests: pd.DataFrame) -> Section:
    frame = tests
    if len(frame):
        effect = -pd.to_numeric(frame["effect"], errors="coerce").abs()
        frame = frame.assign(_p=pd.to_numeric(frame["p_value"], errors="coerce"), _e=effect, _t=frame["cell_type"] != TUMOUR)
        frame = frame[frame["effect"].notna()].sort_values(["_p", "_t", "_e", "source"], kind="stable", na_position="last")
    return Section(
        "sc_enrichment_tests",
        "Activity between the sides of each contrast",
        "One value per patient and side; effect = mean of side A minus mean of side B, in t units. The smallest p that the"
        " number of patients allows stands beside p: where they are equal, no smaller one was possible.",
        report.table(
            frame,
            [
                Col("contrast", "contrast"),
                Col("cell_type", "cell type"),
                Col("source", "pathway or factor"),
                Col("network", "network"),
                Col("level", "from"),
                Col("n_patients_a", "patients A", "int"),
                Col("n_patients_b", "patients B", "int"),
                Col("effect", "difference", "num", "t units", 2),
                Col("ci_low", "95 % from", "num", "t interval of the difference", 2),
                Col("ci_high", "to", "num", digits=2),
                Col("p_value", "p", "p"),
                Col("p_adjusted", "adjusted p", "p"),
                Col("p_min_attainable", "smallest p", "p", "that the number of patients allows"),
                Col("evidence", "evidence"),
                Col("status", "status", "status"),
            ],
            f"{FOLDER}/activity_tests.tsv",
            context.max_rows,
            context.why("score_activity") if tests.empty else "no contrast has cells on both sides",
        ),
    )
