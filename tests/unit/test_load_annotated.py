"""LOAD_ANNOTATED: an object of ours gives back the cohort it was made from, one of others is read or refused as a whole."""

from __future__ import annotations

import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import cohorts
import load_annotated

from scresist import cli, contract, io
from scresist.io import InputError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
TABLES = [
    *("--positions", ASSETS / "gene_positions.tsv.gz", "--aliases", ASSETS / "gene_aliases.tsv.gz"),
    *("--markers", ASSETS / "markers.tsv", "--label_map", ASSETS / "label_map.tsv"),
]
OUTPUTS = {
    "merged.h5ad", "annotation.parquet", "clusters.parquet", "embedding.parquet", "cohort.cells.parquet", "samplesheet.tsv",
    "types.tsv", "marker_check.tsv", "load_annotated.tsv", "load_annotated.cohort.status.tsv",
    "load_annotated.cohort.provenance.json",
}  # fmt: skip
TYPES = ["B", "Epithelial", "Fibroblast"]
GENES = ["ACTB", "CD79A", "COL1A1", "EPCAM", "ERBB2", "GAPDH", "MKI67", "MS4A1", "MT-ND1"]
IDS = {"ERBB2": "ENSG00000141736", "MKI67": "ENSG00000148773"}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """The script within this process, which has loaded its libraries; one test below pays for a process of its own."""
    monkeypatch.setattr(cli, "limit_threads", lambda threads: None)
    monkeypatch.setattr(cli, "prepare_caches", lambda: None)

    def call(given: anndata.AnnData | Path, *more: object, folder: str = "out") -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        path = given
        if isinstance(given, anndata.AnnData):
            (tmp_path / f"in_{folder}").mkdir(exist_ok=True)
            path = tmp_path / f"in_{folder}" / "object.h5ad"
            given.write_h5ad(path)
        monkeypatch.chdir(place)
        argv = ["--input", path, *TABLES, "--min_genes_matrix", 2, *more]
        assert load_annotated.main([str(part) for part in argv]) == 0
        return place

    return call


OWN = {"CD79A": "B", "MS4A1": "B", "EPCAM": "Epithelial", "ERBB2": "Epithelial", "COL1A1": "Fibroblast"}


def draw(n: int = 60, seed: int = 1) -> np.ndarray:
    """Counts of n cells that are B, Epithelial, Fibroblast in turn; a gene of one type is silent in the others."""
    kinds = np.array(TYPES)[np.arange(n) % 3]
    mean = np.array([[3.0 if OWN.get(gene, kind) == kind else 0.0 for gene in GENES] for kind in kinds])
    return np.random.default_rng(seed).poisson(mean)


