"""The gene tables in assets/: rules of assets/build/gene_positions.py on a small database; the shipped table against Ensembl."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import sqlite3

import pandas as pd
import pytest

from scresist.io import read_tsv

ORDER = [*map(str, range(1, 23)), "X", "Y", "MT"]


@pytest.fixture(scope="module")
def build(root):
    spec = importlib.util.spec_from_file_location("gene_positions", root / "assets" / "build" / "gene_positions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def positions(root) -> pd.DataFrame:
    return read_tsv(root / "assets" / "gene_positions.tsv.gz", dtype={"symbol": str, "gene_id": str, "chromosome": str})


def test_rules_on_a_database_made_by_hand(build):
    database = sqlite3.connect(":memory:")
    database.executescript(
        """
        CREATE TABLE gene_info (_id, symbol); CREATE TABLE chromosomes (_id, chromosome); CREATE TABLE genetype (_id, gene_type);
        CREATE TABLE ensembl (_id, ensembl_id); CREATE TABLE alias (_id, alias_symbol);
        CREATE TABLE chromosome_locations (_id, seqname, start_location, end_location);
        INSERT INTO gene_info VALUES (1,'FWD'), (2,'REV'), (3,'PAR'), (4,'ALIKE'), (5,'ND1'), (6,'TRAC'), (7,'ALT');
        INSERT INTO chromosomes VALUES (1,'1'), (2,'2'), (3,'X'), (3,'Y'), (4,'13'), (5,'MT'), (6,'14'), (7,'6');
        INSERT INTO genetype VALUES (6,'other');
        INSERT INTO ensembl VALUES (1,'ENSG2'), (1,'ENSG1'), (6,'ENSG6');
        INSERT INTO chromosome_locations VALUES (1,'1',99,200), (1,'1',149,250), (1,'1',900,950), (2,'2',-99,-200),
            (3,'Y',9,20), (3,'X',9,20), (4,'10',9,20), (4,'13',39,50), (7,'6_GL000250v2_alt',9,20);
        INSERT INTO alias VALUES (1,'old'), (1,'both'), (2,'both'), (1,'REV'), (5,'MTND1'), (7,'gone');
        """
    )
    rows, aliases = build.read(database)
    assert rows == [
        ("FWD", "ENSG1", "1", 100, 250),  # overlapping transcripts joined, the far one left, start made 1-based
        ("REV", "", "2", 100, 200),
        ("ALIKE", "", "13", 40, 50),  # not its look-alike on 10
        ("TRAC", "ENSG6", "14", "", ""),
        ("PAR", "", "X", 10, 20),
        ("MT-ND1", "", "MT", 3307, 4262),
    ]
    assert aliases == [("MTND1", "MT-ND1"), ("old", "FWD")]


def test_shipped_table_is_sorted_unique_and_in_bounds(positions):
    assert list(positions.columns) == ["symbol", "gene_id", "chromosome", "start", "end"]
    assert positions["symbol"].is_unique
    assert set(positions["chromosome"]) == set(ORDER)
    placed = positions.dropna(subset=["start"])
    assert (placed["start"] >= 1).all()
    assert (placed["end"] >= placed["start"]).all()
    order = placed.assign(rank=placed["chromosome"].map(ORDER.index)).sort_values(["rank", "start", "symbol"])
    assert list(order.index) == list(placed.index)
    assert (positions["chromosome"] == "MT").sum() == 15


def test_known_places(positions):
    """MUC3A and MKI67 as published on GRCh38; ERBB2 by RefSeq (39,688,094), 10 bp off 39,688,084 of another transcript model."""
    at = positions.set_index("symbol")
    assert at.loc["MUC3A", ["chromosome", "start"]].tolist() == ["7", 100949534]
    assert at.loc["MKI67", ["chromosome", "start"]].tolist() == ["10", 128096661]
    assert at.loc["ERBB2", "chromosome"] == "17"
    assert abs(at.loc["ERBB2", "start"] - 39688084) <= 10


def test_every_marker_is_known(positions, root):
    markers = read_tsv(root / "assets" / "markers.tsv", dtype=str)
    assert set(markers["gene"]) <= set(positions["symbol"])


def test_manifest_holds_the_digests(root):
    manifest = read_tsv(root / "assets" / "MANIFEST.tsv", dtype=str).set_index("file")
    for name in ("gene_positions.tsv.gz", "gene_aliases.tsv.gz"):
        data = (root / "assets" / name).read_bytes()
        assert manifest.loc[name, "sha256"] == hashlib.sha256(data).hexdigest()
        assert data[4:8] == bytes(4)  # no time in the gzip header
        assert len(gzip.decompress(data)) > len(data)


@pytest.mark.real
def test_chromosomes_and_starts_agree_with_ensembl(positions, shared_data):
    """Seen when written: 18,148 shared symbols, all on the same chromosome, 95 % of starts within 15.1 kb."""
    ensembl = read_tsv(shared_data / "gene_pos" / "anno_grch38_ensembl_symbol_pos.tsv.gz", dtype={"chr": str})
    ensembl = ensembl[ensembl["biotype"].isin(["protein_coding", "lncRNA"])].drop_duplicates("symbol")
    both = ensembl.merge(positions, on="symbol", suffixes=("_ensembl", ""))
    assert len(both) > 15000
    assert (both["chr"] == both["chromosome"]).mean() > 0.999
    assert (both["start"] - both["start_ensembl"]).abs().quantile(0.95) < 20000
