"""Parquet columns built from buffers: what goes in comes out, and pandas stays away."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from annotator.exporters import parquet_files
from annotator.exporters.files import open_file

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COLUMNS = {"prompt": "messages", "chosen": "text", "margin": "float", "votes": "int"}
ROW = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=3),
        "chosen": st.none() | TEXT,
        "margin": st.none() | st.floats(allow_nan=False) | st.integers(-3, 3),
        "votes": st.none() | st.integers(-(2**63), 2**63 - 1),
    }
)


@given(st.lists(ROW, min_size=1, max_size=20))
def test_every_value_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    folder = tmp_path_factory.mktemp("columns")
    file = open_file(folder, "train", COLUMNS, container="parquet")
    file.write(rows)
    (facts,) = file.close()
    assert parquet.read_table(folder / facts.name).to_pylist() == rows


def test_texts_too_long_for_one_batch_are_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "MOST_BYTES", 100)
    rows = [{"text": f"{n} " + "é" * 20} for n in range(9)]  # 42 bytes each
    file = open_file(tmp_path, "train", {"text": "text"}, container="parquet")
    file.write(rows)
    (facts,) = file.close()
    assert parquet.read_table(tmp_path / facts.name).to_pylist() == rows
    file = open_file(tmp_path, "test", {"text": "text"}, container="parquet")
    with pytest.raises(OverflowError, match="202 bytes"):
        file.write([{"text": "é" * 101}])


@pytest.mark.parametrize(
    ("kind", "value"), [("int", 1.5), ("int", "1"), ("float", "1"), ("text", 0), ("text", b"a")]
)
def test_a_value_of_another_kind_is_refused(tmp_path: Path, kind: str, value: Any) -> None:
    file = open_file(tmp_path, "train", {"cell": kind}, container="parquet")
    with pytest.raises((TypeError, AttributeError)):
        file.write([{"cell": value}])


WRITE = """
import os, sys
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "annotator.settings"
import django
django.setup()
from annotator.exporters.files import open_file
columns = {"prompt": "messages", "chosen": "text", "margin": "float", "votes": "int"}
row = {"prompt": [{"role": "user", "content": "a"}], "chosen": None, "margin": 1.5, "votes": 2}
file = open_file(Path(sys.argv[1]), "train", columns, container="parquet")
file.write([row])
(facts,) = file.close()
print(facts.rows, "pandas" in sys.modules)
"""


def test_no_worker_keeps_pandas_for_a_parquet_file(tmp_path: Path) -> None:
    assert find_spec("pandas") is not None, "else there is nothing to see here"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "False"]
