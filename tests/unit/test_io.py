"""Tables as files: what each kind of cell becomes, that they come back unchanged, that nothing half-written stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import io


def written(frame, path):
    io.write_tsv(frame, path)
    return path.read_text().split("\n")


def test_every_kind_of_cell_is_written_as_promised(tmp_path):
    frame = pd.DataFrame(
        {
            "real": [1 / 3, 123456789.0, np.nan],
            "far": [np.inf, -np.inf, 1e-300],
            "flag": [True, False, True],
            "open": pd.array([True, None, False], dtype="boolean"),
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "word": ["001", None, 'a\t"b"\n c'],
            "kind": pd.Categorical(["x", None, "x"]),
            "mixed": [1, 2.5, "NA"],
        }
    )
    assert written(frame, tmp_path / "t.tsv") == [
        "real\tfar\tflag\topen\twhole\tword\tkind\tmixed",
        "0.333333\tinf\ttrue\ttrue\t1\t001\tx\t1",
        "1.23457e+08\t-inf\tfalse\t\t\t\t\t2.5",
        '\t1e-300\ttrue\tfalse\t3\ta "b" c\tx\tNA',
        "",
    ]


def test_equal_to_the_plain_way_cell_by_cell(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000) * 10.0 ** rng.integers(-15, 15, 2000)
    values[::7] = np.nan
    lines = written(pd.DataFrame({"value": values, "single": values.astype(np.float32)}), tmp_path / "t.tsv")[1:-1]
    plain = [f"{io.format_float(v)}\t{io.format_float(float(s))}" for v, s in zip(values, values.astype(np.float32), strict=True)]
    assert lines == plain


def test_ids_come_back_as_text_and_gaps_as_gaps(tmp_path):
    frame = pd.DataFrame({"id": ["001", "NA", "nan"], "x": [0.1, np.nan, 2.0]})
    io.write_tsv(frame, tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(io.read_tsv(tmp_path / "t.tsv", dtype={"id": str}), frame)


@pytest.mark.parametrize("frame", [pd.DataFrame({"a": [], "b": []}), pd.DataFrame(columns=["a", "b"])])
def test_an_empty_table_is_its_header(frame, tmp_path):
    assert written(frame, tmp_path / "t.tsv") == ["a\tb", ""]


def test_packed_tables_hold_the_same_and_are_equal_bytes(tmp_path):
    import gzip

    frame = pd.DataFrame({"a": ["x"], "b": [0.5]})
    for name in ("one.tsv.gz", "two.tsv.gz"):
        io.write_tsv_gz(frame, tmp_path / name)
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.tsv.gz").read_bytes()) == b"a\tb\nx\t0.5\n"


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        io.write_atomically(tmp_path / "t.tsv", fail)
    assert list(tmp_path.iterdir()) == []
