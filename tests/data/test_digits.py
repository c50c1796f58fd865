from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nobackfill.data.digits import load_digits

pytest.importorskip("sklearn")


def test_they_are_scikit_learn_s_and_so_is_the_split() -> None:
    from sklearn.datasets import load_digits as original
    from sklearn.model_selection import train_test_split

    images, labels = original(return_X_y=True)
    rows = train_test_split(np.arange(len(labels)), test_size=1 / 3, stratify=labels, random_state=0)
    for split, chosen in zip(("train", "test"), map(np.sort, rows), strict=True):
        loaded = load_digits(Path(), "train" if split == "train" else "test")
        np.testing.assert_array_equal(loaded.labels, labels[chosen])
        expected = np.round(images[chosen] * (255 / 16)).reshape(-1, 8, 8, 1).repeat(3, axis=-1)
        np.testing.assert_array_equal(loaded.images, expected)


def test_they_come_without_importing_it() -> None:
    code = "import sys; from pathlib import Path; from nobackfill.data.digits import load_digits; "
    code += "assert len(load_digits(Path(), 'test')) == 599; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
