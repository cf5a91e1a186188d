"""Counts slot, gene names, summed duplicates: by hand on a few genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import matrices
from scresist.io import InputError


@pytest.fixture
def known() -> matrices.GeneTable:
    positions = pd.DataFrame(
        {
            "symbol": ["CD3E", "ERBB2", "MT-ND1", "NOPLACE"],
            "gene_id": ["ENSG00000198851", "ENSG00000141736", "ENSG00000198888", "ENSG00000000001"],
            "chromosome": ["11", "17", "MT", "1"],
            "start": [118304580, 39688084, 3307, -1],
            "end": [118316175, 39728662, 4262, -1],
        }
    )
    return matrices.gene_table(positions, pd.DataFrame({"alias": ["HER2", "Erbb2"], "symbol": ["ERBB2", "ERBB2"]}))


def genes(names: list[str], ids: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"name": names, "gene_id": ids or [""] * len(names), "feature_type": matrices.GENE_EXPRESSION})


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix])
def test_counts_are_accepted_in_every_form(form):
    values = np.array([[0, 1.0004], [3, 0]])
    assert matrices.not_counts(form(values)) is None
    assert matrices.to_counts(form(values)).toarray().tolist() == [[0, 1], [3, 0]]
    assert matrices.to_counts(form(values)).dtype == np.int32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, -1], [3, 0]], "values -1 to 3: negative"),
        ([[0, 0.5], [3, 0]], "values 0.5 to 3: 50.0% of the non-zero values are not integers; these look like log"),
        ([[0, 30.5], [3, 0]], "values 3 to 30.5: .*ambient-corrected"),
        ([[0, np.nan], [3, 0]], "1 values are missing or infinite"),
        ([[0, 3e9], [3, 0]], "larger than any count"),
    ],
)
def test_what_cannot_be_counts_is_named_with_its_range(values, message):
    with pytest.raises(InputError, match=message):
        matrices.choose_counts([matrices.Candidate("X", np.array(values), genes(["A", "B"]))])


def test_first_slot_with_counts_wins_and_the_others_are_explained():
    bad = matrices.Candidate("layers['counts']", np.array([[0.25]]), genes(["A"]))
    good = matrices.Candidate("X", np.array([[2.0]]), genes(["A"]))
    chosen, passed_over = matrices.choose_counts([bad, good])
    assert chosen is good
    assert passed_over[0].startswith("layers['counts']: values 0.25 to 0.25")


def test_all_zero_and_empty_matrices_are_counts():
    assert matrices.not_counts(sparse.csr_matrix((0, 5))) is None
    assert matrices.not_counts(np.zeros((2, 2))) is None


def test_names_stay_unless_they_are_ensembl_ids(known):
    named = matrices.name_genes(
        genes(["CD3E", "ENSG00000141736.15", "HER2", "ENSG99999999999.2", "Actb", "OLDNAME"], [""] * 5 + ["ENSG00000198851"]),
        known,
    )
    assert named["symbol"].tolist() == ["CD3E", "ERBB2", "HER2", "ENSG99999999999", "Actb", "OLDNAME"]
    assert named["known"].tolist() == [True, True, False, False, False, True]
    # an alias gives a place but does not make a gene known: aliases hold names of other species
    assert named["row"].tolist() == [0, 1, 1, -1, -1, 0]


def test_symbol_column_of_the_file_names_an_unknown_id(known):
    frame = genes(["ENSG99999999999", "ENSG99999999998"])
    frame["symbol"] = ["NEWGENE", ""]
    assert matrices.name_genes(frame, known)["symbol"].tolist() == ["NEWGENE", "ENSG99999999998"]


def test_duplicates_are_summed_and_sorted(known):
    counts = sparse.csr_matrix(np.array([[1, 2, 4], [0, 0, 8]]))
    named = matrices.name_genes(genes(["ERBB2", "CD3E", "ENSG00000141736"]), known)
    summed, merged = matrices.sum_duplicates(counts, named)
    assert merged["symbol"].tolist() == ["CD3E", "ERBB2"]
    assert summed.toarray().tolist() == [[2, 5], [0, 8]]
    assert summed.dtype == np.int32


def test_places_and_mitochondrial_genes(known):
    named = matrices.name_genes(genes(["MT-ND1", "MT-XYZ", "ERBB2", "NOPLACE"]), known)
    var = matrices.place_genes(named, known)
    assert var["mt"].tolist() == [True, True, False, False]
    assert var.loc["ERBB2", ["chromosome", "start", "end"]].tolist() == ["17", 39688084, 39728662]
    assert var.loc["NOPLACE", ["chromosome", "start", "end"]].tolist() == ["", -1, -1]
    assert var.loc["MT-XYZ", "chromosome"] == ""


def test_known_share_is_by_counts_and_by_genes_where_nothing_was_counted():
    known = np.array([True, False, False, False])
    assert matrices.known_share(np.array([90, 10, 0, 0]), known) == pytest.approx(0.9)
    assert matrices.known_share(np.zeros(4), known) == pytest.approx(0.25)
    assert matrices.known_share(np.zeros(0), np.zeros(0, bool)) == 0


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["Actb", "mt-Co1", "Gapdh"], "mouse or rat"),
        (["ENSMUSG00000029580", "ENSMUSG00000029581"], "another species"),
        (["1", "2"], "numbers"),
        (["GRCh38_ACTB", "mm10_Actb"], "prefix of a genome"),
        (["FOO1", "BAR"], ""),
    ],
)
def test_hint_about_foreign_names(names, hint):
    assert hint in matrices.name_hint(names)


def test_empty_droplets_are_below_100_counts():
    assert matrices.empty_droplet_share(sparse.csr_matrix(np.array([[99], [100], [0], [500]]))) == 0.5
    assert matrices.empty_droplet_share(sparse.csr_matrix((0, 3))) == 0
