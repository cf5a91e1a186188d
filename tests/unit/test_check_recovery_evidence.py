"""CHECK_RECOVERY's rows of the evidence stage, on hand-made truth and hand-made tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scresist import decomposition, io

SPEC = importlib.util.spec_from_file_location("check_recovery", Path(__file__).resolve().parents[2] / "bin" / "check_recovery.py")
SCRIPT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SCRIPT)
ROWS = ["hazard_ratio", "ic50", "incomplete_curves", "staining", "staining_flat", "routes", "routes_false", "decomposition"]
OTHER_TRUTH = ("tumours", "clones", "clone_changes", "expression", "modules", "marker", "panels", "signals", "shares")
EVIDENCE_TRUTH = ("survival", "dose_response", "staining", "routes")


def write(folder: Path, name: str, columns: str, *rows: tuple) -> None:
    io.write_tsv(pd.DataFrame(rows, columns=columns.split()), folder / f"{name}.tsv")


@pytest.fixture
def truth(tmp_path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    for name in OTHER_TRUTH:
        write(folder, name, "nothing")
    write(
        folder,
        "survival",
        "dataset marker hazard_ratio n n_events",
        ("bulk", "MUC3A", 1.9, 160, 116),
        ("bulk", "CST3", 1.0, 160, 116),
    )
    columns = "line treatment compound ic50 hill bottom top reaches_half unit"
    curves = [("1", "ctrl", "ADC", 480.0, 1.2, 6.0, 100.0, "yes", "nM"), ("1", "sh", "ADC", 60.0, 1.2, 6.0, 100.0, "yes", "nM")]
    curves += [("2", "ctrl", "ADC", np.nan, 1.0, 68.0, 100.0, "no", "nM")]
    write(folder, "dose_response", columns, *curves)
    stains = [("HER2", "PRE", 0.8, "none"), ("HER2", "RES", 0.6, "down"), ("HER2", "POST", 0.2, "down")]
    stains += [("CST3", "PRE", 0.1, "none"), ("CST3", "RES", 0.3, "up"), ("CST3", "POST", 0.6, "up")]
    stains += [("CTSB", phase, 0.4, "none") for phase in ("PRE", "RES", "POST")]
    write(folder, "staining", "marker phase share direction", *stains)
    planted = [("P1", "POST_vs_PRE", "reprogramming", "yes"), ("P1", "POST_vs_PRE", "target_loss", "yes")]
    planted += [("P1", "POST_vs_PRE", "emt", "no"), ("P1", "POST_vs_PRE", "metabolism", "no")]
    planted += [("P2", "POST_vs_PRE", "reprogramming", "yes")]  # its later biopsy holds too few cells
    write(folder, "routes", "patient contrast route planted", *planted)
    return folder


@pytest.fixture
def tables(tmp_path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    columns = "dataset marker kind model adjusted_for per n events hr ci_low ci_high"
    ratios = [("bulk", "MUC3A", "gene", "univariate", "", "sd", 160, 116, 1.7, 1.4, 2.1)]
    ratios += [("bulk", "MUC3A", "gene", "adjusted", "age", "sd", 160, 116, 1.5, 1.3, 1.6)]
    ratios += [("bulk", "CST3", "gene", "univariate", "", "sd", 160, 116, 0.95, 0.8, 1.13)]
    write(folder, "bulk.cox", columns, *ratios)
    fits = [
        ("1", "ctrl", "ADC", "all", "nM", 470.0, "absolute", "470", "ok"),
        ("1", "ctrl", "ADC", "1", "nM", 9.0, "absolute", "9", "ok"),
    ]
    fits += [("1", "sh", "ADC", "all", "nM", 63.0, "absolute", "63", "ok")]
    fits += [("2", "ctrl", "ADC", "all", "nM", np.nan, "absolute", "> 12500", "out_of_range")]
    write(folder, "dose_fits", "line treatment compound replicate unit ic50 ic50_kind ic50_text status", *fits)
    tests = [("HER2", "", "POST_vs_PRE", "patient", "rank_sum_exact", -0.5, 0.03, 0.04, "ok")]
    tests += [("CST3", "", "POST_vs_PRE", "patient", "rank_sum_exact", 0.5, 0.03, 0.04, "ok")]
    tests += [("CTSB", "", "POST_vs_PRE", "patient", "rank_sum_exact", 0.02, 0.6, 0.6, "ok")]
    tests += [("CTSB", "", "POST_vs_PRE", "patient", "mixed_model", 0.02, 0.5, 0.5, "ok")]
    tests += [("CTSB", "P1", "POST_vs_PRE", "field", "tukey_hsd", 0.2, 0.001, 0.001, "ok")]
    tests += [
        (name, "", "RES_vs_PRE", "patient", "rank_sum", 0.1, np.nan, np.nan, "no_replicates") for name in ("HER2", "CST3", "CTSB")
    ]
    write(folder, "staining_tests", "marker patient contrast unit test effect p_value p_adjusted status", *tests)
    card = [("P1", "POST_vs_PRE", "reprogramming", "supported"), ("P1", "POST_vs_PRE", "target_loss", "supported")]
    card += [("P1", "POST_vs_PRE", "emt", "not supported"), ("P1", "POST_vs_PRE", "metabolism", "not assessable")]
    card += [("P2", "", "reprogramming", "not assessable")]
    write(folder, "route_card", "patient contrast route word", *card)
    divided = [("P1", "POST_vs_PRE", "module_M1", 1.2, 4.4e-16), ("P1", "POST_vs_PRE", "CST3", -0.3, -2e-12)]
    divided += [("P1", "POST_vs_PRE", "ERBB2", np.nan, np.nan)]
    write(folder, "decomposition", "patient contrast score total residual", *divided)
    return folder


def change(folder: Path, name: str, at: int, **values: object) -> None:
    path = folder / f"{name}.tsv"
    frame = io.read_tsv(path, dtype=object)
    for column, value in values.items():
        frame.loc[at, column] = value
    io.write_tsv(frame, path)


@pytest.fixture
def check(truth, tables):
    rows = [("P1", "a"), ("P1", "b"), ("P2", "c")] * 40 + [("P2", "d")] * 5
    cells = pd.DataFrame(rows, columns=["planted_patient", "planted_sample"])
    cells = cells.assign(planted_is_malignant=True, planted_is_doublet=False, kept=True)
    samples = pd.DataFrame([("a", "PRE"), ("b", "POST"), ("c", "PRE"), ("d", "POST")], columns=["sample", "phase"])

    def run(folder: Path | None = tables) -> pd.DataFrame:
        ledger = SCRIPT.Ledger(dict(SCRIPT.FLOORS))
        SCRIPT.evidence_rows(ledger, cells, samples, SCRIPT.read_truth_tables(truth), SCRIPT.RunTables(folder))
        return ledger.table().set_index("what")

    return run


def missed(table: pd.DataFrame) -> list[str]:
    return list(table.index[~table["passed"].fillna(True).astype(bool)])


def test_everything_right(check):
    table = check()
    assert list(table.index) == ROWS
    assert table["passed"].notna().all() and not missed(table)
    assert table["value"].to_dict() == pytest.approx(
        {
            "hazard_ratio": 1, "ic50": 0.05, "incomplete_curves": 1, "staining": 1, "staining_flat": 0, "routes": 1,
            "routes_false": 0, "decomposition": 2e-12,
        }
    )  # fmt: skip
    assert table["n"].tolist() == [2, 2, 1, 2, 1, 2, 1, 2]
    told = table["explanation"]
    assert "MUC3A bulk 1.9, found 1.7 (1.4 to 2.1); outside: none." in told["hazard_ratio"]
    assert "1 sh ADC 0.050, 1 ctrl ADC 0.021; without a number: none." in told["ic50"]
    assert told["staining"].endswith("Not tested, too few patients or constant: 2 (CST3 RES_vs_PRE, HER2 RES_vs_PRE).")
    assert told["staining_flat"].endswith("Not tested, too few patients or constant: 1 (CTSB RES_vs_PRE).")
    left = "Left out, patients without 30 kept malignant cells in both biopsies: P2 reprogramming POST_vs_PRE."
    assert left in told["routes"] and left in told["routes_false"]
    assert "Not assessable: P1 metabolism POST_vs_PRE. Of so few (1) a single one exceeds it." in told["routes_false"]


NO_MODEL = {"per": "", "hr": None, "ci_low": None, "ci_high": None}
MISSES = {
    "a ratio outside": ("hazard_ratio", "bulk.cox", 0, {"ci_high": 1.8}, "outside: MUC3A bulk."),
    "no model of a marker": ("hazard_ratio", "bulk.cox", 2, NO_MODEL, "CST3 bulk 1, no estimate"),
    "a control with an effect": ("hazard_ratio", "bulk.cox", 2, {"ci_low": 1.01}, "outside: CST3 bulk."),
    "an IC50 that is off": ("ic50", "dose_fits", 0, {"ic50": 540}, "1 ctrl ADC 0.125"),
    "a curve without its number": ("ic50", "dose_fits", 2, {"ic50": None}, "without a number: 1 sh ADC."),
    "another quantity": ("ic50", "dose_fits", 2, {"ic50_kind": "relative"}, "without a number: 1 sh ADC."),
    "a number where none is": ("incomplete_curves", "dose_fits", 3, {"ic50": 12000}, "wrong: 2 ctrl ADC."),
    "no word on a limit": ("incomplete_curves", "dose_fits", 3, {"ic50_text": ""}, "wrong: 2 ctrl ADC."),
    "another status": ("incomplete_curves", "dose_fits", 3, {"status": "not_estimable"}, "wrong: 2 ctrl ADC."),
    "a wrong sign": ("staining", "staining_tests", 0, {"effect": 0.5}, "wrong: HER2 POST_vs_PRE."),
    "a marker that stays, called": ("staining_flat", "staining_tests", 3, {"p_adjusted": 0.04}, "POST_vs_PRE (mixed_model)."),
    "a route that is mixed": ("routes", "route_card", 0, {"word": "mixed"}, "others: P1 reprogramming POST_vs_PRE: mixed."),
    "a route that could not be judged": ("routes", "route_card", 0, {"word": "not assessable"}, "POST_vs_PRE: not assessable."),
    "a line not on the card": ("routes", "route_card", 1, {"route": "loss"}, "P1 target_loss POST_vs_PRE: not on the card."),
    "a route that is not there": ("routes_false", "route_card", 2, {"word": "supported"}, "the bound: P1 emt POST_vs_PRE."),
    "parts that do not add up": ("decomposition", "decomposition", 0, {"residual": -2e-9}, "beyond: P1 POST_vs_PRE module_M1."),
    "no residual": ("decomposition", "decomposition", 0, {"residual": None}, "beyond: P1 POST_vs_PRE module_M1."),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSES)
def test_each_miss_is_seen_by_its_row_alone(check, tables, case):
    what, name, at, values, told = MISSES[case]
    change(tables, name, at, **values)
    table = check()
    assert missed(table) == [what]
    assert told in table.loc[what, "explanation"]


def test_figures_that_cannot_be_computed_are_not_small(check, tables):
    change(tables, "dose_fits", 2, ic50=None)
    change(tables, "decomposition", 0, residual=None)
    table = check()
    assert table.loc[["ic50", "decomposition"], "value"].isna().all()
    assert table.loc["ic50", "recovered"] == "1 within the bound"


def test_without_tables_nothing_is_judged(check, tables, tmp_path):
    for folder in (None, tmp_path / "nowhere"):
        table = check(folder)
        assert list(table.index) == ROWS
        assert (table["recovered"] == "not_estimable").all() and table["passed"].isna().all() and table["value"].isna().all()
    assert table["planted"].to_dict() == {
        "hazard_ratio": "2 markers", "ic50": "2 curves", "incomplete_curves": "1 curve", "staining": "0 differences",
        "staining_flat": "0 steady markers", "routes": "3 routes", "routes_false": "2 routes", "decomposition": "0 changes",
    }  # fmt: skip
    for path in tables.iterdir():  # tables of steps that had no input: a header
        io.write_tsv(io.read_tsv(path, dtype=object).iloc[:0], path)
    pd.testing.assert_frame_equal(check(), table)


def test_each_absent_table_silences_its_rows_alone(check, tables):
    owners = {
        "bulk.cox": ROWS[:1],
        "dose_fits": ROWS[1:3],
        "staining_tests": ROWS[3:5],
        "route_card": ROWS[5:7],
        "decomposition": ROWS[7:],
    }
    for name, own in owners.items():
        path = tables / f"{name}.tsv"
        text = path.read_text()
        path.unlink()
        table = check()
        assert list(table.index[table["passed"].isna()]) == own and not missed(table), name
        path.write_text(text)


def test_stains_that_no_contrast_could_test_are_told_not_missed(check, tables):
    frame = io.read_tsv(tables / "staining_tests.tsv", dtype=object)
    io.write_tsv(frame[frame["contrast"] == "RES_vs_PRE"], tables / "staining_tests.tsv")
    table = check()
    assert table.loc[["staining", "staining_flat"], "passed"].isna().all()
    assert table.loc["staining", "planted"] == "2 differences" and "constant: 2 (" in table.loc["staining", "explanation"]
    assert table.loc["staining_flat", "planted"] == "1 steady marker"


def test_nothing_planted_is_nothing_missed(check, truth, tables):
    for name, column, value in (("dose_response", "reaches_half", "yes"), ("routes", "planted", "yes")):
        frame = io.read_tsv(truth / f"{name}.tsv", dtype=object)
        io.write_tsv(frame[frame[column] == value], truth / f"{name}.tsv")
    table = check()
    assert list(table.index[table["passed"].isna()]) == ["incomplete_curves", "routes_false"] and not missed(table)
    assert table.loc["incomplete_curves", "explanation"] == "No such curve was planted."


def test_truth_of_an_older_simulation_is_refused(truth):
    for name in EVIDENCE_TRUTH:
        (truth / f"{name}.tsv").unlink()
    with pytest.raises(io.InputError) as error:
        SCRIPT.read_truth_tables(truth)
    assert all(f"{name}.tsv" in str(error.value) for name in EVIDENCE_TRUTH)
    assert str(error.value).endswith("routes.tsv not found; truth/ must come from the same version of SIMULATE_COHORT")


def test_a_table_without_the_residual_is_refused(check, tables):
    path = tables / "decomposition.tsv"
    io.write_tsv(io.read_tsv(path, dtype=object).drop(columns="residual"), path)
    with pytest.raises(io.InputError, match=r"decomposition\.tsv: columns residual are missing"):
        check()
    assert decomposition.RESIDUAL in decomposition.COLUMNS
