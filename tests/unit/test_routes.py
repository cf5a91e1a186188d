"""Rules, votes, words, and planted patients: one per route over 20 seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scresist import clones as clone_kernel
from scresist import comparison, decomposition, keys, panels, routes
from scresist.io import InputError
from scresist.routes import Course, Effect

PHASES = pd.DataFrame(
    {"phase": ["PRE", "RES", "POST", "PRE-R"], "role": ["baseline", "response", "acquired_resistance", "primary_resistance"],
     "order": [1, 2, 3, 4], "time": [0, 1, 2, np.nan]}
)  # fmt: skip
MHC = ["HLA-A", "HLA-B", "B2M"]
SEEDS = range(20)
KINDS = routes.ROUTES


@pytest.fixture(scope="module")
def rules(root):
    return routes.check_rules(pd.read_csv(root / "assets" / "route_rules.tsv", sep="\t", dtype=str, quoting=3), "route_rules.tsv")


def planted_patient(kind: str, seed: int, patient: str = "P1"):
    """Cells and tables of one patient with three biopsies in which one route is true; biopsies differ a little anyway."""
    rng = np.random.default_rng([seed, KINDS.index(kind) if kind in KINDS else 9])
    shares = {"PRE": [0.6, 0.3, 0.1], "RES": [0.6, 0.3, 0.1], "POST": [0.6, 0.3, 0.1]}
    level = {phase: np.array([0.0, 0.2, 0.1]) for phase in shares}
    if kind == KINDS[0]:
        shares |= {"RES": [0.45, 0.15, 0.4], "POST": [0.2, 0.1, 0.7]}
        level = {phase: np.array([0.0, 0.2, 1.5]) for phase in shares}
    if kind == KINDS[1]:
        level = {"PRE": level["PRE"], "RES": level["PRE"] + 0.5, "POST": level["PRE"] + 1.5}
    micro = kind == KINDS[2]
    frames, values, flow, immune = [], [], [], []
    for phase in shares:
        sample, bio = f"{phase}-{patient}", rng.normal(0, 0.02, 8)
        n = 200
        clone = rng.choice(3, size=n, p=shares[phase])
        g2m = 0.05 if kind == KINDS[1] and phase == "RES" else 0.25
        state = np.where(rng.random(n) < 0.6, "0", "1")
        if kind == KINDS[1] and phase == "POST":
            state = np.where(rng.random(n) < 0.4, "2", state)
        tumour = pd.DataFrame(
            {
                keys.MAIN_TYPE: "Epithelial", keys.LINEAGE: "epithelial", keys.TUMOUR: True,
                keys.CLONE: [f"{patient}.C{c + 1}" for c in clone], keys.EPI_CLUSTER: state,
                keys.CYCLE_PHASE: np.where(rng.random(n) < g2m, "G2M", np.where(rng.random(n) < 1.2 * g2m, "S", "G1")),
                keys.G2M_SCORE: rng.normal(size=n), "program": rng.normal(level[phase][clone] + bio[0], 1.0),
            }
        )  # fmt: skip
        # most immune cells are B cells; T and myeloid cells are as many in every biopsy
        share = (0.3 if micro and phase == "POST" else 0.5) + bio[1]
        n_immune = int(rng.binomial(1000, share))
        types = ["CD8_T"] * 120 + ["Macrophage"] * 60
        other = pd.DataFrame(
            {
                keys.MAIN_TYPE: types, keys.LINEAGE: "immune", keys.TUMOUR: False, keys.CLONE: "", keys.EPI_CLUSTER: "",
                keys.CYCLE_PHASE: "", keys.G2M_SCORE: np.nan, "program": np.nan,
            }
        )  # fmt: skip
        part = pd.concat([tumour, other], ignore_index=True)
        part[keys.SAMPLE], part[keys.PATIENT], part[keys.PHASE] = sample, patient, phase
        fall = 0.6 if micro and phase == "POST" else 0.0
        for gene in (*MHC, "CD74"):
            part[gene] = rng.normal(2.0 + bio[2] - fall * part[keys.TUMOUR], 0.7)
        positive = rng.binomial(120, (0.45 if micro and phase == "POST" else 0.2) + bio[3])
        part["PDCD1"] = 0.0
        part.loc[part.index[part[keys.MAIN_TYPE] == "CD8_T"][:positive], "PDCD1"] = 1.0
        values.append(("checkpoint", "PDCD1", "t_cell", sample, patient, phase, 120, 100 * positive / 120))
        frames.append(part)
        values += [("mhc_1", gene, "tumour", sample, patient, phase, n, 100.0) for gene in MHC]
        immune += [(sample, patient, phase, "main_type", "all", "immune", "B", n_immune, 1000),
                   (sample, patient, phase, "main_type", "all", "stromal", "Fibroblast", 1000 - n_immune, 1000)]  # fmt: skip
        for pathway in ("TGFb", "EGF", "FGF", "MHC-I", "MHC-II", "CXCL", "IFN-II"):
            up = pathway in ("TGFb", "EGF", "FGF")
            factor = (2.0 if up else 0.5) if micro and phase == "POST" else 1.0
            amount = factor * np.exp(rng.normal(0, 0.2))
            flow += [(f"{a}_vs_{b}", sample, patient, phase, pathway, amount)
                     for a, b in (("POST", "PRE"), ("RES", "PRE"), ("POST", "RES")) if phase in (a, b)]  # fmt: skip
    cells = pd.concat(frames, ignore_index=True)
    cells.index = [f"{s}:{i:04d}" for i, s in enumerate(cells[keys.SAMPLE])]
    own = cells[cells[keys.TUMOUR]]
    names = sorted(set(own[keys.CLONE]))
    arrays = own[keys.CLONE].to_numpy(dtype=object), own[keys.PHASE].to_numpy(dtype=object)
    phases = list(shares)
    of_phase = clone_kernel.shares(patient, names, *arrays, phases)
    pairs = clone_kernel.phase_pairs(phases, {"PRE": 0, "RES": 1, "POST": 2})
    counts = {p: [int(((arrays[0] == c) & (arrays[1] == p)).sum()) for c in names] for p in phases}
    tables = {
        "clone_phases": of_phase, "clone_changes": clone_kernel.changes(of_phase, pairs, 30, 0.05),
        "clone_diversity": clone_kernel.diversity_table(patient, counts, seed),
        "panel_values": pd.DataFrame(
            values, columns=["panel", "gene", "cell_type", "sample", "patient", "phase", "n_cells", "pct"]
        ),
        "proportions": pd.DataFrame(
            immune, columns=["sample", "patient", "phase", "level", "denominator", "lineage", "cell_type", "n_cells", "n_total"]
        ),
        "flow": pd.DataFrame(flow, columns=["contrast", "sample", "patient", "phase", "pathway", "flow_common"]),
    }  # fmt: skip
    return cells, tables


def evidence_of(parts, n_boot=60):
    """Evidence from the cells and tables of several patients; the program is divided over the whole course."""
    cells = pd.concat([part[0] for part in parts])
    names = {name for _, tables in parts for name in tables}
    tables = {name: pd.concat([t[name] for _, t in parts if name in t], ignore_index=True) for name in names}
    samples = cells[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].drop_duplicates(ignore_index=True)
    patients, cohort, without = routes.courses(samples, PHASES)
    divided = []
    for course in patients:
        own = cells[(cells[keys.PATIENT] == course.unit) & cells[keys.TUMOUR]]
        for later, earlier in [course.steps["total"]]:
            part = own[own[keys.PHASE].isin([later, earlier])]
            divided.append(
                decomposition.table(
                    course.unit, f"{later}_vs_{earlier}", part[["program"]].set_axis(["module_M1"], axis=1), part[keys.CLONE],
                    (part[keys.PHASE] == later).to_numpy(), True, 30, n_boot, 1,
                )
            )  # fmt: skip
    masks = panels.type_masks(cells[keys.MAIN_TYPE].tolist(), cells[keys.LINEAGE].tolist(), cells[keys.TUMOUR].to_numpy())
    genes = [column for column in (*MHC, "CD74", "PDCD1") if column in cells]
    ev = routes.Evidence(
        cells, cells[genes], masks, tables, samples, {"mhc_1": MHC, "mhc_2": ["CD74"]},
        pd.concat(divided, ignore_index=True) if divided else pd.DataFrame(columns=list(decomposition.COLUMNS)),
        program=routes.Program("module_M1", 1, "planted"),
    )  # fmt: skip
    return ev, patients, cohort, dict.fromkeys(without, "one biopsy")


def words_of(ev, patients, cohort, without, rules):
    items = routes.score(ev, rules, patients, cohort, without)
    card = routes.card(items)
    mine = card[(card["kind"] == "route") & (card[keys.PATIENT] != routes.COHORT)]
    return items, dict(zip(mine["route"], mine["word"], strict=True))


def test_planted_routes_are_found(rules):
    own = rules[rules["route"].isin(KINDS)]
    supported = {kind: Counter() for kind in (*KINDS, "none")}
    for seed in SEEDS:
        for kind in supported:
            ev, patients, _, without = evidence_of([planted_patient(kind, seed)])
            _, words = words_of(ev, patients, [], without, own)
            supported[kind].update(route for route, word in words.items() if word == routes.SUPPORTED)
    for kind, found in supported.items():
        if kind in KINDS:
            assert found[kind] == len(SEEDS), (kind, supported)
        others = {route: found[route] for route in KINDS if route != kind}
        assert max(others.values()) <= 0.1 * len(SEEDS), (kind, supported)


def test_items_of_a_planted_patient(rules):
    ev, patients, cohort, without = evidence_of([planted_patient(KINDS[1], 1)])
    items = routes.score(ev, rules, patients, cohort, without)
    mine = items[items[keys.PATIENT] == "P1"].set_index(["route", "item"])
    assert list(items.columns) == list(routes.ITEM_COLUMNS)
    later, before = (ev.cells[ev.cells[keys.TUMOUR] & (ev.cells[keys.PHASE] == p)] for p in ("POST", "PRE"))
    new = mine.loc[("reprogramming", "state_new")]
    assert new["value"] == pytest.approx((later[keys.EPI_CLUSTER] == "2").mean()) and new["vote"] == 1
    low, high = stats.binomtest(int((later[keys.EPI_CLUSTER] == "2").sum()), len(later)).proportion_ci(method="wilson")
    assert new["ci_high"] == pytest.approx(new["value"] + np.hypot(high - new["value"], 0.0), abs=1e-12)
    assert new["ci_low"] < low  # the unseen share before therapy counts too
    persister = mine.loc[("reprogramming", "persister_state")]
    assert persister["step"] == "POST_vs_RES" and persister["vote"] == 1 and "RES_vs_PRE" in persister["reason"]
    values = [frame[MHC].mean(axis=1).to_numpy() for frame in (later, before)]
    welch = stats.ttest_ind(*values, equal_var=False).confidence_interval()
    for item, column in (("antigen_loss", "ci_low"), ("antigen_loss", "ci_high")):
        assert mine.loc[("microenvironment", item), column] == pytest.approx(getattr(welch, column.split("_")[1]))
    assert (mine["evidence"] == keys.SINGLE_PATIENT).all() and (mine["n_samples"].dropna() <= 2).all()
    assert mine.loc[("t_cell_state", "exhaustion"), "status"] == keys.NOT_ESTIMABLE
    assert "tcell_values.tsv is absent" in mine.loc[("t_cell_state", "exhaustion"), "reason"]
    assert mine.loc[("target_loss", "target_expression"), "reason"].startswith("gene_absent")
    assert mine["value"][mine["status"] == keys.NOT_ESTIMABLE].isna().all()
    assert mine["vote"][mine["status"].isin([keys.NOT_ESTIMABLE, keys.NO_REPLICATES])].isna().all()
    assert mine.loc[("pre_existing_clone", "clone_expands"), "source_table"] == "03_tumour/copy_number/P1.clone_changes.tsv"


def test_absent_tables_are_not_estimable(rules):
    cells, tables = planted_patient("none", 1)
    ev, patients, cohort, without = evidence_of([(cells, {"panel_values": tables["panel_values"]})])
    items = routes.score(ev, rules, patients, cohort, without)
    card = routes.card(items)
    one = card[card[keys.PATIENT] == "P1"].set_index("route")
    assert one.loc["pre_existing_clone", "n_not_estimable"] == 3  # selection comes from the cells
    assert one.loc["pre_existing_clone", "word"] == routes.NOT_ASSESSABLE
    reasons = items[items["item"].isin(["immune_share", "suppressive_flow", "clone_expands"])]["reason"]
    assert reasons.str.contains("absent or empty|no patient").all()


def test_cohort_takes_patients_as_the_unit(rules):
    parts = [planted_patient(KINDS[2], seed, f"P{seed}") for seed in range(1, 5)]
    ev, patients, cohort, without = evidence_of(parts)
    assert [course.unit for course in patients] == ["P1", "P2", "P3", "P4"]
    assert [course.contrast for course in cohort] == ["POST_vs_PRE"]
    items = routes.score(ev, rules, patients, cohort, without)
    whole = items[items[keys.PATIENT] == routes.COHORT].set_index("item")
    rows = ev.tables["proportions"]
    share = rows[rows["lineage"] == "immune"].set_index(["phase", "patient"])["n_cells"] / 1000
    expected = stats.ttest_ind(share["POST"], share["PRE"], equal_var=False).confidence_interval()
    assert whole.loc["immune_share", "ci_low"] == pytest.approx(expected.low)
    assert whole.loc["immune_share", "evidence"] == keys.REPLICATED and whole.loc["immune_share", "n_patients"] == 4
    own = items[(items["item"] == "clone_expands") & (items[keys.PATIENT] != routes.COHORT)]["value"].to_numpy()
    half = stats.t.ppf(0.975, 3) * own.std(ddof=1) / 2
    row = whole.loc["clone_expands"]
    assert (row["value"], row["ci_high"]) == (pytest.approx(own.mean()), pytest.approx(own.mean() + half))
    assert row["n_patients"] == 4 and row["unit"] == "patient"
    card = routes.card(items)
    assert card.set_index([keys.PATIENT, "route"]).loc[(routes.COHORT, "microenvironment"), "word"] == routes.SUPPORTED
    one = routes.score(*evidence_of(parts[:1])[:1], rules, *evidence_of(parts[:1])[1:])
    lone = one[one[keys.PATIENT] == routes.COHORT]
    assert lone["vote"].isna().all()  # one patient has no interval between patients
    assert set(lone["evidence"]) == {keys.SINGLE_PATIENT}


def test_courses():
    samples = pd.DataFrame(
        [("a", "P1", "PRE"), ("b", "P1", "RES"), ("c", "P1", "POST"), ("d", "P2", "PRE"), ("e", "P2", "RES"),
         ("f", "P3", "PRE-R"), ("g", "P4", "POST"), ("h", "P5", "PRE"), ("i", "P5", "PRE-R")],
        columns=[keys.SAMPLE, keys.PATIENT, keys.PHASE],
    )  # fmt: skip
    patients, cohort, without = routes.courses(samples, PHASES)
    assert patients == [Course("P1", "POST", "PRE", "RES"), Course("P2", "RES", "PRE", "RES")]
    assert [c.contrast for c in cohort] == ["POST_vs_PRE", "PRE-R_vs_PRE"] and without == ["P3", "P4", "P5"]
    assert patients[0].steps == {"total": ("POST", "PRE"), "first": ("RES", "PRE"), "second": ("POST", "RES")}
    assert patients[1].steps == {"total": ("RES", "PRE"), "first": ("RES", "PRE")}
    assert routes.courses(samples[samples[keys.PHASE] == "POST"], PHASES) == ([], [], ["P1", "P4"])


UP, DOWN, FLAT, NONE = Effect(0.3, 0.2, 0.4), Effect(-0.3, -0.4, -0.2), Effect(0.05, -0.1, 0.2), Effect()


@pytest.mark.parametrize(
    ("supports", "against", "effects", "expected"),
    [
        ("up", "down", {"total": UP}, 1),
        ("up", "down", {"total": DOWN}, -1),
        ("up", "down", {"total": FLAT}, 0),
        ("up", "down", {"total": NONE}, None),
        ("up", "never", {"total": DOWN}, 0),
        ("down or up-down", "up", {"total": FLAT, "first": UP, "second": DOWN}, 1),
        ("down or up-down", "up", {"total": FLAT, "first": UP, "second": FLAT}, 0),
        ("down or up-down", "up", {"total": UP, "first": NONE, "second": NONE}, -1),
        ("down-up", "up-down", {"total": FLAT, "first": DOWN, "second": UP}, 1),
        ("down-up", "up-down", {"total": FLAT, "first": DOWN}, 1),
        ("down-up", "up-down", {"total": FLAT, "first": UP, "second": DOWN}, -1),
        ("down-up", "up-down", {"total": DOWN}, None),
        ("down-up", "up-down", {"total": FLAT, "first": DOWN, "second": NONE}, None),
        ("up", "stable", {"total": Effect(0.08, -0.1, 0.2, spread=0.08)}, -1),
        ("up", "stable", {"total": Effect(0.08, -0.1, 0.2, spread=0.4)}, 0),
        ("up", "down", {"total": Effect(0.05, 0.01, 0.09)}, 0),  # below the threshold of 0.1
        ("up", "down", {"total": Effect(0.7, 0.55, 0.8, null=0.5)}, 1),
        ("up", "down", {"total": Effect(0.7, 0.45, 0.9, null=0.5)}, 0),
    ],
)
def test_votes(supports, against, effects, expected):
    assert routes.vote({"supports_when": supports, "against_when": against, "threshold": 0.1}, effects)[0] == expected


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([1, 1, 0, 0], routes.SUPPORTED), ([1, 1, -1, 0], routes.SUPPORTED), ([1, 1, -1, -1], routes.MIXED),
        ([1, 1, None, None], routes.SUPPORTED), ([1, 0, 0, 0], routes.MIXED), ([1, -1, None, None], routes.MIXED),
        ([1, None, None, None], routes.NOT_ASSESSABLE), ([0, None, None, None], routes.NOT_ASSESSABLE),
        ([0, -1, None, None], routes.NOT_SUPPORTED), ([None] * 4, routes.NOT_ASSESSABLE), ([], routes.NOT_ASSESSABLE),
    ],
)  # fmt: skip
def test_words(votes, expected):
    assert routes.word(votes) == expected


def test_auc_against_scipy_and_resampling():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 8, 60) + 1.0, rng.integers(0, 8, 90)
    value, low, high = routes.auc(a, b)
    assert value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (60 * 90))
    drawn = [
        stats.mannwhitneyu(rng.choice(a, 60), rng.choice(b, 90), method="asymptotic").statistic / 5400 for _ in range(2000)
    ]  # fmt: skip
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.015)
    assert np.isnan(routes.auc(a, [])).all() and np.isnan(routes.auc([2, 3], [0, 1])[1])


def test_choice_of_the_program():
    traits = pd.DataFrame(
        {"module": ["M1", "M2", "M3", "M9"], "trait": ["acquired_resistance"] * 3 + ["treated"], "level": "sample",
         "rho": [0.5, -0.9, 0.9, 1.0], "difference": [1, -2.0, 1.5, 9]}
    )  # fmt: skip
    made = routes.choose_program(traits, None, PHASES, "auto")
    assert (made.column, made.sign) == ("module_M2", -1) and "acquired_resistance" in made.why
    assert routes.choose_program(traits.assign(rho=np.nan), None, PHASES, "auto") is None
    of_samples = pd.DataFrame(
        {"sample": list("abcd"), "phase": ["PRE", "POST"] * 2, "module": ["M1", "M1", "M2", "M2"], "mean": [0, 1, 0, -3.0],
         "sd": 1.0}
    )  # fmt: skip
    made = routes.choose_program(None, of_samples, PHASES, "auto")
    assert (made.column, made.sign) == ("module_M2", -1)
    assert routes.choose_program(None, of_samples, PHASES, "M1").sign == 1
    assert routes.choose_program(traits, of_samples, PHASES, "M7") is None


def test_flow_needs_pathways(rules):
    cells, tables = planted_patient("none", 3)
    tables["flow"] = tables["flow"][tables["flow"]["pathway"].isin(["TGFb", "EGF", "FGF"])]
    ev, *_ = evidence_of([(cells, tables)])
    found = routes.pathway_flow(ev, "P1", ("POST", "PRE"), "TGFb:up; EGF:up; FGF:up; CXCL:down")
    assert not found.estimable and "4 needed" in found.reason


def test_measures_from_tests_of_other_steps():
    cells, tables = planted_patient("none", 3)
    base = dict.fromkeys(comparison.TEST_COLUMNS, np.nan) | {
        "contrast": "POST_vs_PRE", "unit": "patient", "n_a": 3, "n_b": 4, "n_patients_a": 3, "n_patients_b": 4, "n_cells_a": 50,
        "n_cells_b": 60, "effect": 0.5, "ci_low": 0.1, "ci_high": 0.9, "evidence": keys.REPLICATED, "status": keys.OK,
    }  # fmt: skip
    mine = {"cell_type": "tumour", "source": "TGFb", "network": "progeny", "level": "pseudobulk"}
    tables["activity_tests"] = pd.DataFrame([{**mine, **base}, {**mine, **base, "effect": -4.0, "level": "cell_mean"}])
    tables["tcell_tests"] = pd.DataFrame([{"score": "exhaustion_score", "cell_type": "t_cell", **base, "ci_low": np.nan}])
    tables["activity"] = pd.DataFrame([{**mine, "sample": "POST-P1", "score": 2.0}, {**mine, "sample": "PRE-P1", "score": 0.5}])
    ev, *_ = evidence_of([(cells, tables)])
    pair = ("POST", "PRE")
    found = routes.activity_between(ev, pair, "TGFb in tumour")
    assert (found.value, found.low, found.n_samples, found.n_cells) == (0.5, 0.1, 7, 110) and found.estimable
    assert found.n_patients == 1  # of the design: a patient on both sides is one
    assert not routes.activity_between(ev, pair, "WNT in tumour").estimable
    own = routes.activity(ev, "P1", pair, "TGFb in tumour")
    assert own.value == pytest.approx(1.5) and own.word == keys.NO_REPLICATES
    assert routes.tcell_between(ev, pair, "exhaustion in t_cell").word == keys.NO_REPLICATES


def test_networks_are_not_mixed():
    """A source that two networks have is two scores: their difference means nothing."""
    cells, tables = planted_patient("none", 3)
    rows = [("progeny", "POST-P1", 2.0), ("progeny", "PRE-P1", 1.0), ("mine", "POST-P1", -6.0), ("mine", "PRE-P1", -2.0)]
    table = pd.DataFrame(rows, columns=["network", "sample", "score"])
    tables["activity"] = table.assign(cell_type="tumour", source="TGFb", level="pseudobulk")
    ev, *_ = evidence_of([(cells, tables)])
    assert "several networks have TGFb" in routes.activity(ev, "P1", PAIR, "TGFb in tumour").reason
    assert routes.activity(ev, "P1", PAIR, "progeny:TGFb in tumour").value == pytest.approx(1.0)
    assert routes.activity(ev, "P1", PAIR, "mine:TGFb in tumour").value == pytest.approx(-4.0)


def flows(values):
    """flow.tsv of POST_vs_PRE from (phase, patient) -> flow of TGFb, EGF, FGF, CXCL."""
    rows = [
        ("POST_vs_PRE", f"{phase}-{patient}", patient, phase, pathway, flow)
        for (phase, patient), own in values.items()
        for pathway, flow in zip(("TGFb", "EGF", "FGF", "CXCL"), own, strict=True)
    ]
    return pd.DataFrame(rows, columns=["contrast", "sample", "patient", "phase", "pathway", "flow_common"])


def test_pathways_of_one_biopsy_are_no_replicates():
    rng = np.random.default_rng(5)
    feature = "TGFb:up; EGF:up; FGF:up; CXCL:down"
    values = {(phase, f"P{i}"): rng.lognormal(0, 0.3, 4) for phase in ("PRE", "POST") for i in (1, 2, 3)}
    samples = pd.DataFrame(
        [(f"{phase}-{patient}", patient, phase) for phase, patient in values], columns=["sample", "patient", "phase"]
    )
    cells = samples.loc[np.repeat(samples.index, 5)].reset_index(drop=True)
    ev = routes.Evidence(cells, pd.DataFrame(index=cells.index), {}, {"flow": flows(values)}, samples, {}, pd.DataFrame())
    mean = np.mean(list(values.values()), axis=0)
    index = {key: float((own / mean) @ [0.25, 0.25, 0.25, -0.25]) for key, own in values.items()}
    one = routes.pathway_flow(ev, "P1", PAIR, feature)
    assert one.value == pytest.approx(index["POST", "P1"] - index["PRE", "P1"])
    assert one.word == keys.NO_REPLICATES and routes.direction(one, 0.0) is None  # four pathways are one biopsy
    sides = [[index[phase, f"P{i}"] for i in (1, 2, 3)] for phase in PAIR]
    expected = stats.ttest_ind(*sides, equal_var=False).confidence_interval()
    both = routes.pathway_flow_between(ev, PAIR, feature)
    assert (both.low, both.high) == pytest.approx((expected.low, expected.high))
    assert (both.unit, both.evidence, both.n_patients) == ("patient", keys.REPLICATED, 3)


def test_what_is_unclear_between_patients_is_not_stable():
    """Two patients whose clones grew: no vote against the route because their mean has a wide interval."""
    rule = {"supports_when": "up", "against_when": "stable", "threshold": 0.1}
    grown = [Effect(0.45, 0.3, 0.6, spread=0.45), Effect(0.15, 0.02, 0.3, spread=0.15)]
    mean = routes._mean_of(grown, Course(routes.COHORT, "POST", "PRE"))
    assert mean.low < 0 < mean.high and routes.vote(rule, {"total": mean}) == (0, "")
    still = [Effect(0.01, -0.02, 0.04, spread=0.05), Effect(0.03, 0.0, 0.06, spread=0.09)]
    assert routes.vote(rule, {"total": routes._mean_of(still, Course(routes.COHORT, "POST", "PRE"))}) == (-1, "stable")
    wide, narrow = Effect(0.0, -0.3, 0.3), Effect(0.0, -0.05, 0.06)
    assert routes.holds("stable", {"total": wide}, 0.1) is False and routes.holds("stable", {"total": narrow}, 0.1) is True


@pytest.mark.parametrize(
    ("sign", "total", "part", "expected"),
    [(1, 1.0, 0.8, (0.8, 1)), (-1, -1.0, -0.8, (0.8, 1)), (1, -1.0, -0.8, (-0.8, 0)), (-1, 1.0, 0.8, (-0.8, 0))],
)
def test_a_falling_program_is_no_support(rules, sign, total, part, expected):
    row = {"patient": "P1", "contrast": "POST_vs_PRE", "score": "module_M1", "total": total, "selection": part, "reason": ""}
    row |= {"total_low": total - 0.1, "total_high": total + 0.1, "selection_low": part - 0.1, "selection_high": part + 0.1}
    divided = pd.DataFrame([{**row, "n_cells_a": 50, "n_cells_b": 60}])
    samples = pd.DataFrame({"sample": ["a", "b"], "patient": "P1", "phase": list(PAIR)})
    program = routes.Program("module_M1", sign, "planted")
    ev = routes.Evidence(pd.DataFrame(), pd.DataFrame(), {}, {}, samples, {}, divided, program=program)
    found = routes.decomposed(ev, "P1", PAIR, "selection")
    rule = rules[rules["item"] == "selection_share"].iloc[0].to_dict()
    assert (found.value, routes.vote(rule, {"total": found})[0]) == (pytest.approx(expected[0]), expected[1])
    assert ("turned" in found.measured) == (sign < 0)


def test_locus_loss_by_hand():
    cells, tables = planted_patient("none", 3)
    tables["panel_clones"] = pd.DataFrame(
        {"patient": "P1", "clone": ["P1.C1", "P1.C2", "P1.C3"], "gene": "ERBB2", "locus_call": ["neutral", "loss", "gain"]}
    )
    ev, *_ = evidence_of([(cells, tables)])
    found = routes.locus_loss(ev, "P1", ("POST", "PRE"), "ERBB2")
    share = tables["clone_phases"].set_index(["clone", "phase"])["share"]["P1.C2"]
    assert found.value == pytest.approx(share["POST"] - share["PRE"])
    assert not routes.locus_loss(ev, "P1", ("POST", "PRE"), "MET").estimable
    # 30 % of the cells are in a clone that nobody could call
    tables["panel_clones"].loc[1, "locus_call"] = ""
    blind = routes.locus_loss(ev, "P1", ("POST", "PRE"), "ERBB2")
    assert not blind.estimable and "in clones with a call at the locus, 80% needed" in blind.reason


def test_bad_rules(rules):
    with pytest.raises(InputError, match="no column item"):
        routes.check_rules(pd.DataFrame({"route": ["a"]}), "rules.tsv")
    bad = rules.head(4).astype(str)
    bad.loc[0, ["measure", "threshold"]] = ["guess", "-1"]
    bad.loc[1, ["supports_when", "feature"]] = ["sideways", ""]
    bad.loc[2, ["route", "question"]] = ["a b", ""]
    bad.loc[3, ["route", "item"]] = bad.loc[1, ["route", "item"]]
    with pytest.raises(InputError) as error:
        routes.check_rules(bad, "rules.tsv")
    said = ("measure 'guess'", "threshold '-1'", "'sideways'", "needs a feature", "route 'a b'", "question is empty", "2 times")
    for part in said:
        assert part in str(error.value)
    assert set(KINDS) <= set(rules["route"]) and (rules["source"] != "").all()


def two_biopsies(counts):
    """Evidence of one patient: (phase, main type, cells, positive cells) of PDCD1; positive cells hold 1 to 3 in turn."""
    frames = []
    for phase, kind, n, positive in counts:
        part = pd.DataFrame(
            {
                keys.SAMPLE: f"{phase}-P1", keys.PATIENT: "P1", keys.PHASE: phase, keys.MAIN_TYPE: kind, keys.LINEAGE: "immune",
                keys.TUMOUR: False, "PDCD1": [1.0 + i % 3 if i < positive else 0.0 for i in range(n)],
            }
        )  # fmt: skip
        frames.append(part)
    cells = pd.concat(frames, ignore_index=True)
    masks = panels.type_masks(cells[keys.MAIN_TYPE].tolist(), cells[keys.LINEAGE].tolist(), cells[keys.TUMOUR].to_numpy())
    samples = cells[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].drop_duplicates(ignore_index=True)
    return routes.Evidence(cells, cells[["PDCD1"]], masks, {}, samples, {}, pd.DataFrame())


PAIR = ("POST", "PRE")
FEATURE = "PDCD1 in t_cell"


def test_types_that_leave_are_no_change_of_the_gene():
    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("PRE", "CD4_T", 50, 2), ("POST", "CD8_T", 15, 6), ("POST", "CD4_T", 100, 4)])
    found = routes.gene_share(ev, "P1", PAIR, FEATURE)
    assert found.value == pytest.approx(0.0, abs=1e-12)  # 40 % and 4 % in both; crude 24 % against 9 %
    assert found.low < -0.05 and found.high > 0.05 and found.n_cells == 225
    crude = ev.cells.groupby(keys.PHASE)["PDCD1"].mean()
    assert abs(routes.expression(ev, "P1", PAIR, FEATURE).value) < 0.01 and crude["POST"] - crude["PRE"] < -0.25


def test_standardised_difference_by_hand():
    ev = two_biopsies([("PRE", "CD8_T", 30, 12), ("PRE", "CD4_T", 60, 3), ("POST", "CD8_T", 20, 14), ("POST", "CD4_T", 60, 6),
                       ("POST", "Treg", 40, 40)])  # fmt: skip
    w8, w4 = 20 * 30 / 50, 60 * 60 / 120  # 12 and 30; a type of one biopsy alone has no counterpart
    w8, w4 = w8 / 42, w4 / 42
    p_a, p_b = w8 * 0.7 + w4 * 0.1, w8 * 0.4 + w4 * 0.05
    n_a, n_b = 1 / (w8**2 / 20 + w4**2 / 60), 1 / (w8**2 / 30 + w4**2 / 60)
    found = routes.gene_share(ev, "P1", PAIR, FEATURE)
    assert found.value == pytest.approx(p_a - p_b, abs=1e-12) and found.n_cells == 170
    expected = clone_kernel.newcombe(p_a * n_a, n_a, p_b * n_b, n_b)
    assert (found.low, found.high) == pytest.approx(expected[1:], abs=1e-12)


def test_one_type_gives_the_usual_intervals():
    from statsmodels.stats.api import CompareMeans, DescrStatsW
    from statsmodels.stats.proportion import confint_proportions_2indep

    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("POST", "CD8_T", 45, 30)])
    share = routes.gene_share(ev, "P1", PAIR, FEATURE)
    low, high = confint_proportions_2indep(30, 45, 24, 60, method="newcomb", compare="diff")
    assert (share.value, share.low, share.high) == pytest.approx((30 / 45 - 24 / 60, low, high), abs=1e-9)
    values = ev.cells.groupby(keys.PHASE)["PDCD1"]
    a, b = (values.get_group(phase).to_numpy() for phase in PAIR)
    limits = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(usevar="unequal")
    mean = routes.expression(ev, "P1", PAIR, FEATURE)
    assert (mean.value, mean.low, mean.high) == pytest.approx((a.mean() - b.mean(), *limits), abs=1e-9)


def test_standardised_interval_covers_the_truth():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        n = {("PRE", "CD8_T"): 40, ("PRE", "CD4_T"): 60, ("POST", "CD8_T"): 15, ("POST", "CD4_T"): 90}
        share = {("PRE", "CD8_T"): 0.5, ("PRE", "CD4_T"): 0.1, ("POST", "CD8_T"): 0.6, ("POST", "CD4_T"): 0.2}
        ev = two_biopsies([(*key, size, int(rng.binomial(size, share[key]))) for key, size in n.items()])
        found = routes.gene_share(ev, "P1", PAIR, FEATURE)
        hits += found.low <= 0.1 <= found.high
    assert 0.93 <= hits / 300 <= 0.985


def test_too_few_cells_of_common_types():
    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("POST", "CD8_T", 12, 6), ("POST", "CD4_T", 100, 4)])
    for measure in (routes.gene_share, routes.expression):
        found = measure(ev, "P1", PAIR, FEATURE)
        assert found.word == keys.NOT_ESTIMABLE
        assert found.reason == "cells of t_cell of types that both biopsies hold: 60 in PRE, 12 in POST, 20 needed in each"
    assert "PDCD9 was not measured" in routes.gene_share(ev, "P1", PAIR, "PDCD9 in t_cell").reason


def test_a_mean_names_the_genes_that_were_measured():
    ev = two_biopsies([("PRE", "CD8_T", 60, 24), ("POST", "CD8_T", 45, 30)])
    assert routes.expression(ev, "P1", PAIR, "PDCD1, LAG3, TIGIT in t_cell").measured == "PDCD1 (1 of 3 genes measured) in t_cell"
    assert routes.expression(ev, "P1", PAIR, "PDCD1 in t_cell").measured == "PDCD1 in t_cell"
    assert routes.expression(ev, "P1", PAIR, "LAG3 in t_cell").measured == "LAG3 in t_cell"
