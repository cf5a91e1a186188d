"""The bundled gene sets and pathway weights: rules of their build scripts on small inputs; the shipped files against others."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import sqlite3
import struct

import pandas as pd
import pytest

from scresist import enrichment


def load(root, name):
    spec = importlib.util.spec_from_file_location(name, root / "assets" / "build" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def go(root):
    return enrichment.parse_gmt(gzip.decompress((root / "assets" / "go_bp.gmt.gz").read_bytes()).decode(), "go_bp.gmt.gz")


@pytest.fixture(scope="module")
def progeny(root):
    return pd.read_csv(root / "assets" / "progeny.tsv.gz", sep="\t", keep_default_na=False)


def test_annotation_climbs_to_all_ancestors(root, tmp_path):
    """Terms 1 < 2 < root: genes of 1 count for 2; sets of 10 to 500; symbols once; the root and other ontologies left out."""
    build = load(root, "gene_sets")
    genes, ontology = sqlite3.connect(tmp_path / "org.sqlite"), sqlite3.connect(tmp_path / "go.sqlite")
    ontology.executescript(
        """
        CREATE TABLE go_term (_id, go_id, term, ontology); CREATE TABLE go_bp_offspring (_id, _offspring_id);
        INSERT INTO go_term VALUES (1,'GO:1','small, nice term','BP'), (2,'GO:2','big term','BP'),
            (3,'GO:0008150','biological_process','BP'), (4,'all','all','universal'), (5,'GO:5','tiny','BP');
        INSERT INTO go_bp_offspring VALUES (2,1), (3,1), (3,2), (4,1), (4,2), (3,5);
        """
    )
    genes.execute("CREATE TABLE gene_info (_id, symbol)")
    genes.execute("CREATE TABLE go_bp (_id, go_id, evidence)")
    genes.executemany("INSERT INTO gene_info VALUES (?, ?)", [(i, f"S{i:02d}") for i in range(14)] + [(99, "S00")])
    genes.executemany("INSERT INTO go_bp VALUES (?, 'GO:1', 'IEA')", [(i,) for i in range(10)] + [(99,), (0,)])
    genes.executemany("INSERT INTO go_bp VALUES (?, 'GO:2', 'IDA')", [(i,) for i in range(8, 14)])
    genes.executemany("INSERT INTO go_bp VALUES (?, 'GO:5', 'IDA')", [(i,) for i in range(9)])
    found = build.read(genes, ontology)
    assert found == [
        ("GOBP_SMALL_NICE_TERM", "GO:1", [f"S{i:02d}" for i in range(10)]),
        ("GOBP_BIG_TERM", "GO:2", [f"S{i:02d}" for i in range(14)]),
    ]
    genes.commit(), ontology.commit()
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        assert build.main([str(tmp_path / "org.sqlite"), str(tmp_path / "go.sqlite"), "--out", str(tmp_path / folder)]) == 0
    packed = (tmp_path / "a" / "go_bp.gmt.gz").read_bytes()
    assert packed == (tmp_path / "b" / "go_bp.gmt.gz").read_bytes() and packed[4:8] == bytes(4)
    manifest = (tmp_path / "a" / "MANIFEST.tsv").read_text().splitlines()
    assert len(manifest) == 2 and "CC BY 4.0" in manifest[1]


def test_strongest_genes_of_a_pathway(root):
    build = load(root, "progeny")
    rows = [("b", "P", 1.0, 0.5), ("a", "P", 2.0, 0.5), ("c", "P", -3.0, 0.1), ("d", "Q", 4.0, 0.9)]
    assert build.strongest(rows, 2) == [("P", "a", 2.0), ("P", "c", -3.0), ("Q", "d", 4.0)]  # ties by name


def test_stored_objects_of_r(root):
    build = load(root, "progeny")
    chunk = struct.pack(">I", 5) + b"2" + bz2.compress(b"hello")
    assert build.stored_object(chunk) == b"hello"
    with pytest.raises(ValueError, match="the entry promises 6"):
        build.stored_object(struct.pack(">I", 6) + chunk[4:])
    with pytest.raises(ValueError, match="expected 2"):
        build.stored_object(chunk[:4] + b"Z" + chunk[5:])


def test_shipped_sets(go, root):
    assert len(go) == 6482  # the number that a build by other hands from the same release had
    sizes = [len(members) for members in go.values()]
    assert min(sizes) == 10 and 490 < max(sizes) <= 500
    assert all(members == sorted(set(members)) for members in go.values())
    assert not [name for name in go if not name.startswith("GOBP_") or "," in name or " " in name]
    assert {"ISG15", "MX1", "IFIT1"} <= set(go["GOBP_DEFENSE_RESPONSE_TO_VIRUS"])
    assert (root / "assets" / "go_bp.gmt.gz").stat().st_size < 1_200_000


def test_shipped_symbols_are_those_of_the_positions(go, root):
    known = set(pd.read_csv(root / "assets" / "gene_positions.tsv.gz", sep="\t", keep_default_na=False)["symbol"])
    used = {gene for members in go.values() for gene in members}
    assert len(used & known) / len(used) > 0.98


def test_shipped_weights(progeny):
    assert list(progeny) == ["source", "target", "weight"]
    pathways = ["Androgen", "EGFR", "Estrogen", "Hypoxia", "JAK-STAT", "MAPK", "NFkB", "PI3K", "TGFb", "TNFa", "Trail", "VEGF"]
    pathways += ["WNT", "p53"]
    assert progeny["source"].value_counts().to_dict() == dict.fromkeys(pathways, 500)
    assert not progeny.duplicated(["source", "target"]).any()
    assert progeny["weight"].notna().all()
    best = progeny.sort_values("weight").groupby("source")["target"].last()
    assert best["JAK-STAT"] in {"IFI44", "IFIT1", "OAS1", "MX1", "IFI44L", "IFIT3", "OAS2", "STAT1", "IRF9", "ISG15", "OAS3"}


@pytest.mark.real
def test_sets_and_weights_equal_those_built_elsewhere(go, progeny, shared_data):
    packed = (shared_data / "go_gmt" / "GO_BP_Hs_sym_10-500.gmt.gz").read_bytes()
    theirs = enrichment.parse_gmt(gzip.decompress(packed).decode(), "theirs")
    assert sum(go.get(name) == sorted(members) for name, members in theirs.items()) >= 6480  # two names hold other marks
    assert sorted(map(tuple, go.values())) == sorted(tuple(sorted(members)) for members in theirs.values())
    other = pd.read_csv(shared_data / "footprints" / "progeny_human_top500.tsv.gz", sep="\t", keep_default_na=False)
    both = progeny.merge(other, left_on=["source", "target"], right_on=["pathway", "gene"])
    assert len(both) == 7000
    assert (both["weight_x"] - both["weight_y"]).abs().max() < 1e-8
