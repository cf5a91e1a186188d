"""Kernels of CHECK_RECOVERY for shares, signals, absent types and the path, on hand-made cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import recovery_microenvironment as micro


def test_shifted_types_need_sign_and_p_and_steady_ones_must_stay_uncalled():
    planted = pd.DataFrame(
        [("B", "X_vs_Y", -0.8), ("T", "X_vs_Y", 0.9), ("NK", "X_vs_Y", 0.02), ("DC", "X_vs_Y", 0.3), ("M", "X_vs_Y", np.nan)],
        columns=["main_type", "contrast", "log_ratio"],
    )
    tests = pd.DataFrame(
        [("B", -0.1, 0.01), ("T", -0.1, 0.01), ("NK", 0.1, 0.04), ("DC", 0.1, 0.01), ("M", 0.1, 0.01)],
        columns=["cell_type", "effect", "p_adjusted"],
    ).assign(contrast="X_vs_Y")
    found, false = micro.shift_calls(planted, tests)
    assert found.to_dict() == {"B X_vs_Y": True, "T X_vs_Y": False}  # T: called with the wrong sign
    assert false.to_dict() == {"NK X_vs_Y": True}  # DC is neither shifted nor steady, M has no ratio
    found, false = micro.shift_calls(planted, tests.assign(p_adjusted=0.06))
    assert not found.any() and not false.any()
    found, false = micro.shift_calls(planted, tests.assign(p_adjusted=np.nan))
    assert found.empty and false.empty


PLANTED = pd.DataFrame(
    [("TGFb", "RES_vs_PRE", "down", -2.0), ("MHC-I", "RES_vs_PRE", "up", 0.5), ("TGFb", "POST_vs_PRE", "up", 0.7)],
    columns=["pathway", "contrast", "direction", "ln_fold"],
)


def test_directions_follow_the_flow():
    found = pd.DataFrame(
        [("TGFb", 1.0, 2.0), ("MHC-I", 1.0, 2.0), ("WNT", 5.0, 1.0)], columns=["pathway", "flow_a", "flow_b"]
    ).assign(contrast="RES_vs_PRE")
    assert micro.signal_directions(PLANTED, found).to_dict() == {"MHC-I RES_vs_PRE": False, "TGFb RES_vs_PRE": True}
    gone = found[found["pathway"] != "TGFb"]
    assert not micro.signal_directions(PLANTED, gone)["TGFb RES_vs_PRE"]


def test_only_pathways_without_a_planted_gene_stand_in_the_way():
    links = pd.DataFrame(
        [("TGFb", "TGFB1", "TGFBR1_TGFBR2"), ("WNT", "WNT5A", "FZD1,LRP6"), ("NOTCH", "JAG1", "NOTCH1")],
        columns=["pathway", "ligand", "receptor"],
    )
    assert micro.touched_pathways(links, {"TGFBR2"}) == {"TGFb"}
    assert micro.touched_pathways(links, {"LRP6", "TGFB1", "FZD"}) == {"TGFb", "WNT"}
    assert micro.touched_pathways(links, set()) == set()
    found = pd.DataFrame([("WNT", 1.0), ("NOTCH", 2.0), ("TGFb", 3.0), ("MHC-I", np.nan)], columns=["pathway", "rank"]).assign(
        contrast="RES_vs_PRE"
    )
    above = micro.signal_ranks(PLANTED, found, {"RES_vs_PRE": {"WNT", "TGFb"}})
    # MHC-I has no rank: everything stands above it; POST_vs_PRE was not compared
    assert above == {"TGFb RES_vs_PRE": ["NOTCH"], "MHC-I RES_vs_PRE": ["NOTCH"]}


def test_the_strongest_planted_signal_of_each_contrast():
    assert micro.strongest_signals(PLANTED) == ["TGFb POST_vs_PRE", "TGFb RES_vs_PRE"]
    assert micro.strongest_signals(PLANTED.iloc[:0]) == []


def test_an_absent_type_must_be_told_and_silent():
    shares = pd.DataFrame(
        [("R", "Mast", 0.0), ("R", "B", 0.5), ("Q", "Mast", 0.0), ("S", "Mast", 0.0)],
        columns=["sample", "main_type", "expected_share"],
    )
    groups = pd.DataFrame(
        [("R", "Mast", "false"), ("R", "B", "true"), ("Q", "Mast", "false"), ("Q", "B", "true"), ("S", "Mast", "false")],
        columns=["sample", "cell_type", "estimable"],
    )
    links = pd.DataFrame([("R", "B", "B"), ("Q", "B", "Mast")], columns=["sample", "source", "target"])
    # S has no estimable type at all: it was not scored
    assert micro.absent_types(shares, groups, links).to_dict() == {"Mast Q": False, "Mast R": True}
    groups["estimable"] = "true"
    assert not micro.absent_types(shares, groups, links)["Mast R"]


def test_the_order_along_the_path_is_a_rank_correlation_whatever_its_sign():
    rng = np.random.default_rng(0)
    time = np.concatenate([rng.random(60), np.full(20, np.nan)])
    cells = pd.DataFrame({"kept": True, "planted_patient": "P1", "planted_path_time": time, "cytotrace": 1 - time**3})
    assert micro.path_order(cells, "cytotrace").to_dict() == {"P1": pytest.approx(1.0)}
    assert micro.path_order(cells.iloc[:20], "cytotrace").empty
    cells.loc[:29, "kept"] = False
    cells.loc[30:49, "cytotrace"] = rng.random(20)
    assert micro.path_order(cells, "cytotrace")["P1"] < 0.9


def test_the_direction_needs_sign_and_p_and_the_control_silence():
    time = np.linspace(0, 1, 40)
    cells = pd.DataFrame({"kept": True, "planted_patient": "P1", "planted_path_time": time, "cytotrace": 1 - time})
    row = {"patient": "P1", "measure": "direction", "group": "cytotrace", "phase_from": "PRE"}
    tests = pd.DataFrame(
        [
            {**row, "control": "data", "phase_to": "RES", "value": -0.3, "p_adjusted": 0.01},
            {**row, "control": "data", "phase_to": "POST", "value": 0.3, "p_adjusted": 0.01},  # the wrong way
            {**row, "control": "data", "phase_to": "X", "value": -0.3, "p_adjusted": 0.2},
            {**row, "control": "data", "phase_to": "Y", "value": np.nan, "p_adjusted": np.nan},
            {**row, "control": "data", "phase_to": "Z", "value": 0.3, "p_adjusted": 0.01, "measure": "resemblance"},
            {**row, "control": "permuted_labels", "phase_to": "RES", "value": -0.1, "p_adjusted": 0.5},
            {**row, "control": "permuted_labels", "phase_to": "POST", "value": -0.4, "p_adjusted": 0.01},
            {**row, "control": "data", "phase_to": "RES", "value": -0.3, "p_adjusted": 0.01, "patient": "P2"},
        ]
    )
    found, silent = micro.path_directions(tests, cells, "cytotrace")
    assert found.to_dict() == {"P1 PRE to POST": False, "P1 PRE to RES": True, "P1 PRE to X": False}
    assert silent.to_dict() == {"P1 PRE to POST": False, "P1 PRE to RES": True}
