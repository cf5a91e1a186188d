"""CHECK_RECOVERY through its command line, on the truth of a small simulated cohort and answers made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

COLUMNS = ["what", "planted", "recovered", "metric", "value", "floor", "passed", "n", "explanation"]


@pytest.fixture(scope="module")
def truth(run_script, root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    design = folder / "design.csv"
    design.write_text("sample,patient,phase,batch,n_cells\nA,P1,PRE,x,150\nB,P2,POST,y,150\nC,P3,POST,y,20\n")
    assets = root / "assets"
    tables = ("--positions", assets / "gene_positions.tsv.gz", "--markers", assets / "markers.tsv")
    run_script("simulate_cohort", *tables, "--design", design, "--n_genes", 2500, cwd=folder)
    return folder / "truth"


@pytest.fixture
def perfect(truth) -> pd.DataFrame:
    """What a pipeline without fault would say."""
    planted = pd.read_parquet(truth / "cells.parquet")
    skipped = planted["sample"] == "C"
    kept = ~(skipped | planted["is_doublet"] | planted["is_poor"])
    reason = np.where(kept, "", np.where(planted["is_doublet"], "doublet", "low_counts"))
    return pd.DataFrame(
        {
            "cell": planted["cell"],
            "kept": kept,
            "drop_reason": np.where(skipped, "sample_skipped", reason),
            "doublet_score": np.where(skipped, np.nan, planted["is_doublet"].astype(float)),
            "main_type": planted["main_type"].where(kept),
            "subtype": planted["subtype"].where(kept),
            "cluster": planted["subtype"].where(kept),
        }
    )


def check(run_script, truth, cells, folder, *more, expect=0):
    cells.to_parquet(folder / "cells.parquet")
    done = run_script("check_recovery", "--cells", "cells.parquet", "--truth", truth, *more, cwd=folder, check=False)
    assert done.returncode == expect, done.stderr
    return done


def test_a_faultless_answer_passes_every_floor(run_script, truth, perfect, tmp_path):
    done = check(run_script, truth, perfect, tmp_path, "--strict")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t")
    assert list(table.columns) == COLUMNS
    values = table.set_index("what")["value"]
    for name in ("main_types", "subtypes", "doublets", "poor_cells", "good_cells", "samples", "proportions", "batches_mix"):
        assert values[name] == pytest.approx(1), name
    assert values["unresolved"] == 0
    assert values["proportions_difference"] == pytest.approx(0, abs=1e-9)
    assert set(table["passed"].dropna()) == {True}
    assert done.stdout.startswith("Recovery: 9 of 9 floors reached; main types 1.000")
    assert len(done.stdout.splitlines()) == 1
    status = pd.read_csv(tmp_path / "check_recovery.cohort.status.tsv", sep="\t")
    assert status.loc[0, "status"] == "ok"
    assert (tmp_path / "check_recovery.cohort.provenance.json").exists()


def test_the_order_of_the_cells_changes_nothing(run_script, truth, perfect, tmp_path):
    check(run_script, truth, perfect, tmp_path)
    before = (tmp_path / "recovery.tsv").read_bytes()
    check(run_script, truth, perfect.sample(frac=1, random_state=0), tmp_path)
    assert (tmp_path / "recovery.tsv").read_bytes() == before


def test_missed_floors_are_named_and_stop_a_strict_run(run_script, truth, perfect, tmp_path):
    wrong = perfect.assign(main_type=np.where(perfect["kept"], "B", None), doublet_score=0.1)
    done = check(run_script, truth, wrong, tmp_path)
    assert "main_types: accuracy is" in done.stdout
    status = pd.read_csv(tmp_path / "check_recovery.cohort.status.tsv", sep="\t")
    assert status.loc[0, "status"] == "warning"
    assert "doublets: auroc is 0.5, needed 0.9" in status.loc[0, "reason"]
    done = check(run_script, truth, wrong, tmp_path, "--strict", expect=65)
    assert "floors are missed" in done.stderr
    assert (tmp_path / "recovery.tsv").exists()


def test_floors_can_be_set(run_script, truth, perfect, tmp_path):
    unresolved = perfect.assign(main_type=np.where(perfect["kept"], "unresolved", None))
    check(run_script, truth, unresolved, tmp_path, "--floors", "main_types=0")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    assert table.loc["main_types", "value"] == 0
    assert bool(table.loc["main_types", "passed"])
    assert table.loc["unresolved", "value"] == 1
    # no cell has a type: the shares do not exist and count as missed
    assert np.isnan(table.loc["proportions", "value"])
    assert table.loc["proportions", "passed"] in (False, "false")
    done = run_script("check_recovery", "--cells", "x", "--truth", "y", "--floors", "nothing=1", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "'nothing' is not one of main_types" in done.stderr


def test_bad_input_is_refused(run_script, truth, perfect, tmp_path):
    done = check(run_script, truth, perfect.drop(columns=["main_type", "kept"]), tmp_path, expect=65)
    assert "cells.parquet: columns kept, main_type are missing" in done.stderr
    done = check(run_script, truth, perfect.iloc[5:], tmp_path, expect=65)
    assert "5 of 320 planted droplets have no row, the first is A:" in done.stderr
    done = check(run_script, tmp_path / "none", perfect, tmp_path, expect=65)
    assert "samples.tsv" in done.stderr and "not found" in done.stderr
    assert not (tmp_path / "recovery.tsv").exists()
