"""What is known of training data before they are read."""

from __future__ import annotations

from dataclasses import dataclass

from nobackfill.data.preprocessing import Preprocessing, TextPreprocessing, VectorPreprocessing


@dataclass(frozen=True)
class DataSummary:
    """Sizes and preprocessing that follow from the section `data` alone, or from the heads of the files it names.

    Attributes:
        preprocessing: how the encoder that trains on them sees samples; of texts None, since it comes with the
            encoder's tokenizer.
        count: samples of the training split; None: unknown without reading them.
        classes: of the whole data set; None: unknown.
        old_space: name, size and, where known, fingerprint of the old model, where its vectors come with the data.
        old_input: size of the vectors that the old model takes, where it takes vectors and its own do not come with
            the data.
    """

    preprocessing: Preprocessing | TextPreprocessing | VectorPreprocessing | None
    count: int | None = None
    classes: int | None = None
    old_space: tuple[str, int, str | None] | None = None
    old_input: int | None = None
