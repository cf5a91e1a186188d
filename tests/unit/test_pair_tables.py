"""Tables of pairs: families joined to liana's resource, CellChatDB's three tables, tables of users, and their errors."""

from __future__ import annotations

import gzip
import re

import pandas as pd
import pytest

from scresist import pair_tables
from scresist.io import InputError

REQUESTED = ("MHC-I", "MHC-II", "TGFb", "EGF", "FGF", "IFN-II", "CXCL", "CCL", "PD-L1", "TIGIT")


@pytest.fixture(scope="module")
def ours(root):
    return pair_tables.load(root / "assets" / "lr_pathways.tsv")


def families(*rows: dict) -> pd.DataFrame:
    empty = dict.fromkeys(pair_tables.FAMILY_COLUMNS, "")
    return pd.DataFrame([{**empty, "annotation": "Secreted Signaling", "source": "test", **row} for row in rows])


def write(path, frame: pd.DataFrame):
    frame.to_csv(path, sep="\t", index=False)
    return path


# --- families


def test_a_pair_takes_the_first_family_of_all_its_ligand_and_any_receptor_genes():
    resource = pd.DataFrame(
        [("A1", "R1"), ("A1", "R2"), ("A1_A2", "X_R1"), ("A1_B", "R1"), ("XA1", "R1")], columns=["ligand", "receptor"]
    )
    table = families(
        {"pathway": "first", "ligand": r"A\d", "receptor": "R1", "agonist": "Q", "co_i": "S,T"},
        {"pathway": "second", "ligand": "A1,B", "receptor": ".*"},
    )
    found = pair_tables.name_pathways(resource, table).set_index("pair")
    assert found["pathway"].to_dict() == {
        "A1:R1": "first",
        "A1:R2": "second",
        "A1_A2:X_R1": "first",
        "A1_B:R1": "second",
        "XA1:R1": "other:XA1",  # patterns match whole names
    }
    assert found.loc["A1_A2:X_R1", ["ligand_genes", "receptor_genes", "agonist", "co_i"]].tolist() == [
        "A1,A2",
        "X,R1",
        "Q",
        "S,T",
    ]
    assert found.loc["XA1:R1", ["annotation", "agonist"]].tolist() == ["", ""]


def test_the_bundled_families(ours, root):
    resource = pair_tables.liana_resource()
    assert len(ours) == len(resource) == 4620  # every pair of the consensus resource of liana 1.10 once
    named = ours[~ours["pathway"].str.startswith(pair_tables.OTHER)]
    given = pair_tables.read_table(root / "assets" / "lr_pathways.tsv")
    assert set(named["pathway"]) == set(given["pathway"]), "a family that names no pair: correct its patterns"
    assert set(REQUESTED) <= set(named["pathway"]) and named["pathway"].nunique() > 60 and len(named) > 0.4 * len(ours)
    for pair, pathway in {
        "TGFB1:TGFBR1_TGFBR2": "TGFb",
        "HLA-A:CD8A": "MHC-I",
        "HLA-DRA:CD4": "MHC-II",
        "IFNG:IFNGR1_IFNGR2": "IFN-II",
        "IFNB1:IFNAR1_IFNAR2": "IFN-I",
        "CXCL10:CXCR3": "CXCL",
        "CCL5:CCR5": "CCL",
        "CD274:PDCD1": "PD-L1",
        "NECTIN2:TIGIT": "TIGIT",
        "TIGIT:PVR": "TIGIT",
        "EGF:EGFR_ERBB2": "EGF",
        "FGF1:FGFR1": "FGF",
        "WNT5A:FZD4": "ncWNT",
        "EGF:LDLR": "other:EGF",  # not a receptor of the family
    }.items():
        assert ours.set_index("pair").loc[pair, "pathway"] == pathway, pair


def test_every_pattern_and_cofactor_of_the_families_is_a_human_gene(root):
    given = pair_tables.read_table(root / "assets" / "lr_pathways.tsv")
    with gzip.open(root / "assets" / "gene_positions.tsv.gz", "rt") as stream:
        genes = set(pd.read_csv(stream, sep="\t", dtype=str)["symbol"])
    resource = pair_tables.liana_resource()
    for side in ("ligand", "receptor"):
        genes |= {gene for text in resource[side] for gene in text.split("_")}
    for row in given.itertuples():
        for pattern in ",".join((row.ligand, row.receptor)).split(","):
            assert pattern in genes or any(map(re.compile(pattern).fullmatch, genes)), f"{row.pathway}: {pattern} is no gene"
        for gene in ",".join((row.agonist, row.antagonist, row.co_a, row.co_i)).split(","):
            assert not gene or gene in genes, f"{row.pathway}: {gene} is no gene"


def test_families_with_errors_name_all_of_them():
    bad = families(
        {"pathway": "x", "ligand": "A(", "receptor": ".*"},
        {"pathway": "", "ligand": "A", "receptor": "B", "annotation": "Sorcery"},
    )
    with pytest.raises(InputError) as error:
        pair_tables.check_families(bad, "mine.tsv")
    for part in (
        "mine.tsv",
        "row 2: ligand 'A(' is no regular expression",
        "row 3: `pathway` is empty",
        "row 3: annotation 'Sorcery'",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match="no column co_i, source"):
        pair_tables.check_families(bad.drop(columns=["co_i", "source"]), "mine.tsv")


# --- CellChatDB


