"""Every format, every refusal, and the real data sets that the methods name."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import h5py
import load_sample
import numpy as np
import pandas as pd
import pytest
from scipy import io as scipy_io
from scipy import sparse

from scresist import contract, keys
from scresist.io import InputError

SYMBOLS = ["CD3E", "ERBB2", "MT-ND1", "ACTB"]
IDS = ["ENSG00000198851", "ENSG00000141736", "ENSG00000198888", "ENSG00000075624"]
BARCODES = ["TTT-1", "AAA-1", "CCC-1"]
COUNTS = np.array([[100, 0, 3, 60], [0, 200, 1, 9], [150, 20, 0, 0]])  # cells x genes, as BARCODES and SYMBOLS


@pytest.fixture
def positions(tmp_path) -> Path:
    path = tmp_path / "positions.tsv.gz"
    pd.DataFrame(
        {
            "symbol": SYMBOLS,
            "gene_id": IDS,
            "chromosome": ["11", "17", "MT", "7"],
            "start": ["118304580", "39688084", "3307", ""],
            "end": ["118316175", "39728662", "4262", ""],
        }
    ).to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture
def load(tmp_path, positions, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(path: Path, *more: str) -> tuple[anndata.AnnData, pd.Series, pd.Series]:
        given = ["--sample", "S1", "--patient", "P1", "--phase", "PRE", "--input", str(path), "--positions", str(positions)]
        assert load_sample.main([*given, "--min_genes_matrix", "2", *more]) == 0
        row = pd.read_csv("S1.load.tsv", sep="\t").iloc[0]
        state = pd.read_csv("load_sample.S1.status.tsv", sep="\t").iloc[0]
        assert Path("load_sample.S1.provenance.json").exists()
        return contract.check(anndata.read_h5ad("S1.h5ad"), "S1.h5ad"), row, state

    return call


def write_10x(
    folder: Path, version: int = 3, zipped: bool = True, prefix: str = "", matrix=COUNTS, types=None, genes=None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    genes = genes or list(zip(IDS, SYMBOLS, strict=True))
    kinds = types or ["Gene Expression"] * len(genes)
    rows = ["\t".join([*gene, kind] if version == 3 else gene) for gene, kind in zip(genes, kinds, strict=True)]
    scipy_io.mmwrite(folder / "m.mtx", sparse.coo_matrix(matrix.T), field="integer")
    texts = {
        "matrix.mtx": (folder / "m.mtx").read_text(),
        "features.tsv" if version == 3 else "genes.tsv": "\n".join(rows) + "\n",
        "barcodes.tsv": "".join(f"{b}\n" for b in BARCODES[: matrix.shape[0]]),
    }
    (folder / "m.mtx").unlink()
    for name, text in texts.items():
        data = gzip.compress(text.encode()) if zipped else text.encode()
        (folder / f"{prefix}{name}{'.gz' if zipped else ''}").write_bytes(data)
    return folder


def write_h5(path: Path, version: int) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        columns = sparse.csc_matrix(COUNTS.T)
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(columns, name)
        group["shape"] = columns.shape
        group["barcodes"] = np.array(BARCODES, dtype="S")
        place = group.create_group("features") if version == 3 else group
        place["name" if version == 3 else "gene_names"] = np.array(SYMBOLS, dtype="S")
        place["id" if version == 3 else "genes"] = np.array(IDS, dtype="S")
        if version == 3:
            place["feature_type"] = np.array(["Gene Expression"] * 4, dtype="S")
    return path


def write_h5ad(path: Path, x=COUNTS, layer=None, raw=None, names=SYMBOLS, var=None) -> Path:
    adata = anndata.AnnData(np.asarray(x, dtype=np.float32), obs=pd.DataFrame(index=BARCODES), var=pd.DataFrame(var, index=names))
    if raw is not None:
        adata.raw = anndata.AnnData(sparse.csr_matrix(np.asarray(raw, dtype=np.float32)), obs=adata.obs, var=adata.var)
    if layer is not None:
        adata.layers["counts"] = sparse.csc_matrix(np.asarray(layer, dtype=np.float64))
    adata.write_h5ad(path)
    return path


def write_csv(path: Path, delimiter: str = ",", corner: bool = True) -> Path:
    table = pd.DataFrame(COUNTS.T, index=SYMBOLS, columns=BARCODES)
    text = table.to_csv(sep=delimiter)
    path.write_text(text if corner else text[1:])
    return path


MAKERS = {
    "v3_gz": (lambda p: write_10x(p / "in"), "10x_mtx_v3"),
    "v3_plain": (lambda p: write_10x(p / "in", zipped=False), "10x_mtx_v3"),
    "v2": (lambda p: write_10x(p / "in", 2, zipped=False), "10x_mtx_v2"),
    "geo_prefix": (lambda p: write_10x(p / "in", prefix="GSM123_"), "10x_mtx_v3"),
    "outs": (lambda p: write_10x(p / "in/outs/filtered_feature_bc_matrix").parents[1], "10x_mtx_v3"),
    "genome_folder": (lambda p: write_10x(p / "in/filtered_gene_bc_matrices/GRCh38", 2, False).parents[1], "10x_mtx_v2"),
    "outs_h5": (
        lambda p: (write_10x(p / "in/raw_feature_bc_matrix"), write_h5(p / "in/filtered_feature_bc_matrix.h5", 3))[1].parent,
        "10x_h5_v3",
    ),
    "h5_v3": (lambda p: write_h5(p / "a.h5", 3), "10x_h5_v3"),
    "h5_v2": (lambda p: write_h5(p / "a.h5", 2), "10x_h5_v2"),
    "h5ad": (lambda p: write_h5ad(p / "a.h5ad"), "h5ad"),
    "h5ad_ids": (lambda p: write_h5ad(p / "a.h5ad", names=[f"{i}.3" for i in IDS]), "h5ad"),
    "csv": (lambda p: write_csv(p / "a.csv"), "csv"),
    "csv_r_header": (lambda p: write_csv(p / "a.csv", corner=False), "csv"),
    "tsv": (lambda p: write_csv(p / "a.tsv", "\t"), "tsv"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_format_gives_the_same_cells_and_genes(kind, tmp_path, load):
    make, expected = MAKERS[kind]
    link = tmp_path / "staged"
    made = make(tmp_path)
    link.symlink_to(made)  # Nextflow stages inputs as links
    path = link if made.is_dir() else made
    adata, row, state = load(path)
    assert row["format"] == expected
    assert adata.obs_names.tolist() == ["S1:AAA-1", "S1:CCC-1", "S1:TTT-1"]
    assert adata.var_names.tolist() == sorted(SYMBOLS)
    order = np.argsort(SYMBOLS)
    assert adata.layers[keys.COUNTS].toarray().tolist() == COUNTS[[1, 2, 0]][:, order].tolist()
    assert adata.layers[keys.COUNTS].dtype == np.int32
    assert adata.obs.iloc[0][list(keys.IDENTITY)].tolist() == ["S1", "P1", "PRE", "none"]
    assert adata.var.loc["ERBB2", [keys.GENE_ID, keys.CHROMOSOME, keys.START]].tolist() == ["ENSG00000141736", "17", 39688084]
    assert adata.var[keys.IS_MT].sum() == row["mt_genes"] == 1
    assert (row["total_umi"], row["n_genes_known"], row["n_genes_placed"], row["pct_counts_known"]) == (COUNTS.sum(), 4, 3, 100)
    assert state["status"] == "ok"


def test_slots_of_h5ad_in_order(tmp_path, load):
    logged = np.log1p(COUNTS)
    for name, slots, expected in (
        ("layer", {"x": logged, "layer": COUNTS, "raw": logged}, "layers['counts']"),
        ("raw", {"x": logged, "layer": logged, "raw": COUNTS}, "raw.X"),
        ("x", {"x": COUNTS, "raw": logged}, "X"),
    ):
        adata, row, _ = load(write_h5ad(tmp_path / f"{name}.h5ad", **slots))
        assert row["slot"] == expected
        assert adata.layers[keys.COUNTS].sum() == COUNTS.sum()


def test_own_output_loads_unchanged(tmp_path, load):
    first, _, _ = load(write_10x(tmp_path / "in"))
    (tmp_path / "S1.h5ad").rename(tmp_path / "again.h5ad")
    second, row, _ = load(tmp_path / "again.h5ad")
    assert row["slot"] == "layers['counts']"
    pd.testing.assert_frame_equal(first.obs, second.obs)
    assert (first.layers[keys.COUNTS] != second.layers[keys.COUNTS]).nnz == 0


def test_same_input_gives_the_same_bytes(tmp_path, load):
    made = write_10x(tmp_path / "in")
    load(made)
    first = Path("S1.h5ad").read_bytes(), Path("S1.load.tsv").read_bytes(), Path("load_sample.S1.provenance.json").read_bytes()
    load(made)
    assert first == (
        Path("S1.h5ad").read_bytes(),
        Path("S1.load.tsv").read_bytes(),
        Path("load_sample.S1.provenance.json").read_bytes(),
    )


def test_duplicates_are_summed_and_counted(tmp_path, load):
    genes = [*zip(IDS, SYMBOLS, strict=True)][:3] + [("ENSG00000999999", "CD3E")]
    adata, row, _ = load(write_10x(tmp_path / "in", genes=genes))
    assert row["n_duplicates_summed"] == 1
    assert adata[:, "CD3E"].layers[keys.COUNTS].toarray().ravel().tolist() == [9, 150, 160]


def test_only_gene_expression_is_kept(tmp_path, load):
    types = ["Gene Expression"] * 3 + ["Antibody Capture"]
    adata, row, _ = load(write_10x(tmp_path / "in", types=types))
    assert row["n_features_other"] == 1
    assert "ACTB" not in adata.var_names
    with pytest.raises(InputError, match=r"no feature is of type `Gene Expression`, found Antibody Capture \(4\)"):
        load(write_10x(tmp_path / "ab", types=["Antibody Capture"] * 4))


def test_no_mitochondrial_genes_and_few_genes_warn(tmp_path, load):
    genes = [("ENSG00000198851", "CD3E"), ("ENSG00000141736", "ERBB2"), ("ENSG00000075624", "ACTB")]
    made = write_10x(tmp_path / "in", genes=genes, matrix=COUNTS[:, [0, 1, 3]])
    _, _, state = load(made, "--min_genes_matrix", "5000")
    assert state["status"] == "warning"
    assert "3 genes, fewer than 5,000" in state["reason"]
    assert "no mitochondrial gene" in state["reason"]


def test_no_barcodes_is_a_status_and_an_empty_valid_file(tmp_path, load):
    adata, row, state = load(write_10x(tmp_path / "in", matrix=np.zeros((0, 4), dtype=int)))
    assert adata.shape == (0, 4)
    assert row["status"] == state["status"] == "failed_no_cells"


def test_one_cell(tmp_path, load):
    adata, _, _ = load(write_10x(tmp_path / "in", matrix=COUNTS[:1]))
    assert adata.shape == (1, 4)


def refuse_log(path):
    return write_h5ad(path / "a.h5ad", x=np.log1p(COUNTS))


def refuse_text(path):
    (path / "a.csv").write_text("gene,c1,c2\nCD3E,1,x\n")
    return path / "a.csv"


def refuse_missing(path):
    (path / "a.csv").write_text("gene,c1,c2\nCD3E,1,\n")
    return path / "a.csv"


def refuse_cut(path):
    file = write_10x(path / "in") / "matrix.mtx.gz"
    file.write_bytes(file.read_bytes()[:-12])
    return path / "in"


def refuse_header(path):
    file = write_10x(path / "in", zipped=False) / "matrix.mtx"
    file.write_text(file.read_text().split("\n", 1)[1])
    return path / "in"


def refuse_rows(path):
    file = write_10x(path / "in", zipped=False) / "features.tsv"
    file.write_text(file.read_text().split("\n", 1)[1])
    return path / "in"


def refuse_part(path):
    (write_10x(path / "in") / "barcodes.tsv.gz").unlink()
    return path / "in"


def refuse_two(path):
    write_10x(path / "in", prefix="GSM1_")
    return write_10x(path / "in", prefix="GSM2_")


def refuse_twice(path):
    file = write_10x(path / "in", zipped=False) / "barcodes.tsv"
    file.write_text("AAA-1\nCCC-1\nAAA-1\n")
    return path / "in"


def refuse_turned(path):
    pd.DataFrame(COUNTS, index=BARCODES, columns=SYMBOLS).to_csv(path / "a.csv")
    return path / "a.csv"


def refuse_genomes(path):
    file = write_h5(path / "a.h5", 2)
    with h5py.File(file, "a") as handle:
        handle.copy("GRCh38", "mm10")
    return file


def refuse_name(path):
    (path / "a.rds").write_text("x")
    return path / "a.rds"


def refuse_fake(path):
    (path / "a.h5").write_text("x")
    return path / "a.h5"


MOUSE = ["Cd3e", "Erbb2", "mt-Nd1", "Actb"]
REFUSED = {
    "log": (refuse_log, r"a.h5ad: no slot holds raw counts.*X: values 0.69.* look like log-normalised"),
    "negative": (lambda p: write_h5ad(p / "a.h5ad", x=COUNTS - 5), r"X: values -5 to 195: negative"),
    "text": (refuse_text, r"a.csv: gene 'CD3E', cell 'c2': 'x' is not a number"),
    "missing_value": (refuse_missing, r"gene 'CD3E', cell 'c2' has no value"),
    "cut": (refuse_cut, r"matrix.mtx.gz: the compressed file is cut off or damaged"),
    "header": (refuse_header, r"matrix.mtx: not a complete Matrix Market file"),
    "rows": (refuse_rows, r"matrix.mtx is 4 x 3 but features.tsv names 3 genes and barcodes.tsv 3 barcodes"),
    "part": (refuse_part, r"barcodes.tsv \(or .gz\) is missing beside matrix.mtx.gz"),
    "two_samples": (refuse_two, r"holds 2 matrices \(GSM1_matrix.mtx.gz, GSM2_matrix.mtx.gz\)"),
    "twice": (refuse_twice, r"1 barcodes occur twice \(AAA-1\)"),
    "turned": (refuse_turned, r"cells x genes, transpose it"),
    "genomes": (refuse_genomes, r"several genomes \(GRCh38, mm10\)"),
    "mouse": (
        lambda p: write_h5ad(p / "a.h5ad", names=MOUSE),
        r"0.0% of the counts.* are Cd3e, Erbb2, mt-Nd1, Actb; these look like mouse",
    ),
    "numbers": (
        lambda p: write_h5ad(p / "a.h5ad", names=["1", "2", "3", "4"]),
        r"unknown names are 1, 2, 3, 4; these are numbers",
    ),
    "only_raw": (
        lambda p: write_10x(p / "in/raw_feature_bc_matrix").parent,
        r"only the unfiltered matrix; give filtered_feature",
    ),
    "empty_folder": (lambda p: (p / "in").mkdir() or p / "in", r"no count matrix found.*holds nothing"),
    "absent": (lambda p: p / "nowhere", r"does not exist"),
    "unknown_kind": (refuse_name, r"a.rds is of no known kind; expected a 10x folder"),
    "not_hdf5": (refuse_fake, r"a.h5 is not an HDF5 file"),
    "mtx_alone": (lambda p: write_10x(p / "in") / "matrix.mtx.gz", r"a matrix alone has no gene and cell names; give the folder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_name_sample_file_and_mend(kind, tmp_path, load):
    make, message = REFUSED[kind]
    with pytest.raises(InputError, match=f"(?s)sample S1, .*{message}"):
        load(make(tmp_path))
    assert not Path("S1.h5ad").exists()


def test_unfiltered_matrix_is_refused_and_a_small_poor_sample_is_not(tmp_path, load):
    counts = np.zeros((300, 4), dtype=int)
    counts[:100] = 100
    counts[100:, 0] = 1
    table = pd.DataFrame(counts.T, index=SYMBOLS, columns=[f"c{i}" for i in range(300)])
    table.to_csv("raw.csv")
    with pytest.raises(InputError, match=r"67% of 300 barcodes have fewer than 100 counts.*filtered_feature_bc_matrix"):
        load(Path("raw.csv"))
    table.iloc[:, 70:170].to_csv("small.csv")
    _, _, state = load(Path("small.csv"))
    assert (state["status"], "70% of 100 barcodes" in state["reason"]) == ("warning", True)


def test_command_line_ends_with_65_and_leaves_no_file(tmp_path, run_script, positions):
    made = refuse_log(tmp_path)
    done = run_script(
        "load_sample", "--sample", "S1", "--patient", "P", "--phase", "PRE", "--input", made, "--positions", positions,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 65
    assert done.stderr.startswith("ERROR load_sample: sample S1, a.h5ad: no slot holds raw counts")
    assert not list(tmp_path.glob("S1.*"))


# --- real data


@pytest.fixture
def load_real(tmp_path, root, shared_data, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(path: str) -> tuple[anndata.AnnData, pd.Series, pd.Series]:
        given = ["--sample", "S1", "--patient", "P1", "--phase", "PRE", "--input", str(shared_data / path)]
        load_sample.main([*given, "--positions", str(root / "assets" / "gene_positions.tsv.gz")])
        row = pd.read_csv("S1.load.tsv", sep="\t").iloc[0]
        return anndata.read_h5ad("S1.h5ad"), row, pd.read_csv("load_sample.S1.status.tsv", sep="\t").iloc[0]

    return call


@pytest.mark.real
@pytest.mark.parametrize("name", ["CTCL-5", "CTCL-6", "CTCL-8", "HC-1", "HC-2", "HC-3"])
def test_ctcl(name, load_real):
    adata, row, state = load_real(f"ctcl_gse128531/10x/{name}")
    assert (row["n_barcodes"], row["n_genes_in"], state["status"]) == (300, 33694, "ok")
    assert adata.var[keys.IS_MT].sum() == 13


@pytest.mark.real
def test_pbmc3k(load_real):
    _, row, _ = load_real("pbmc3k_raw/10x")
    assert (row["n_barcodes"], row["n_genes_in"], row["total_umi"]) == (2700, 32738, 6390631)


@pytest.mark.real
@pytest.mark.parametrize(
    ("path", "n_cells", "n_genes", "word"),
    [
        ("kang_ifnb/harmony_pbmc_stim_2000x9015.h5ad", 2000, 9015, "warning"),
        ("copykat_tnbc1/tnbc1_counts.h5ad", 302, 33694, "ok"),
        ("gbm_panobinostat/lemur_gbm_300g.h5ad", 5000, 300, "warning"),
        ("sc_mixology/csv/sc_celseq2.count.csv.gz", 274, 28204, "ok"),
    ],
)
def test_other_public_sets_load(path, n_cells, n_genes, word, load_real):
    _, row, state = load_real(path)
    assert (row["n_barcodes"], row["n_genes_in"], state["status"]) == (n_cells, n_genes, word)


@pytest.mark.real
def test_log_values_of_sade_feldman_are_refused(load_real):
    with pytest.raises(
        InputError, match=r"values 0.0143553 to 4.31976: 99.8% of the non-zero values are not integers; these look like log"
    ):
        load_real("sade_feldman_mel/sade_3523x550.h5ad")
