"""Rules, votes, words, and planted patients: one per route over 20 seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scresist import keys, route_measures, routes
from scresist.io import InputError
from scresist.route_measures import Effect
from scresist.routes import Course
from tests.data.route_patients import KINDS, MHC, PAIR, PHASES, evidence_of, planted_patient

SEEDS = range(20)


@pytest.fixture(scope="module")
def rules(root):
    return routes.check_rules(pd.read_csv(root / "assets" / "route_rules.tsv", sep="\t", dtype=str, quoting=3), "route_rules.tsv")


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
    program = route_measures.Program("module_M1", sign, "planted")
    ev = route_measures.Evidence(pd.DataFrame(), pd.DataFrame(), {}, {}, samples, {}, divided, program=program)
    found = route_measures.decomposed(ev, "P1", PAIR, "selection")
    rule = rules[rules["item"] == "selection_share"].iloc[0].to_dict()
    assert (found.value, routes.vote(rule, {"total": found})[0]) == (pytest.approx(expected[0]), expected[1])
    assert ("turned" in found.measured) == (sign < 0)


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