def cellchat() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    interactions = pd.DataFrame(
        {
            "interaction_name": ["T_R", "T_R12", "M_R"],
            "pathway_name": ["P", "P", "Q"],
            "ligand": ["T", "T", "M"],
            "receptor": ["R1", "R1_R2", "R1"],
            "agonist": ["NA", "T agonist", ""],
            "co_I_receptor": ["T inhibition receptor", "", ""],
            "annotation": ["Secreted Signaling", "ECM-Receptor", "Non-protein Signaling"],
            "version": ["CellChatDB v1", "CellChatDB v2", "CellChatDB v2"],
        }
    )
    complexes = pd.DataFrame({"": ["R1_R2"], "subunit_1": ["R1"], "subunit_2": ["R2"], "subunit_3": [""]})
    cofactors = pd.DataFrame({"": ["T agonist", "T inhibition receptor"], "cofactor1": ["A", "I"], "cofactor2": ["B", ""]})
    return interactions, complexes, cofactors


def test_cellchat_tables(tmp_path):
    paths = [write(tmp_path / f"{at}.tsv.gz", part) for at, part in enumerate(cellchat())]
    found = pair_tables.load(*paths).set_index("pair")
    assert found.index.tolist() == ["T_R", "T_R12"]  # the pair whose ligand is no protein stays out
    assert found.loc["T_R12", ["pathway", "ligand_genes", "receptor_genes", "agonist", "co_i"]].tolist() == [
        "P",
        "T",
        "R1,R2",
        "A,B",
        "",
    ]
    assert found.loc["T_R", ["receptor_genes", "agonist", "co_i", "antagonist"]].tolist() == ["R1", "", "I", ""]
    assert pair_tables.load(*paths, version="v1")["pair"].tolist() == ["T_R"]
    with pytest.raises(InputError, match=r"no pair of version v9; versions are CellChatDB v1, CellChatDB v2"):
        pair_tables.load(*paths, version="v9")
    interactions = cellchat()[0]
    interactions.to_csv(tmp_path / "0.csv", index=False)  # commas, as R's write.csv
    assert pair_tables.load(tmp_path / "0.csv", *paths[1:]).equals(pair_tables.load(*paths))


def test_cellchat_without_its_other_tables_names_what_lacks(tmp_path):
    interactions, _, cofactors = (write(tmp_path / f"{at}.tsv", part) for at, part in enumerate(cellchat()))
    with pytest.raises(InputError) as error:
        pair_tables.load(interactions)
    for part in (
        "1 names of complexes have no genes: R1_R2",
        "--lr_complexes",
        "2 groups of cofactors",
        "T agonist",
        "--lr_cofactors",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match=r"--lr_complexes: no genes found; expected .* genes in subunit_1"):
        pair_tables.load(interactions, cofactors, cofactors)


@pytest.mark.real
def test_cellchatdb(shared_data):
    """The study's version: 1,920 pairs in 215 pathways; TGF-beta with its receptors and cofactors."""
    paths = [shared_data / "lr" / f"CellChatDB_human_{name}.tsv.gz" for name in ("interaction", "complex", "cofactor")]
    v1 = pair_tables.load(*paths, version="v1")
    assert (len(v1), v1["pathway"].nunique()) == (1920, 215)
    assert len(pair_tables.load(*paths)) == 3233 - 994
    row = v1.set_index("pair").loc["TGFB1_TGFBR1_TGFBR2"]
    assert (row["pathway"], row["ligand_genes"], row["receptor_genes"]) == ("TGFb", "TGFB1", "TGFBR1,TGFBR2")
    assert row["co_i"] == "BAMBI" and "DCN" in row["antagonist"].split(",") and "THBS1" in row["agonist"].split(",")
    with pytest.raises(InputError, match="172 names of complexes"):
        pair_tables.load(paths[0])


# --- tables of users


def test_a_table_of_pairs(tmp_path):
    table = pd.DataFrame(
        {"pair": ["B", "A"], "pathway": "P", "ligand": "L", "receptor": "R", "ligand_genes": "L", "receptor_genes": "R"}
    )
    found = pair_tables.load(write(tmp_path / "pairs.tsv", table))
    assert found["pair"].tolist() == ["A", "B"] and (found["agonist"] == "").all()
    with pytest.raises(InputError, match=r"--lr_complexes and --lr_cofactors belong to CellChatDB's interaction table"):
        pair_tables.load(tmp_path / "pairs.tsv", tmp_path / "pairs.tsv", tmp_path / "pairs.tsv")


def test_what_is_no_table_of_pairs(tmp_path):
    with pytest.raises(InputError, match=r"x\.tsv: not a table of pairs; columns are a, b\. Expected pair, pathway"):
        pair_tables.load(write(tmp_path / "x.tsv", pd.DataFrame({"a": [1], "b": [2]})))
    half = pd.DataFrame({name: ["x"] for name in ("pair", "pathway", "ligand", "receptor")})
    with pytest.raises(InputError, match=r"(?s)x\.tsv:.*no column `ligand_genes`.*no column `receptor_genes`"):
        pair_tables.load(write(tmp_path / "x.tsv", half))
    for name, content in (("empty.tsv", b""), ("bytes.tsv", b"\xff\xfe\x00\x01"), ("broken.tsv.gz", b"\x1f\x8bnot gzip")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: cannot be read as a table"):
            pair_tables.load(tmp_path / name)