def made(n: int = 60, **obs) -> anndata.AnnData:
    """Three samples of two patients with everything that can be taken, cells out of order."""
    at = np.arange(n)
    columns = {
        "sample": np.array(["S3", "S1", "S2"])[at // 3 % 3],
        "patient": np.array(["P2", "P1", "P1"])[at // 3 % 3],
        "phase": np.array(["POST", "PRE", "POST"])[at // 3 % 3],
        "main_type": np.array(TYPES)[at % 3],
    }
    frame = pd.DataFrame({**columns, **obs}, index=[f"C{i:03d}" for i in at])
    counts = draw(n)
    adata = anndata.AnnData(np.log1p(counts).astype(np.float32), obs=frame, var=pd.DataFrame(index=GENES))
    adata.layers["counts"] = sparse.csr_matrix(counts.astype(np.float32))
    adata.obsm["X_scVI"] = np.column_stack([at, -at]).astype(np.float32)
    adata.obsm["X_umap"] = np.column_stack([at + 0.5, at]).astype(np.float64)
    return adata


def state(folder: Path) -> pd.Series:
    return io.read_tsv(folder / "load_annotated.cohort.status.tsv", dtype=str).fillna("").iloc[0]


def row(folder: Path) -> pd.Series:
    return io.read_tsv(folder / "load_annotated.tsv", dtype=str).fillna("").iloc[0]


# --- what is written


def test_everything_that_cohort_would_have_written(load):
    given = made(
        batch=["b1"] * 60, subtype=["Plasma", "", "Pericyte"] * 20, leiden=pd.Categorical([str(i % 2) for i in range(60)])
    )
    out = load(given)
    assert {path.name for path in out.iterdir() if path.is_file()} == OUTPUTS
    merged = contract.check(anndata.read_h5ad(out / "merged.h5ad"), "merged.h5ad", normalised=True)

    # cells: `<sample>:<name>`, sorted within samples; row i of the object is found again everywhere by its name
    names = [f"{s}:{c}" for s, c in zip(given.obs["sample"], given.obs_names, strict=True)]
    assert merged.obs_names.tolist() == sorted(names)
    place = {cell: at for at, cell in enumerate(names)}
    order = [place[cell] for cell in merged.obs_names]
    counts = draw()[order]
    assert (merged.layers["counts"].toarray() == counts).all()
    assert merged.layers["counts"].dtype == np.int32
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    assert np.abs(merged.X.toarray() - expected).max() < 1e-5
    assert merged.obs["patient"].tolist() == given.obs["patient"].iloc[order].tolist()
    assert set(merged.obs["batch"]) == {"b1"}
    assert list(merged.obs) == ["sample", "patient", "phase", "batch"]
    # positions as the README of the real data names them
    for gene, chromosome, start in (("ERBB2", "17", 39688084), ("MKI67", "10", 128096661)):
        found = merged.var.loc[gene]
        assert found["chromosome"] == chromosome
        assert abs(found["start"] - start) < 1000  # annotations differ in their first exon
        assert found["gene_id"] == IDS[gene]
    assert not merged.var.loc["MT-ND1", "highly_variable"]

    annotation = io.read_fragment(out / "annotation.parquet")
    assert annotation.index.tolist() == merged.obs_names.tolist()
    assert annotation["main_type"].tolist() == given.obs["main_type"].iloc[order].tolist()
    lineage = {"B": "immune", "Epithelial": "epithelial", "Fibroblast": "stromal"}
    assert annotation["lineage"].tolist() == [lineage[t] for t in annotation["main_type"]]
    assert set(zip(annotation["main_type"], annotation["subtype"], strict=True)) == {
        ("B", "Plasma"), ("Epithelial", "Epithelial"), ("Fibroblast", "Pericyte"),
    }  # fmt: skip
    embedding = io.read_fragment(out / "embedding.parquet")
    assert embedding.to_numpy().tolist() == [[at, -at] for at in order]
    assert list(embedding) == ["latent_1", "latent_2"]
    clusters = io.read_fragment(out / "clusters.parquet")
    assert clusters["umap_1"].tolist() == [at + 0.5 for at in order]
    assert clusters["cluster"].tolist() == [str(at % 2) for at in order]
    cells = io.read_fragment(out / "cohort.cells.parquet")
    assert list(cells) == ["sample", "patient", "phase", "batch", "kept"]
    assert cells["kept"].all()
    types = io.read_tsv(out / "types.tsv")
    assert types["n_cells"].sum() == 60
    assert types.loc[types["sample"] == "S1", "n_cells"].tolist() == [7, 7, 7]
    found = state(out)
    assert (found["status"], found["n_cells"], found["n_samples"], found["n_patients"]) == ("ok", "60", "3", "2")
    assert "began with the annotated object object.h5ad: 60 cells of 3 cell types" in found["sentence"]
    told = row(out)
    assert (told["slot"], told["embedding"], told["n_latent"], told["umap"], told["lineage_from"]) == (
        "layers['counts']", "X_scVI", "2", "X_umap", "tables",
    )  # fmt: skip


def test_marker_check_is_the_plain_mean_over_cells(load):
    out = load(made())
    table = io.read_tsv(out / "marker_check.tsv").set_index(["main_type", "gene"])
    counts = draw()
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    of_b, gene = np.arange(60) % 3 == 0, GENES.index("CD79A")
    assert table.loc[("B", "CD79A"), "pct"] == pytest.approx(100 * (counts[of_b, gene] > 0).mean(), rel=1e-5)
    assert table.loc[("B", "CD79A"), "mean_log"] == pytest.approx(x[of_b, gene].mean(), rel=1e-4)
    assert table.loc[("Epithelial", "CD79A"), "pct"] == 0
    assert table.loc[("B", "CD79A"), "n_cells"] == 20
    assert "ACTB" not in table.index.get_level_values("gene")  # no marker


def test_order_of_cells_and_genes_changes_no_byte(load):
    given = made(trait_age=[61.5] * 60)
    order, genes = np.random.default_rng(0).permutation(60), np.random.default_rng(1).permutation(len(GENES))
    one, other = load(given, folder="one"), load(given[order][:, genes].copy(), folder="other")
    again = load(given, folder="again")
    for name in sorted(OUTPUTS):
        assert (one / name).read_bytes() == (again / name).read_bytes(), name
        if not name.endswith("provenance.json"):  # it holds the checksum of the file
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_genes_of_fewer_than_three_cells_are_left_out(load):
    given = made()
    counts = given.layers["counts"].tolil()
    counts[:, GENES.index("GAPDH")] = 0
    counts[0, GENES.index("GAPDH")] = counts[1, GENES.index("GAPDH")] = 5
    given.layers["counts"] = counts.tocsr()
    assert "GAPDH" not in anndata.read_h5ad(load(given) / "merged.h5ad").var_names


def test_ensembl_ids_become_symbols_and_raw_is_read(load):
    """An object as many publish it: scaled X over few genes, counts in raw, ids as names, other words for the columns."""
    full = made(n=60)
    raw = anndata.AnnData(
        full.layers["counts"].copy(), obs=full.obs, var=pd.DataFrame(index=[IDS.get(g, g) + ".3" * (g in IDS) for g in GENES])
    )
    given = anndata.AnnData(
        np.ones((60, 2), dtype=np.float32) * -0.5, obs=full.obs.rename(columns={"sample": "orig.ident", "phase": "time"})
    )
    given.var_names = ["EPCAM", "CD79A"]
    given.raw = raw
    given.obs["cell_type"] = ["B cells", "Epithelial cells", "Fibroblasts"] * 20  # labels that the label map knows
    out = load(given, "--sample_column", "orig.ident", "--phase_column", "time", "--type_column", "cell_type")
    merged = anndata.read_h5ad(out / "merged.h5ad")
    assert merged.var_names.tolist() == GENES
    assert merged.layers["counts"].sum() == draw().sum()
    assert row(out)["slot"] == "raw.X"
    assert set(io.read_fragment(out / "annotation.parquet")["lineage"]) == {"immune", "epithelial", "stromal"}
    assert row(out)["columns_left_out"] == "main_type"


def test_counts_in_a_layer_of_another_name_are_found_and_told(load):
    given = made()
    given.layers["umi"] = given.layers.pop("counts")
    given.layers["spliced"] = given.layers["umi"].copy()  # a part of the counts, whatever its values
    out = load(given)
    assert anndata.read_h5ad(out / "merged.h5ad").layers["counts"].sum() == draw().sum()
    assert state(out)["status"] == "warning"
    assert "counts were taken from layers['umi']" in state(out)["reason"]


def test_batch_is_none_where_none_is_given(load):
    given = made(batch=["none" if i // 3 % 3 else "b1" for i in range(60)])
    merged = anndata.read_h5ad(load(given) / "merged.h5ad")
    assert merged.obs.groupby("sample", observed=True)["batch"].first().to_dict() == {"S1": "none", "S2": "none", "S3": "b1"}


@pytest.mark.parametrize(("key", "expected"), [("", 0.0), ("X_mine", 7.0)])
def test_embedding_by_name_or_the_first_known(load, key, expected):
    given = made()
    for name, value in (("X_pca", 3.0), ("X_mine", 7.0), ("X_latent", 0.0)):
        given.obsm[name] = np.full((60, 2), value)
    del given.obsm["X_scVI"]
    out = load(given, "--embedding_key", key)
    assert set(io.read_fragment(out / "embedding.parquet").to_numpy().ravel()) == {expected}


def test_without_space_and_map_components_are_computed_and_said(load):
    given = made()
    del given.obsm["X_scVI"], given.obsm["X_umap"]
    out = load(given)
    found = state(out)
    assert found["status"] == "warning"
    assert "obsm holds none of X_scVI, X_latent, X_pca_harmony, X_pca (it has nothing): principal components" in found["reason"]
    assert "obsm has no X_umap" in found["reason"]
    assert io.read_fragment(out / "clusters.parquet")[["umap_1", "umap_2"]].isna().all(axis=None)
    # the components are those of the centred logs of the variable genes: same distances as by numpy's decomposition
    merged = anndata.read_h5ad(out / "merged.h5ad")
    x = merged.X[:, merged.var["highly_variable"].to_numpy()].toarray().astype(float)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    latent = io.read_fragment(out / "embedding.parquet").to_numpy(dtype=float)
    wanted = (u * s)[:, : latent.shape[1]]
    assert np.abs(latent @ latent.T - wanted @ wanted.T).max() < 1e-3


def test_columns_of_an_earlier_tumour_stage_are_not_read(load):
    given = made(malignant=["malignant"] * 60, clone=["P1.C1"] * 60, module_M1=[0.5] * 60, note=["x"] * 60)
    out = load(given)
    assert state(out)["status"] == "warning"
    assert "columns of an earlier run are not read but computed again: clone, malignant, module_M1" in state(out)["reason"]
    assert row(out)["columns_recomputed"] == "clone, malignant, module_M1"
    assert row(out)["columns_left_out"] == "note"
    for path in out.glob("*.parquet"):
        assert not {"malignant", "clone", "module_M1", "note"} & set(pd.read_parquet(path).columns)


def test_few_genes_are_a_warning(load):
    out = load(made(), "--min_genes_matrix", 5000)
    assert "9 genes, fewer than 5,000" in state(out)["reason"]


# --- what is refused


def test_all_problems_come_in_one_message_with_the_columns_found(load):
    given = made(main_type=["B", "Tumor", "Fibroblast"] * 20, patient=[f"P{i % 2}" for i in range(60)])
    given.obs["phase"] = given.obs["phase"].where(given.obs_names != "C002", None)
    given.obs = given.obs.rename(columns={"sample": "Sample"})
    del given.layers["counts"]
    given.obsm["X_scVI"][4, 1] = np.nan
    with pytest.raises(InputError) as caught:
        load(given)
    text = str(caught.value)
    assert text.startswith("object.h5ad: 5 problems with the annotated object; nothing was computed:")
    for part in (
        "obs has no column sample, which holds the sample of each cell: name Sample with --sample_column Sample",
        "obs column phase: 1 of 60 cells have no phase, the first is C002",
        "'Tumor' (20); add an obs column lineage (epithelial, immune, stromal)",
        "obsm['X_scVI']: 1 cells have missing or infinite coordinates",
        "X: values 0.693147 to",
        "these look like log-normalised values",
        "obs columns found: Sample, patient, phase, main_type",
    ):
        assert part in text, text
    assert not list(Path().glob("*.h5ad"))


def refuse_two_patients():
    return made(patient=[f"P{i % 2}" for i in range(60)])


def refuse_names():
    given = made()
    given.obs_names = ["C0"] * 30 + [f"C{i}" for i in range(30)]
    return given


def refuse_mouse():
    given = made()
    given.var_names = [gene.capitalize() for gene in GENES]
    return given


def refuse_antibodies():
    given = made()
    given.var["feature_types"] = "Antibody Capture"
    return given


def refuse_silence():
    given = made()
    given.layers["counts"] = sparse.csr_matrix((60, len(GENES)), dtype=np.float32)
    return given


def refuse_mt():
    given = made()[:, ["MT-ND1", "ACTB"]].copy()
    given.var_names = ["MT-ND1", "MT-ND2"]
    return given


def refuse_words():
    given = made()
    given.obsm["X_scVI"] = pd.DataFrame({"a": ["x"] * 60}, index=given.obs_names)
    return given


def refuse_map():
    given = made()
    given.obsm["X_umap"] = given.obsm["X_umap"][:, :1]
    return given


REFUSED = {
    "two_patients": (refuse_two_patients, [], r"obs column patient: 3 samples with several values \(S1: P0, P1; S2: P0, P1; "),
    "sample_id": (lambda: made(sample=["S 1"] * 60, patient="P", phase="PRE"), [], r"obs column sample: 1 values cannot be ids"),
    "names": (refuse_names, [], r"names occur twice within a sample \(S\d:C0"),
    "no_cell": (lambda: made()[:0].copy(), [], r"the object holds no cell"),
    "lineage": (lambda: made(lineage="myeloid"), [], r"obs column lineage: 60 cells with myeloid, the first is C000"),
    "mouse": (refuse_mouse, [], r"only 0.0% of the counts lie on known human genes .* these look like mouse or rat"),
    "antibodies": (refuse_antibodies, [], r"no feature is of type `Gene Expression`, found Antibody Capture"),
    "silence": (refuse_silence, [], r"0 of 9 genes are found in 3 cells or more, 2 needed"),
    "mitochondrial": (refuse_mt, [], r"all 2 genes are mitochondrial"),
    "embedding": (made, ["--embedding_key", "X_scvi"], r"obsm has no X_scvi \(--embedding_key\); it has X_scVI, X_umap"),
    "space_text": (refuse_words, [], r"obsm\['X_scVI'\] is 60 x 1 of type"),
    "map": (refuse_map, [], r"obsm\['X_umap'\] has 1 column, expected 2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals(kind, load):
    make, more, message = REFUSED[kind]
    with pytest.raises(InputError, match=f"(?s){message}"):
        load(make(), *more)
    assert not list(Path().glob("*"))


@pytest.mark.filterwarnings("ignore:Element '/obs' was written without encoding")
def test_files_that_are_no_annotated_object(load, tmp_path):
    text, tenx, cut, bare = (tmp_path / f"{name}.h5ad" for name in ("text", "tenx", "cut", "bare"))
    text.write_text("x")
    with h5py.File(tenx, "w") as file:
        file.create_group("matrix")
    made().write_h5ad(cut)
    with h5py.File(cut, "a") as file:
        del file["X"], file["layers"]
    made().write_h5ad(bare)
    with h5py.File(bare, "a") as file:
        del file["obs"]
        file["obs"] = np.zeros(60, dtype=[("index", "S4")])
    for path, message in (
        (text, r"text.h5ad is not an HDF5 file"),
        (tmp_path / "absent.h5ad", r"absent.h5ad is not an HDF5 file"),
        (tenx, r"tenx.h5ad is no AnnData file: its groups are matrix, expected obs and var"),
        (cut, r"cut.h5ad holds no matrix"),
        (bare, r"bare.h5ad: obs is no data frame \(anndata before 0.7\)"),
    ):
        with pytest.raises(InputError, match=message):
            load(path)


def test_tables_without_their_columns_are_refused(load, tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n")
    for option in ("--positions", "--markers", "--label_map"):
        with pytest.raises(InputError, match=r"t.tsv lacks the columns .*; it has a, b"):
            load(made(), option, tmp_path / "t.tsv")
    (tmp_path / "p.tsv").write_text("symbol\tgene_id\tchromosome\tstart\tend\nA\t\t1\tx\t2\n")
    with pytest.raises(InputError, match=r"p.tsv: start and end must be whole numbers"):
        load(made(), "--positions", tmp_path / "p.tsv")


# --- one run after another


def test_an_object_of_ours_gives_back_the_cohort_it_was_made_from(load, tmp_path, monkeypatch):
    """MERGE_COHORT, ASSEMBLE_COHORT, LOAD_ANNOTATED: counts, logs, variable genes and every label are those of the first run."""
    import assemble_cohort
    import merge_cohort

    first = tmp_path / "first"
    samples = [cohorts.sample("A", 60, 1, patient="P1"), cohorts.sample("A-1", 55, 2, patient="P2", phase="POST", batch="run2")]
    paths = cohorts.write_samples(first / "in", samples, ["A", "A-1"])
    monkeypatch.chdir(first)
    assert merge_cohort.main(["--inputs", *map(str, paths), "--markers", str(ASSETS / "markers.tsv"), "--n_hvg", "100"]) == 0
    merged = anndata.read_h5ad("merged.h5ad")
    cells = merged.obs_names.to_numpy(dtype=str)
    kind = {"Epithelial": "Epithelial", "T_NK": "CD4_T", "B": "B"}
    types = [kind[k] for s in samples for k in s.obs["kind"]]
    fragments = {
        "annotation": pd.DataFrame({"cell": cells, "main_type": types, "subtype": types,
                                    "lineage": ["epithelial" if t == "Epithelial" else "immune" for t in types]}),
        "embedding": pd.DataFrame({"cell": cells, "latent_1": np.arange(115.0), "latent_2": 1.0}),
        "clusters": pd.DataFrame({"cell": cells, "umap_1": np.arange(115.0), "umap_2": -1.0, "leiden_1.0": "0", "cluster": "0"}),
    }  # fmt: skip
    base = pd.DataFrame(
        {"cell": cells, **{c: merged.obs[c].astype(str).to_numpy() for c in merged.obs}, "kept": True, "drop_reason": ""}
    )
    base["n_counts"] = np.arange(115) + 500
    base["doublet_call"] = pd.array([True, None] + [False] * 113, dtype="boolean")
    for name, frame in {**fragments, "all.cells": base}.items():
        io.write_fragment(frame, Path(f"{name}.parquet"))
    given = ["--input", "merged.h5ad", "--cells", "all.cells.parquet", "--fragments", *(f"{name}.parquet" for name in fragments)]
    assert assemble_cohort.main(given) == 0

    out = load(first / "cohort.h5ad", "--min_known_gene_share", 0, "--n_hvg", 100)
    again = anndata.read_h5ad(out / "merged.h5ad")
    assert again.obs_names.tolist() == merged.obs_names.tolist()
    assert again.var_names.tolist() == merged.var_names.tolist()
    assert (again.layers["counts"] != merged.layers["counts"]).nnz == 0
    assert (again.X != merged.X).nnz == 0
    assert (again.var["highly_variable"] == merged.var["highly_variable"]).all()
    pd.testing.assert_frame_equal(again.obs, merged.obs)
    assert list(again.var) == list(merged.var)
    for name in ("annotation", "embedding", "clusters"):
        before, after = pd.read_parquet(first / f"{name}.parquet"), pd.read_parquet(out / f"{name}.parquet")
        pd.testing.assert_frame_equal(before, after, check_dtype=False)
    kept = io.read_fragment(out / "cohort.cells.parquet")
    assert kept["doublet_call"].tolist()[:3] == [True, pd.NA, False]
    assert kept["n_counts"].tolist() == base["n_counts"].tolist()
    assert row(out)["made_by"].startswith("scresist 0")
    assert "batch" in io.read_tsv(out / "samplesheet.tsv")


@pytest.fixture(scope="module")
def chain(run_script, tmp_path_factory):
    """The scripts of a run with --from_annotated, one after the other; the report in a process of its own, as MultiQC wants."""
    import assemble_cohort
    import check_design

    folder = tmp_path_factory.mktemp("chain")
    given = made(leiden=["0", "1", "0"] * 20, treated=[i // 3 % 3 != 1 for i in range(60)], malignant="no")
    given.obs["main_type"] = given.obs["main_type"].where(given.obs_names != "C000", "unresolved")
    given.write_h5ad(folder / "<b>object.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "limit_threads", lambda threads: None)
        patch.setattr(cli, "prepare_caches", lambda: None)
        patch.chdir(folder)
        assert load_annotated.main([str(part) for part in ("--input", "<b>object.h5ad", *TABLES)]) == 0
        assert check_design.main(["--samplesheet", "samplesheet.tsv"]) == 0
        states = sorted(path.name for path in folder.glob("*.status.tsv"))
        fragments = ["annotation.parquet", "clusters.parquet", "embedding.parquet"]
        cells = ["--input", "merged.h5ad", "--cells", "cohort.cells.parquet", "--fragments", *fragments]
        assert assemble_cohort.main([*cells, "--status", *states]) == 0
    tables = folder / "tables"
    tables.mkdir()
    for path in folder.glob("*.tsv"):
        if not path.name.endswith((".status.tsv", "samplesheet.tsv")):
            (tables / path.name).write_bytes(path.read_bytes())
    states, entries = sorted(folder.glob("*.status.tsv")), sorted(folder.glob("*.provenance.json"))
    told = ["--tables", "tables", "--status", *states, "--provenance", *entries, "--cells", "cells.parquet"]
    run_script("build_report", *told, cwd=folder)
    return folder


def test_the_design_takes_the_samples(chain):
    samples = io.read_tsv(chain / "samples.tsv", dtype=str)
    assert samples[["sample", "patient", "phase", "treated"]].to_numpy().tolist() == [
        ["S1", "P1", "PRE", "no"], ["S2", "P1", "POST", "yes"], ["S3", "P2", "POST", "yes"],
    ]  # fmt: skip
    contrasts = io.read_tsv(chain / "contrasts.tsv", dtype=str)
    assert "POST_vs_PRE" in set(contrasts["contrast"])


def test_the_assembled_object_is_that_of_the_run(chain):
    cohort = anndata.read_h5ad(chain / "cohort.h5ad")
    assert cohort.n_obs == 60
    assert cohort.obsm["X_latent"].shape == (60, 2)
    assert set(cohort.obs["main_type"]) == {"B", "Epithelial", "Fibroblast", "unresolved"}
    assert "malignant" not in cohort.obs


def test_the_report_asks_for_no_step_of_the_samples(chain):
    text = (chain / "report.html").read_text(encoding="utf-8")
    began = "The run began with an annotated object &lt;b&gt;object.h5ad: "
    for why in ("no cell was judged or left out here", "no doublet was looked for here", "its space was taken as it was given"):
        assert text.count(began + why) == 1, why
    assert "<b>object" not in text
    assert "no status row" not in text
    for anchor in (
        "quality_given",
        "doublets_given",
        "integration_given",
        "maps_type",
        "annotation_markers",
        "composition_samples",
    ):
        assert f'id="{anchor}"' in text, anchor
    for anchor in ("quality_cells", "doublets_scores", "maps_clusters", "annotation_models"):
        assert f'id="{anchor}"' not in text, anchor
    status = io.read_tsv(chain / "status.tsv", dtype=str)
    assert set(status["step"]) == {"load_annotated", "check_design", "assemble_cohort", "build_report"}


def test_a_refusal_ends_with_65_and_writes_nothing(run_script, tmp_path):
    made().write_h5ad(tmp_path / "in.h5ad")
    done = run_script("load_annotated", "--input", "in.h5ad", *TABLES, "--type_column", "celltype", cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "ERROR load_annotated: in.h5ad: 1 problem with the annotated object" in done.stderr
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"in.h5ad"}


@pytest.mark.real
def test_kang_with_the_words_of_others(load, shared_data):
    """Kang's cells: 2,000 of 9,015 genes, counts in X, no space, donors by number; refused without lineages, read with them."""
    given = anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")
    donor = given.obs["donor"].astype(str).str.removeprefix("stim").str.removesuffix(".0")
    keep = ((donor != "nan") & (given.obs["cell_type"].astype(str) != "nan")).to_numpy()
    given = given[keep].copy()
    given.obs["donor"] = donor[keep]
    given.obs["library"] = given.obs["donor"].astype(str) + "_" + given.obs["condition"].astype(str)
    options = [
        "--sample_column",
        "library",
        "--patient_column",
        "donor",
        "--phase_column",
        "condition",
        "--type_column",
        "cell_type",
    ]
    with pytest.raises(InputError, match=r"(?s)the lineage of \d types .*'CD14\+ Monocytes' .*add an obs column lineage"):
        load(given, *options)
    given.obs["lineage"] = "immune"
    out = load(given, *options)
    merged = anndata.read_h5ad(out / "merged.h5ad")
    assert merged.n_obs == keep.sum()
    total = np.asarray(given.X[:, given.var_names.get_loc("ISG15")].sum())
    assert merged[:, "ISG15"].layers["counts"].sum() == total
    assert merged.var.loc["ISG15", "chromosome"] == "1"
    check = io.read_tsv(out / "marker_check.tsv").set_index(["main_type", "gene"])
    assert check.loc[("B cells", "CD79A"), "pct"] > 5 * check.loc[("CD4 T cells", "CD79A"), "pct"]


@pytest.mark.real
def test_log_values_are_refused_naming_their_range(load, shared_data):
    path = shared_data / "sade_feldman_mel" / "sade_3523x550.h5ad"
    with pytest.raises(InputError, match=r"X: values 0.0143553 to 4.31976: 99.8% of the non-zero values are not integers"):
        load(path, "--phase_column", "condition", "--type_column", "celltype")
