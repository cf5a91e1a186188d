"""Readers of count files: every layout gives the same matrix; a broken file is named with what is wrong with it."""

from __future__ import annotations

import gzip

import pytest

from scresist import readers
from scresist.io import InputError

# three genes x two cells; gene 2 has a count of 5 in the first cell, gene 3 of 7 in the second
MTX = "%%MatrixMarket matrix coordinate integer general\n3 2 2\n2 1 5\n3 2 7\n"
FEATURES = "".join(f"ENSG0000000000{i}\tG{i}\tGene Expression\n" for i in (1, 2, 3))
BARCODES = "AAAC-1\nAAAG-1\n"


def folder(place, gz, prefix="", genes="features.tsv"):
    place.mkdir()
    for name, text in (("matrix.mtx", MTX), (genes, FEATURES), ("barcodes.tsv", BARCODES)):
        if gz:
            (place / f"{prefix}{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (place / f"{prefix}{name}").write_text(text)
    return place


@pytest.mark.parametrize(
    ("gz", "prefix", "genes"), [(True, "", "features.tsv"), (False, "", "genes.tsv"), (True, "GSM1_S1_", "features.tsv")]
)
def test_10x_folders_of_every_kind_give_the_same_counts(tmp_path, gz, prefix, genes):
    source = readers.read(folder(tmp_path / "sample", gz, prefix, genes))
    assert source.barcodes == ["AAAC-1", "AAAG-1"]
    (candidate,) = source.candidates
    assert candidate.matrix.toarray().tolist() == [[0, 5, 0], [0, 0, 7]]


def test_a_folder_without_a_matrix_is_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        readers.read(tmp_path / "empty")


def test_a_truncated_file_is_refused_by_name(tmp_path):
    place = folder(tmp_path / "sample", True)
    whole = (place / "matrix.mtx.gz").read_bytes()
    (place / "matrix.mtx.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"matrix\.mtx\.gz"):
        readers.read(place)
