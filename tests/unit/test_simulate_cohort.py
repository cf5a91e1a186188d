"""SIMULATE_COHORT through its command line: files, determinism, independence of samples, refusals."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import mmread

from scresist.io import InputError

SPEC = importlib.util.spec_from_file_location(
    "simulate_cohort", Path(__file__).resolve().parents[2] / "bin" / "simulate_cohort.py"
)
SCRIPT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SCRIPT)
SMALL = ("--n_genes", 2500, "--n_cells", 60)


@pytest.fixture(scope="module")
def simulate(run_script, root):
    def call(cwd: Path, *more: object, check: bool = True):
        assets = root / "assets"
        return run_script(
            "simulate_cohort",
            *("--positions", assets / "gene_positions.tsv.gz", "--arms", assets / "arms.tsv"),
            *("--cell_cycle", assets / "cell_cycle.tsv", "--markers", assets / "markers.tsv", *SMALL, *more),
            cwd=cwd,
            check=check,
        )

    return call


@pytest.fixture(scope="module")
def demo(simulate, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    simulate(folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "truth" / f"{name}.tsv", sep="\t", keep_default_na=False, na_values=[""])


def design(folder: Path, text: str, name: str = "design.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_demo_cohort_is_a_samplesheet_with_its_folders_and_truth(demo):
    sheet = pd.read_csv(demo / "cohort" / "samplesheet.csv")
    assert len(sheet) == 11
    assert sheet["patient"].nunique() == 9
    truth = pd.read_parquet(demo / "truth" / "cells.parquet")
    assert truth["cell"].is_unique
    for row in sheet.itertuples():
        folder = demo / "cohort" / row.path
        with gzip.open(folder / "matrix.mtx.gz") as stream:
            matrix = mmread(stream)
        genes = gzip.decompress((folder / "features.tsv.gz").read_bytes()).decode().splitlines()
        names = gzip.decompress((folder / "barcodes.tsv.gz").read_bytes()).decode().split()
        assert matrix.shape == (len(genes), len(names)) == (2500, len(names))
        assert matrix.data.dtype.kind == "i" and matrix.data.min() > 0
        assert all(line.split("\t")[2] == "Gene Expression" for line in genes)
        assert [f"{row.sample}:{name}" for name in names] == list(truth.loc[truth["sample"] == row.sample, "cell"])
    samples = pd.read_csv(demo / "truth" / "samples.tsv", sep="\t").set_index("sample")
    assert samples.loc["POST-4", "n_cells"] == 35
    assert samples.loc["POST-4", "expected_status"] == "skipped_too_few_cells"
    # truth tables agree with one another
    assert (truth.groupby("sample")["is_doublet"].sum() == samples["n_doublets"]).all()
    n = pd.read_csv(demo / "truth" / "proportions.tsv", sep="\t").groupby("sample")["n_cells"].sum()
    assert (n == samples["n_good"]).all()
    clones = table(demo, "clones")
    good = truth[~(truth["is_doublet"] | truth["is_poor"]) & truth["is_malignant"]]
    assert clones["n"].sum() == len(good)
    one = clones.set_index(["clone", "sample"])["n"]
    assert one[("P1.a", "PRE-1")] == ((good["clone"] == "P1.a") & (good["sample"] == "PRE-1")).sum()
    assert ((truth["clone"] != "") == truth["is_malignant"]).all()
    assert (truth["activity_primary"].notna() == truth["is_malignant"]).all()
    status = pd.read_csv(demo / "simulate_cohort.cohort.status.tsv", sep="\t")
    assert status.loc[0, ["status", "n_samples", "n_patients"]].tolist() == ["ok", 11, 9]


def test_truth_of_the_demo_tells_the_story_of_p1(demo):
    changes = table(demo, "clone_changes").set_index(["clone", "contrast"])["expected_class"]
    named = {clone: changes[(clone, "POST_vs_PRE")] for clone in ("P1.a", "P1.b", "P1.c")}
    assert named == {"P1.a": "expanding", "P1.b": "lost", "P1.c": "emerging"}
    events = table(demo, "clone_events")
    on_17q = events[events["arm"] == "17q"].set_index("clone")["copy_number"]
    assert on_17q.to_dict() == {"P1.b": 4, "P1.c": 1}  # ERBB2: gained before therapy, lost after it
    assert set(events["patient"]) == {f"P{n}" for n in range(1, 10)} - {"P3"}
    assert table(demo, "tumours").set_index("patient")["kind"].to_dict()["P3"] == "quiet"
    n = table(demo, "clones").groupby("patient")["clone"].nunique()
    assert (n == 1).sum() >= 4 and n.max() == 3
    shares = table(demo, "clones")
    assert (shares.groupby("sample")["expected_share"].sum().round(9) == 1).all()
    fold = table(demo, "expression").set_index(["contrast", "gene"])["log2fc"]
    assert fold[("POST_vs_PRE", "ERBB2")] < -1 and fold[("POST_vs_PRE", "CST3")] > 1
    assert fold[("PRE_vs_POST", "ERBB2")] == -fold[("POST_vs_PRE", "ERBB2")]
    panels = table(demo, "panels").set_index(["gene", "cell_type", "contrast"])["direction"]
    assert panels[("PDCD1", "CD8_T", "RES_vs_PRE")] == "down" and panels[("PDCD1", "CD8_T", "POST_vs_RES")] == "up"
    assert panels[("HLA-A", "Macrophage", "RES_vs_PRE")] == "up" and panels[("CST3", "tumour", "POST_vs_PRE")] == "up"


def test_equal_seeds_give_equal_bytes_and_others_do_not(simulate, demo, tmp_path):
    (again := tmp_path / "again").mkdir()
    (other := tmp_path / "other").mkdir()
    simulate(again)
    assert digests(again) == digests(demo)
    row = design(tmp_path, "sample,patient,phase,n_cells\nA,P1,PRE,30\n")
    for seed in (1, 2):
        (other / str(seed)).mkdir()
        simulate(other / str(seed), "--seed", seed, "--design", row)
    matrix = "cohort/A/matrix.mtx.gz"
    assert digests(other / "1")[matrix] != digests(other / "2")[matrix]


def test_a_sample_does_not_depend_on_the_others(simulate, tmp_path):
    head = "sample,patient,phase,batch\n"
    for name, text in (("one", "A,P1,PRE,x\n"), ("two", "B,P2,POST,y\nA,P1,PRE,x\n")):
        (tmp_path / name).mkdir()
        simulate(tmp_path / name, "--design", design(tmp_path / name, head + text))
    alone, together = digests(tmp_path / "one" / "cohort" / "A"), digests(tmp_path / "two" / "cohort" / "A")
    assert alone == together


def test_a_patients_clones_do_not_depend_on_other_patients(simulate, tmp_path):
    head = "sample,patient,phase,tumour\n"
    for name, text in (("one", "A,Q7,PRE,\n"), ("two", "B,Q1,POST,none\nC,Q2,PRE,quiet\nA,Q7,PRE,clones\n")):
        (tmp_path / name).mkdir()
        simulate(tmp_path / name, "--design", design(tmp_path, head + text))
    one, two = (table(tmp_path / name, "clone_events") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two[two["patient"] == "Q7"].reset_index(drop=True))
    assert set(two["patient"]) == {"Q7"}
    assert digests(tmp_path / "one" / "cohort" / "A") == digests(tmp_path / "two" / "cohort" / "A")
    cells = pd.read_parquet(tmp_path / "two" / "truth" / "cells.parquet")
    assert not cells.loc[cells["sample"] == "B", "is_malignant"].any()
    assert set(cells.loc[(cells["sample"] == "C") & cells["is_malignant"], "clone"]) == {"Q2.a"}


def test_own_design_with_tiny_samples_and_free_phases(simulate, tmp_path):
    table = "sample\tpatient\tphase\tn_cells\nA\tP1\tearly\t0\nB\tP1\tlate\t1\nC\tP2\tlate\t80\n"
    simulate(tmp_path, "--design", design(tmp_path, table, "design.tsv"))
    samples = pd.read_csv(tmp_path / "truth" / "samples.tsv", sep="\t")
    assert samples["n_cells"].tolist() == [0, 1, 80]
    assert samples["expected_status"].tolist() == ["skipped_too_few_cells", "skipped_too_few_cells", "ok"]
    sheet = pd.read_csv(tmp_path / "cohort" / "samplesheet.csv")
    assert list(sheet.columns) == ["sample", "patient", "phase", "path"]
    assert np.isnan(samples.loc[0, "median_genes"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample,phase\nA,PRE\n", "columns patient are missing; found sample, phase"),
        ("sample,patient,phase,color\nA,P,PRE,red\n", "columns color are unknown"),
        ("sample,patient,phase\n", "no sample below the header"),
        ("sample,patient,phase\nA,P,PRE\nA,P,POST\n", "sample A occurs 2 times"),
        ("sample,patient,phase,n_cells\nA,P,PRE,many\n", "row 2, n_cells: 'many' is not a whole number"),
        ("sample,patient,phase,depth\nA,P,PRE,0\n", "row 2, depth: 0.0 is outside 0.01 to 100"),
        ("sample,patient,phase,epithelial\nA,P,PRE,-1\n", "row 2, epithelial: -1.0 is outside 0.01 to 100"),
        ("sample,patient,phase,tumour\nA,P,PRE,loud\n", "row 2, tumour: 'loud' is not one of clones, quiet, none"),
        ("sample,patient,phase,tumour\nA,P,PRE,quiet\nB,P,POST,none\n", "patient P has the tumours none, quiet"),
        ("sample,patient,phase\n../A,P,PRE\n", "row 2, sample: '../A' is not an id"),
    ],
)
def test_a_design_that_cannot_be_used_is_refused_with_its_row(tmp_path, text, message):
    with pytest.raises(InputError) as caught:  # within this process: starting Python takes longer than the work
        SCRIPT.read_design(design(tmp_path, text))
    assert message in str(caught.value)


def test_a_refused_design_leaves_nothing_behind(simulate, tmp_path):
    done = simulate(tmp_path, "--design", design(tmp_path, "sample,phase\nA,PRE\n"), check=False)
    assert done.returncode == 65
    assert "columns patient are missing; found sample, phase" in done.stderr
    assert not (tmp_path / "cohort").exists()


def test_arms_need_their_columns(simulate, tmp_path):
    (tmp_path / "arms.tsv").write_text("chromosome\tstart\n1\t5\n")
    done = simulate(tmp_path, "--arms", "arms.tsv", check=False)
    assert done.returncode == 65
    assert "arms.tsv: columns arm, end are missing; found chromosome, start" in done.stderr


def test_too_few_genes_are_refused(run_script, root, tmp_path):
    assets = root / "assets"
    tables = ("--positions", assets / "gene_positions.tsv.gz", "--arms", assets / "arms.tsv", "--markers", assets / "markers.tsv")
    tables += ("--cell_cycle", assets / "cell_cycle.tsv")
    options = (*tables, "--n_genes", 100)
    done = run_script("simulate_cohort", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "n_genes is 100: choose" in done.stderr
