"""SCORE_COMMUNICATION through its command line: a planted signal, every status, every error, byte-equal second run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import io, pair_tables
from tests.data import cohorts

TABLES = ("liana.tsv.gz", "lr_prob.tsv.gz", "pathway_prob.tsv", "comm_strength.tsv", "comm_groups.tsv")
FILES = ["--input", "merged.h5ad", "--annotation", "annotation.parquet", "--samples", "samples.tsv", "--lr_table", "pairs.tsv"]
OPTIONS = ["--sample", "A1", *FILES]
# The markers of tests/data/cohorts.py as signals: from epithelial cells to T cells, back to B cells, and one with a complex.
PAIRS = [
    ("CDH1:CD8A", "ADHESION", "CDH1", "CD8A", ""),
    ("IL7R:MS4A1", "IL", "IL7R", "MS4A1", ""),
    ("CD3D_CD3E:CD79A_CD79B", "TCR", "CD3D,CD3E", "CD79A,CD79B", ""),
    ("EPCAM:BANK1", "ADHESION", "EPCAM", "BANK1", "KRT8"),
    ("EPCAM:NOWHERE", "LOST", "EPCAM", "NOWHERE", ""),
]


def pair_table(rows=PAIRS) -> pd.DataFrame:
    return pd.DataFrame(
        [(pair, way, *pair.split(":"), ligand, receptor, anti) for pair, way, ligand, receptor, anti in rows],
        columns=["pair", "pathway", "ligand", "receptor", "ligand_genes", "receptor_genes", "antagonist"],
    )


def cohort(folder: Path, *, n_cells: int = 120, order: int | None = None, rare: int = 5, known: bool = False) -> None:
    """Two samples; types Epithelial, T_NK, B, Mast (`rare` cells, of sample A1 only) and cells without a type.

    known: plain genes bear names from liana's resource, so that LIANA has something to rank.
    """
    made = [cohorts.sample(name, n_cells, at, patient=name[0], n_plain=60, shift=0.1) for at, name in enumerate(("A1", "B1"))]
    merged = cohorts.merged(made)
    if known:
        resource = pair_tables.liana_resource()
        single = resource[~(resource["ligand"] + resource["receptor"]).str.contains("_")].iloc[::20]
        names = [name for name in dict.fromkeys(single.to_numpy().ravel()) if name not in set(merged.var_names)]
        plain = [name for name in merged.var_names if name.startswith("GENE")]
        merged.var_names = [dict(zip(plain, names, strict=False)).get(name, name) for name in merged.var_names]
        merged = merged[:, sorted(merged.var_names)].copy()
    if order is not None:
        merged = merged[np.random.default_rng(order).permutation(merged.n_obs)].copy()
    merged.write_h5ad(folder / "merged.h5ad")
    kind = merged.obs["kind"].astype(str).to_numpy(dtype=object)
    number = np.array([int(name.split(":C")[1]) for name in merged.obs_names])
    kind[(number < 3 * rare) & (number % 3 == 0) & (merged.obs["sample"] == "A1").to_numpy()] = "Mast"
    kind[(number >= n_cells - 4)] = "unresolved"
    annotation = pd.DataFrame({"cell": merged.obs_names, "main_type": kind, "subtype": kind, "lineage": "x"})
    io.write_fragment(annotation, folder / "annotation.parquet")
    design = pd.DataFrame({"sample": ["B1", "A1"], "patient": ["B", "A"], "phase": ["PRE", "POST"]})
    io.write_tsv(design, folder / "samples.tsv")
    io.write_tsv(pair_table(), folder / "pairs.tsv")


@pytest.fixture
def step(root, tmp_path, monkeypatch):
    """The script called within this process in tmp_path: imports are paid once for all tests."""
    spec = importlib.util.spec_from_file_location("step_score_communication", root / "bin" / "score_communication.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "step_score_communication", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(root / ".cache" / "numba"))
    return lambda *args: module.main([str(arg) for arg in args])


def read(name: str, sample: str = "A1") -> pd.DataFrame:
    return io.read_tsv(Path(f"{sample}.{name}"), dtype={"estimable": str, "pval": float})


def state(sample: str = "A1") -> pd.Series:
    return io.read_tsv(Path(f"score_communication.{sample}.status.tsv")).iloc[0]


def content(folder: Path) -> dict[str, bytes]:
    names = [*(f"A1.{table}" for table in TABLES), "score_communication.A1.status.tsv"]
    return {name: (folder / name).read_bytes() for name in names}


def test_outputs_and_a_second_run_of_equal_bytes(run_script, tmp_path, monkeypatch):
    cohort(tmp_path, known=True)
    monkeypatch.chdir(tmp_path)
    options = [*OPTIONS, "--n_perms_liana", "5", "--min_cells", "4"]
    done = run_script("score_communication", *options, cwd=tmp_path)
    assert done.stderr == ""
    first = content(tmp_path)
    cohort(tmp_path, order=5, known=True)  # the same cells in another order, two threads
    run_script("score_communication", *options, "--threads", "2", cwd=tmp_path)
    assert content(tmp_path) == first
    record = json.loads((tmp_path / "score_communication.A1.provenance.json").read_text())
    assert record["parameters"]["lr_table"] == "pairs.tsv" and {"liana", "numba"} <= set(record["packages"])

    ranks = read("liana.tsv.gz")
    assert list(ranks)[:5] == ["sample", "source", "target", "ligand", "receptor"]
    assert {"lr_means", "lrscore", "magnitude_rank", "specificity_rank"} <= set(ranks) and len(ranks)
    assert ranks["magnitude_rank"].is_monotonic_increasing


def test_planted_signals(step, tmp_path):
    cohort(tmp_path)
    assert step(*OPTIONS, "--skip_liana") == 0
    assert "LIANA's consensus was switched off (--skip_liana)" in state()["reason"]  # its tables are empty for a reason
    groups = read("comm_groups.tsv")
    assert groups["cell_type"].tolist() == ["B", "Epithelial", "Mast", "T_NK"]  # cells without a type are no type
    assert groups["n_cells"].tolist() == [38, 34, 5, 39] and groups["estimable"].tolist() == ["true", "true", "false", "true"]
    assert set(groups["patient"]) == {"A"} and set(groups["phase"]) == {"POST"}

    links = read("lr_prob.tsv.gz")
    assert list(links) == ["sample", "source", "target", "pair", "pathway", "ligand", "receptor", "prob", "pval"]
    assert (links["prob"] > 0).all() and "Mast" not in {*links["source"], *links["target"]}
    top = links.sort_values("prob", ascending=False).groupby("pair").head(1).set_index("pair")
    assert set(top.index) == {"CDH1:CD8A", "IL7R:MS4A1", "CD3D_CD3E:CD79A_CD79B", "EPCAM:BANK1"}
    assert top.loc["CDH1:CD8A", ["source", "target", "pval"]].tolist() == ["Epithelial", "T_NK", 0]
    assert top.loc["CD3D_CD3E:CD79A_CD79B", ["source", "target"]].tolist() == ["T_NK", "B"]

    pathways = read("pathway_prob.tsv")
    significant = links[links["pval"] <= 0.05]
    expected = significant.groupby(["source", "target", "pathway"])["prob"].agg(["sum", "size"])
    found = pathways.set_index(["source", "target", "pathway"]).sort_index()
    assert found.index.tolist() == expected.index.tolist()
    assert found["prob"].to_numpy() == pytest.approx(expected["sum"].to_numpy(), rel=1e-5)
    assert found["n_pairs"].tolist() == expected["size"].tolist()

    strength = read("comm_strength.tsv").set_index("cell_type")
    assert strength.index.tolist() == groups["cell_type"].tolist()
    assert strength.loc["Mast", ["outgoing", "incoming", "n_links"]].isna().all()  # empty, never zero
    assert strength["outgoing"].sum() == pytest.approx(significant["prob"].sum(), rel=1e-5)
    assert strength["incoming"].sum() == pytest.approx(significant["prob"].sum(), rel=1e-5)
    for name, row in strength.drop("Mast").iterrows():
        assert row["n_links"] == ((significant["source"] == name) | (significant["target"] == name)).sum()
    assert len(read("liana.tsv.gz")) == 0

    row = state()
    assert (row["status"], row["n_cells"]) == ("ok", 120)
    assert row["reason"].endswith("; not estimable with 5 cells or fewer: Mast (5); their links are empty, not zero")
    assert "between 3 cell types, by" in row["sentence"] and "no contact or effect was measured" in row["sentence"]


def test_probabilities_are_those_of_the_sample_alone(step, tmp_path):
    """P by hand from the file: the maximum runs over all cells of the sample and all genes of the table."""
    import anndata

    cohort(tmp_path)
    step(*OPTIONS, "--skip_liana", "--no_cofactors")
    merged, annotation = anndata.read_h5ad("merged.h5ad"), pd.read_parquet("annotation.parquet").set_index("cell")
    mine = merged[merged.obs["sample"] == "A1"]
    genes = ["BANK1", "CD3D", "CD3E", "CD79A", "CD79B", "CD8A", "CDH1", "EPCAM", "IL7R", "KRT8", "MS4A1"]
    values = sparse.csr_matrix(mine[:, genes].X).toarray().astype(float)
    table = pd.DataFrame(values / values.max(), columns=genes)
    kind = annotation.loc[mine.obs_names, "subtype"].to_numpy()

    def trimean(gene, name):
        low, middle, high = np.quantile(table.loc[kind == name, gene], [0.25, 0.5, 0.75])
        return (low + 2 * middle + high) / 4

    links = read("lr_prob.tsv.gz").set_index(["pair", "source", "target"])["prob"]
    power = trimean("EPCAM", "Epithelial") * trimean("BANK1", "B")
    assert links["EPCAM:BANK1", "Epithelial", "B"] == pytest.approx(power / (0.5 + power), rel=1e-5)
    power = np.sqrt(trimean("CD3D", "T_NK") * trimean("CD3E", "T_NK") * trimean("CD79A", "B") * trimean("CD79B", "B"))
    assert links["CD3D_CD3E:CD79A_CD79B", "T_NK", "B"] == pytest.approx(power / (0.5 + power), rel=1e-5)

    step(*OPTIONS, "--skip_liana")  # KRT8 is an antagonist of the first pair and expressed by its sender
    factor = np.prod([0.5 / (0.5 + trimean("KRT8", name)) for name in ("Epithelial", "B")])
    power = trimean("EPCAM", "Epithelial") * trimean("BANK1", "B")
    links = read("lr_prob.tsv.gz").set_index(["pair", "source", "target"])["prob"]
    assert links["EPCAM:BANK1", "Epithelial", "B"] == pytest.approx(power / (0.5 + power) * factor, rel=1e-5)


def test_options(step, tmp_path):
    cohort(tmp_path)
    # a pair whose genes no type has more of than the others (Wilcoxon p of 0.39 and 0.35 at best)
    io.write_tsv(pair_table([*PAIRS, ("GENE0027:GENE0053", "PLAIN", "GENE0027", "GENE0053", "")]), tmp_path / "pairs.tsv")
    step(*OPTIONS, "--skip_liana", "--groupby", "main_type", "--min_cells", "4")
    assert set(read("comm_groups.tsv")["estimable"]) == {"true"} and "not estimable" not in state()["reason"]
    before = read("lr_prob.tsv.gz")
    step(*OPTIONS, "--skip_liana", "--min_cells", "4", "--kh", "0.1")
    assert read("lr_prob.tsv.gz")["prob"].sum() > 1.2 * before["prob"].sum()
    step(*OPTIONS, "--skip_liana", "--min_cells", "4", "--seed", "2")
    again = read("lr_prob.tsv.gz")
    assert again.drop(columns="pval").equals(before.drop(columns="pval")) and not again["pval"].equals(before["pval"])
    step(*OPTIONS, "--skip_liana", "--min_cells", "4", "--prefilter", "overexpressed")
    filtered = read("lr_prob.tsv.gz")
    assert "GENE0027:GENE0053" in set(before["pair"]) - set(filtered["pair"])
    kept = before[before["pair"].isin(set(filtered["pair"]))].reset_index(drop=True)
    assert filtered.equals(kept) and {"CDH1:CD8A", "IL7R:MS4A1"} <= set(filtered["pair"])


def test_bundled_table(step, tmp_path, root):
    """Families of ligands joined to liana's resource: genes of cohorts.py are hardly among them, the step says so."""
    cohort(tmp_path)
    step(*OPTIONS[:-1], root / "assets" / "lr_pathways.tsv", "--skip_liana")
    assert state()["status"] == "skipped_few_genes" and "none of the 4620 pairs of lr_pathways.tsv" in state()["reason"]
    assert [len(read(table)) for table in TABLES] == [0, 0, 0, 4, 4]


