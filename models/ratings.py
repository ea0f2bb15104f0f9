"""Who gave which unit which value: the input of every measure of agreement. Pure numpy and scipy.

A unit is whatever was judged (a task, a response on one attribute), a rater whoever judged it, a
value the verdict as a number: a category's code, a strength, a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LARGEST_CODE: Final = 2**31 - 1  # so that (unit, rater) fits one 64-bit key
EXACT_BITS: Final = 53  # integers of so many bits are exact in a float
EXACT: Final = 2.0**EXACT_BITS


@dataclass(frozen=True, eq=False)
class Ratings:
    """n ratings in long format: one row per (unit, rater), in any order.

    units (n,) and raters (n,) integer codes from 0, gaps allowed; values (n,) finite floats.
    No row means no rating: missing is not zero. Raises ValueError on ragged or not 1-D arrays,
    codes that are negative or above 2**31 - 1, values that are NaN or infinite, and two rows for
    the same rater and unit. ``Ratings.of`` takes any labels, ``Ratings.from_matrix`` a table.
    """

    units: Ints
    raters: Ints
    values: Floats

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        arrays = {"units": _code_array(self.units), "raters": _code_array(self.raters)}
        shapes = {array.shape for array in (*arrays.values(), values)}
        if values.ndim != 1 or len(shapes) > 1:
            raise ValueError(f"units, raters and values must be equal and (n,), not {shapes}")
        if not np.isfinite(values).all():
            raise ValueError("values must be finite; leave a missing rating out")
        for name, array in {**arrays, "values": values}.items():
            object.__setattr__(self, name, array)
        key = np.sort(self.units * (1 + self.raters.max(initial=0)) + self.raters)
        if (key[1:] == key[:-1]).any():
            raise ValueError("a rater has two ratings of one unit; Ratings.of keeps the last")

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, units: ArrayLike, raters: ArrayLike, values: ArrayLike) -> Ratings:
        """From any sortable labels of units and raters, (n,) each, and values (n,).

        Rows whose value is NaN are left out. Of several ratings by one rater of one unit the last
        row is kept. Codes follow the sorted labels. Raises ValueError as the constructor.
        """
        unit, rater = np.asarray(units), np.asarray(raters)
        value = np.asarray(values, dtype=np.float64)
        if value.ndim != 1 or not unit.shape == rater.shape == value.shape:
            raise ValueError(f"shapes differ: {unit.shape}, {rater.shape}, {value.shape}")
        rated = ~np.isnan(value)
        unit = np.unique(unit[rated], return_inverse=True)[1].astype(np.int64)
        rater = np.unique(rater[rated], return_inverse=True)[1].astype(np.int64)
        key = unit * (1 + rater.max(initial=0)) + rater
        last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]
        return cls(unit[last], rater[last], value[rated][last])

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Ratings:
        """From a (raters, units) table with NaN where a rater did not rate a unit.

        The layout of the ``krippendorff`` package. Raises ValueError if it is not 2-D or holds
        an infinity.
        """
        table = np.asarray(matrix, dtype=np.float64)
        if table.ndim != 2:
            raise ValueError(f"the table must be (raters, units), not {table.shape}")
        raters, units = np.nonzero(~np.isnan(table))
        return cls(units.astype(np.int64), raters.astype(np.int64), table[raters, units])

    def where(self, rows: ArrayLike) -> Ratings:
        """Some of the rows: (n,) booleans, or row numbers. Codes stay as they are."""
        chosen = np.asarray(rows)
        return Ratings(self.units[chosen], self.raters[chosen], self.values[chosen])


def as_ratings(ratings: Ratings | ArrayLike) -> Ratings:
    """``Ratings`` as they are, anything else as a (raters, units) table with NaN for gaps."""
    return ratings if isinstance(ratings, Ratings) else Ratings.from_matrix(ratings)


def codes_of(values: NDArray[Any]) -> tuple[NDArray[Any], Ints]:
    """Sorted distinct values (K,) and the code 0..K-1 of each of (n,): ``np.unique``, quicker.

    Whole numbers in a narrow range are counted instead of sorted.
    """
    if values.size and values.dtype.kind in "iuf":
        low, high = values.min(), values.max()
        if -EXACT < low <= high < EXACT and high - low < 4 * values.size + 1024:
            offset = (values - low).astype(np.int64)
            if values.dtype.kind in "iu" or np.array_equal(offset + low, values):
                present = np.bincount(offset) > 0
                found = np.flatnonzero(present) + low
                return found.astype(values.dtype), (np.cumsum(present) - 1)[offset]
    found, codes = np.unique(values, return_inverse=True)
    return found, codes.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Table:
    """How often each unit got each value, for units with two ratings or more.

    cells (rows, K) sparse counts; domain (K,) the sorted values; sizes (rows,) ratings per unit;
    times (rows,) how many units look exactly like this row.
    """

    cells: csr_array
    domain: Floats
    sizes: Floats
    times: Ints

    @classmethod
    def of(cls, ratings: Ratings) -> Table:
        """One row per unit that two raters or more have rated."""
        unit = codes_of(ratings.units)[1]
        per_unit = np.bincount(unit)
        paired = per_unit[unit] > 1
        row = (np.cumsum(per_unit > 1) - 1)[unit[paired]]
        domain, category = codes_of(ratings.values[paired])
        rows, width = int(np.count_nonzero(per_unit > 1)), max(1, len(domain))
        key, count = np.unique(row * width + category, return_counts=True)
        starts = np.searchsorted(key, np.arange(rows + 1) * width)
        cells = csr_array(
            (count.astype(np.float64), key % width, starts), shape=(rows, len(domain))
        )
        sizes = per_unit[per_unit > 1].astype(np.float64)
        return cls(cells, domain, sizes, np.ones(rows, dtype=np.int64))

    def merged(self) -> Table:
        """Equal rows as one, with their number in ``times``; itself where that cannot be told.

        Few values make few kinds of unit: a million judgments on seven steps by three people
        have at most 84.
        """
        base = self.sizes.max(initial=0) + 1
        if not len(self.times) or len(self.domain) * np.log2(base) > EXACT_BITS:
            return self
        digits = base ** np.arange(len(self.domain))
        kind = self.cells @ digits  # (rows,) the counts as the digits of one whole number
        _, first, index = np.unique(kind, return_index=True, return_inverse=True)
        times = np.bincount(index, weights=self.times).astype(np.int64)
        return Table(self.cells[first], self.domain, self.sizes[first], times)


def _code_array(codes: ArrayLike) -> Ints:
    array = np.asarray(codes)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"codes must be whole numbers, not {array.dtype}; see Ratings.of")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= LARGEST_CODE:
        raise ValueError(f"codes must be 0..{LARGEST_CODE}; Ratings.of takes any labels")
    return array.astype(np.int64)
