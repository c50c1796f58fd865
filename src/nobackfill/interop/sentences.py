"""A run as a module of sentence-transformers, which importing this needs (extra `sentences`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from nobackfill.data.preprocessing import Role, VectorPreprocessing
from nobackfill.errors import RunError, require
from nobackfill.models import runfolder
from nobackfill.models.spec import fingerprint
from nobackfill.models.text import TextEncoder

require("sentence_transformers.base.modules", what="SentenceModule")
from sentence_transformers.base.modules import InputModule  # noqa: E402


class SentenceModule(InputModule):  # type: ignore[misc]
    """The encoder of a run, frozen, as the last or only module of a `SentenceTransformer`.

    A run of vectors goes after the modules of the model whose vectors it takes, a text run stands alone:

        SentenceTransformer(modules=[*model, SentenceModule("fits/upgrade")])
        SentenceTransformer(modules=[SentenceModule("text")])

    It stays in evaluation mode and in float32 whatever the model around it is turned to: its vectors are those of its
    generation or none. Gradients pass through it to the modules before it.

    Args:
        run: run folder of vectors or text.

    Raises:
        RunError: for a run of images, or a folder that is not a whole run.
    """

    save_in_root = False  # so that the folder it is saved to is a run folder and nothing else

    def __init__(self, run: str | Path) -> None:
        super().__init__()
        encoder = runfolder.load(run, "cpu")
        if encoder.spec.modality == "image":
            raise RunError(f"{run}: this run embeds images; expected a run that embeds vectors or texts")
        self.encoder = encoder.requires_grad_(False)

    def forward(self, features: dict[str, object], **kwargs: object) -> dict[str, object]:  # noqa: ARG002 (the others' options)
        """Set features["sentence_embedding"], float32 [n, dim].

        Args:
            features: of a text run, with "input_ids" int64 [n, t]; else with "sentence_embedding", floats
                [n, input_dim] of any norm. Rows of zeros have no direction: what becomes of them means nothing.
            kwargs: not used.

        Raises:
            RunError: if there are no vectors, or vectors of another size.
        """
        preprocessing = self.encoder.spec.preprocessing
        if isinstance(preprocessing, VectorPreprocessing):
            inputs = features.get("sentence_embedding")
            if not isinstance(inputs, Tensor) or inputs.shape[-1] != preprocessing.input_dim:
                size = inputs.shape[-1] if isinstance(inputs, Tensor) else "none"
                raise RunError(
                    f"SentenceModule of {self.encoder.spec.generation}: expected sentence embeddings of "
                    f"{preprocessing.input_dim} values from the modules before it, found {size}"
                )
            inputs = preprocessing.normalize(inputs)
        else:
            inputs = features["input_ids"]
        features["sentence_embedding"] = self.encoder(inputs)
        return features

    def preprocess(
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        *,
        task: str | None = None,
        **kwargs: object,  # noqa: ARG002 (the others' options)
    ) -> dict[str, Tensor]:
        """Texts to {"input_ids": int64 [n, t]}.

        Args:
            inputs: strings.
            prompt: put before each of them instead of the run's own; None or "": the run's own.
            task: "query" and "document", which `encode_query` and `encode_document` give, take the run's prompt for it.
            kwargs: not used.

        Raises:
            DataError: for anything but strings.
            RunError: for a run of vectors.
        """
        if not isinstance(self.encoder, TextEncoder):
            raise RunError(
                f"SentenceModule of {self.encoder.spec.generation}: takes vectors; put it after the modules of the "
                "model that makes them"
            )
        roles: dict[str | None, Role] = {"query": "query", "document": "document"}
        return {"input_ids": self.encoder.tokens(inputs, roles.get(task), prompt or None)}

    def get_embedding_dimension(self) -> int:
        """Number of values of an embedding."""
        return self.encoder.spec.dim

    @property
    def max_seq_length(self) -> int | None:
        """Longest text in tokens; None for a run of vectors."""
        return getattr(self.encoder.spec.preprocessing, "max_tokens", None)

    def save(self, output_path: str, *args: object, safe_serialization: bool = True, **kwargs: object) -> None:  # noqa: ARG002
        """Write the run's files into an existing folder, which `nobackfill.load` reads too.

        Raises:
            RunError: if the weights are not the run's any more.
        """
        spec, network = self.encoder.spec, self.encoder.network
        content = fingerprint(spec.architecture, spec.preprocessing, network.state_dict())
        if content != (spec.content or spec.fingerprint):
            raise RunError(
                f"SentenceModule of {spec.generation}: its weights have changed, so it is a different model now"
            )
        runfolder.save(self.encoder, Path(output_path))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: object) -> SentenceModule:
        """Read what `save` wrote: tensors and JSON, checked as those of any run; raises `RunError`."""
        places = ("token", "cache_folder", "revision", "local_files_only")
        folder = cls.load_dir_path(
            model_name_or_path, subfolder, **{key: kwargs[key] for key in places if key in kwargs}
        )
        if folder is None:
            raise RunError(f"{model_name_or_path}: no folder {subfolder!r} in it")
        return cls(folder)

    def get_config_dict(self) -> dict[str, str | int]:
        """What `repr` shows."""
        spec = self.encoder.spec
        return {"generation": spec.generation, "dim": spec.dim}

    def train(self, mode: bool = True) -> SentenceModule:  # noqa: ARG002 (a frozen encoder has one mode)
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SentenceModule:
        """Follow the model to another device, not to another precision."""

        # `SentenceTransformer` turns all modules to its first one's type, and an encoder in half precision is another.
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)
        return self