def test_too_few_types(step, tmp_path):
    cohort(tmp_path)
    step(*OPTIONS, "--skip_liana", "--min_cells", "38")
    row = state()
    assert row["status"] == "skipped_too_few_cells"
    assert row["reason"] == "1 cell types with more than 38 cells (120 cells in all), 2 types needed"
    for table in TABLES[:3]:
        assert len(read(table)) == 0 and "sample" in read(table)
    assert read("comm_strength.tsv")[["outgoing", "incoming", "n_links"]].isna().all(axis=None)


def test_a_sample_that_lost_all_its_cells(step, tmp_path):
    cohort(tmp_path)
    design = io.read_tsv(tmp_path / "samples.tsv", dtype=str)
    io.write_tsv(
        pd.concat([design, pd.DataFrame({"sample": ["C1"], "patient": ["C"], "phase": ["PRE"]})]), tmp_path / "samples.tsv"
    )
    step("--sample", "C1", *FILES)
    assert state("C1")["status"] == "skipped_too_few_cells" and state("C1")["n_cells"] == 0
    groups = read("comm_groups.tsv", "C1")
    assert groups["n_cells"].tolist() == [0] * 4 and set(groups["estimable"]) == {"false"}


def test_liana_without_a_pair_is_said(step, tmp_path):
    cohort(tmp_path)
    step(*OPTIONS, "--n_perms_liana", "2")  # two thousand genes of its resource, of which the cohort has a handful
    assert len(read("liana.tsv.gz")) == 0 and "LIANA ranks nothing" in state()["reason"]
    assert len(read("lr_prob.tsv.gz")) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--sample", "Z9"], "samples.tsv: 0 rows of sample Z9, expected 1; samples are A1, B1"),
        (["--groupby", "main_type"], "annotation.parquet: no column main_type; columns are subtype"),
        (["--lr_version", "v1"], "pairs.tsv: no pair of version v1"),
        (["--lr_complexes", "pairs.tsv"], "pairs.tsv: --lr_complexes belong to CellChatDB's interaction table"),
    ],
)
def test_input_that_contradicts(step, tmp_path, change, message):
    cohort(tmp_path)
    frame = pd.read_parquet(tmp_path / "annotation.parquet").drop(columns=["main_type", "lineage"])
    io.write_fragment(frame, tmp_path / "annotation.parquet")
    with pytest.raises(io.InputError, match=message):
        step(*OPTIONS, "--skip_liana", *change)


def test_files_that_break_their_contract(run_script, step, tmp_path):
    cohort(tmp_path)
    frame = pd.read_parquet(tmp_path / "annotation.parquet")
    io.write_fragment(frame.iloc[5:], tmp_path / "annotation.parquet")
    done = run_script("score_communication", *OPTIONS, "--skip_liana", cwd=tmp_path, check=False)
    assert done.returncode == 65 and "5 of 120 cells have no row, the first is A1:C00000" in done.stderr
    io.write_fragment(frame, tmp_path / "annotation.parquet")
    io.write_tsv(io.read_tsv(tmp_path / "samples.tsv").drop(columns="phase"), tmp_path / "samples.tsv")
    with pytest.raises(io.InputError, match=r"samples\.tsv: no column phase; columns are sample, patient"):
        step(*OPTIONS)
