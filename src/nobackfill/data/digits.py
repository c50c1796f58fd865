"""The handwritten digits that come with scikit-learn: 1,797 images of 8×8 pixels, ten classes."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nobackfill.data.samples import ImageSamples

# The test images as packed bits, drawn once by scikit-learn's `train_test_split` (a third, stratified, random_state=0).
TEST = (
    "482004c8b52630c009166121d742450c5a000c1122a40028062c1e081108960a009019320430fca092c396e442284adab0441724c942c8e2"
    "4a2130806004d82140eba02000588dc58010420ea09000054ae801f01000328ecc09005a36840083b8053ca3a69e4e0224000fcbd42804a4"
    "99dd02124061e540812c604e9c376ba592174154c8404842a0a4980a5000b64b8561ee891388cf126c82c02205068f422109f202c141bd88"
    "13c809190101948e21028410a8f52033283920c944c8c8688a2102932292030932a6402da6862108aa608198c8a0141286124a12853cb41d20"
)


def load_digits(root: Path, split: Literal["train", "test"]) -> ImageSamples:  # noqa: ARG001 (they need no folder)
    """Grey values 0–16 as RGB uint8 [n, 8, 8, 3]; a third of each class, always the same, is the test split."""
    rows = _rows()
    test = np.unpackbits(np.frombuffer(bytes.fromhex(TEST), np.uint8), count=len(rows)).astype(bool)
    chosen = rows[test if split == "test" else ~test]
    pixels = np.round(chosen[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1).repeat(3, axis=-1)
    return ImageSamples(pixels, chosen[:, -1].astype(np.int64), tuple("0123456789"), "scikit-learn's digits")


@cache
def _rows() -> NDArray[np.float64]:
    """scikit-learn's file [1797, 64 grey values and the digit], without the two seconds that its import takes."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
