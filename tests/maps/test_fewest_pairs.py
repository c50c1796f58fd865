"""How many pairs `fit` asks for is how many it takes."""

from __future__ import annotations

import re

import pytest

from nobackfill.errors import DataError
from nobackfill.maps.pairs import split_rows


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
def test_the_number_named_is_the_smallest_that_does(fraction: float, apart: bool) -> None:
    with pytest.raises(DataError, match=r"^40 pairs are too few .* at least \d+$") as caught:
        split_rows(40, fraction, 0, assessed_apart=apart)
    number = int(re.findall(r"\d+", str(caught.value))[-1])
    split_rows(number, fraction, 0, assessed_apart=apart)
    with pytest.raises(DataError, match=f"^{number - 1} pairs are too few .* at least {number}$"):
        split_rows(number - 1, fraction, 0, assessed_apart=apart)
