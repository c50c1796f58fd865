"""From a trained network to an encoder: head folded, fingerprint taken, generation named."""

from __future__ import annotations

from nobackfill.models.encoder import Encoder
from nobackfill.models.kinds import ENCODERS
from nobackfill.models.network import Network
from nobackfill.models.spec import AnyPreprocessing, EmbeddingSpec, OlderSpace, fingerprint


def finished_encoder(
    network: Network,
    method: str,
    preprocessing: AnyPreprocessing,
    prefixes: tuple[OlderSpace, ...] = (),
    tokenizer: str | None = None,
) -> Encoder:
    """Wrap a trained network: fold its head, fingerprint it, name the generation. Texts need their tokenizer's JSON."""
    spec = finished_spec(network, method, preprocessing, prefixes)
    return ENCODERS[spec.modality](network, spec, *([] if tokenizer is None else [tokenizer]))


def finished_spec(
    network: Network,
    method: str,
    preprocessing: AnyPreprocessing,
    prefixes: tuple[OlderSpace, ...] = (),
) -> EmbeddingSpec:
    """The spec of a trained network, whose head this folds."""
    network.head.fold()
    digest = fingerprint(network.architecture, preprocessing, network.state_dict())
    return EmbeddingSpec(
        generation=f"{method}-{digest[:12]}",
        dim=network.head.dim,
        norm=network.head.norm,
        prefixes=prefixes,
        fingerprint=digest,
        architecture=network.architecture,
        preprocessing=preprocessing,
    )
