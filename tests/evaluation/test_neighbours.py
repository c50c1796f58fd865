from __future__ import annotations

import numpy as np
import pytest

from nobackfill.errors import DataError
from nobackfill.evaluation.neighbours import neighbours, overlap, own_ranks


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows


@pytest.mark.parametrize("exclude_self", [False, True])
def test_neighbours_are_the_best_by_cosine_on_the_common_prefix(exclude_self: bool) -> None:
    query, gallery = vectors(40, 7, 0), 3 * vectors(40, 5, 1)
    found = neighbours(query, gallery, 6, exclude_self=exclude_self)
    for row in range(40):
        prefix = query[row, :5]
        cosine = gallery @ prefix / np.linalg.norm(gallery, axis=1)
        if exclude_self:
            cosine[row] = -np.inf
        assert found[row].tolist() == np.argsort(-cosine)[:6].tolist()


def test_twins_do_not_bring_an_item_back_to_itself() -> None:
    rows = vectors(30, 4, 2)
    rows[5:15] = rows[5]
    found = neighbours(rows, rows, 3, exclude_self=True)
    assert found.shape == (30, 3)
    assert all(row not in answers for row, answers in enumerate(found.tolist()))
    assert all(len(set(answers)) == 3 for answers in found.tolist())


def test_a_short_gallery_is_filled_up_with_nothing() -> None:
    rows = vectors(3, 4, 0)
    found = neighbours(rows, rows, 5, exclude_self=True)
    assert found.shape == (3, 5)
    assert (found[:, 2:] == -1).all()
    np.testing.assert_array_equal(overlap(found, found), np.ones(3))
    with pytest.raises(DataError, match="the same items, found 3 and 2"):
        neighbours(rows, rows[:2], 2, exclude_self=True)


def test_overlap_counts_what_both_hold() -> None:
    found, wanted = np.array([[1, 2, 3], [4, 5, -1]]), np.array([[3, 9, 1], [7, -1, -1]])
    np.testing.assert_allclose(overlap(found, wanted), [2 / 3, 0])


def test_own_ranks() -> None:
    rows = vectors(50, 6, 0)
    assert own_ranks(rows, rows).tolist() == [1] * 50
    other = vectors(50, 6, 1)
    for row, rank in enumerate(own_ranks(rows, other).tolist()):
        cosine = other @ rows[row] / np.linalg.norm(other, axis=1)
        assert rank == 1 + int((cosine > cosine[row]).sum())
    same = np.ones((50, 6), np.float32)
    assert own_ranks(rows, same).tolist() == [50] * 50  # tied with all: last
