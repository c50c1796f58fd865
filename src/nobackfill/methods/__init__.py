"""Training methods by name. To add one: a file beside these, and its line in `METHODS`."""

from __future__ import annotations

from nobackfill.config import Kind
from nobackfill.errors import ConfigError, nearest
from nobackfill.methods.advbct import AdvBCT
from nobackfill.methods.base import Batch, Method
from nobackfill.methods.bct import BCT
from nobackfill.methods.bt2 import BT2
from nobackfill.methods.bt2_vectors import BT2Vectors
from nobackfill.methods.concat import Concat
from nobackfill.methods.dsimplex import DSimplex, DSimplexHOC
from nobackfill.methods.independent import Independent
from nobackfill.methods.lce import LCE
from nobackfill.methods.mixbct import MixBCT
from nobackfill.methods.oca import OCA
from nobackfill.methods.pairs import PAIR_METHODS, PairBatch, PairMethod
from nobackfill.methods.prefix import PrefixMethod
from nobackfill.methods.ract import RACT
from nobackfill.methods.unibct import UniBCT
from nobackfill.methods.vector_map import MLP, InfoNCE

METHODS: dict[str, type[Method]] = {
    "independent": Independent,
    "bct": BCT,
    "bt2": BT2,
    "concat": Concat,
    "prefix": PrefixMethod,
    "lce": LCE,
    "ract": RACT,
    "unibct": UniBCT,
    "advbct": AdvBCT,
    "mixbct": MixBCT,
    "oca": OCA,
    "dsimplex": DSimplex,
    "dsimplex_hoc": DSimplexHOC,
    "bt2_vectors": BT2Vectors,
    "mlp": MLP,
    "infonce": InfoNCE,
}


def method_class(name: str, kind: Kind = "image") -> type[Method]:
    """The method of this name that trains on this kind of sample; some have a form of their own for pairs.

    Raises:
        ConfigError: for an unknown name, with the nearest known one; for a method that does not take this kind.
    """
    if name not in METHODS:
        raise ConfigError(f"method: unknown method {name!r}; {nearest(name, METHODS)}")
    forms = METHODS | PAIR_METHODS if kind == "pair" else METHODS
    if kind not in forms[name].kinds:
        fitting = sorted(other for other, form in forms.items() if kind in form.kinds)
        raise ConfigError(
            f"key 'method': {name!r} does not train on {kind}s; expected {', '.join(fitting[:-1])} or {fitting[-1]}"
        )
    return forms[name]


__all__ = ["METHODS", "PAIR_METHODS", "Batch", "Method", "PairBatch", "PairMethod", "method_class"]
