"""The stages of a backbone, from the stem to the output layer: for freezing some, and for rates that fall with depth.

timm's models say themselves how their parameters group (`group_matcher`); for the others it stands here, in timm's own
form: regular expressions over parameter names, what matches none of them being the output layer.
"""

from __future__ import annotations

import re

from torch import nn

from nobackfill.errors import ConfigError


def stages(backbone: nn.Module, name: str) -> dict[str, int]:
    """Parameter name → stage: 0 the stem, then one stage after the other, the largest the output layer.

    Raises:
        ConfigError: if the stages of this backbone are not known; `name` is for the message.
    """
    from timm.models import group_parameters

    from nobackfill.models.backbones import SmallNet
    from nobackfill.models.quicknet import QuickNet
    from nobackfill.models.sentence import SentenceBackbone
    from nobackfill.models.static import StaticBackbone

    matcher: dict[str, object]
    if isinstance(backbone, SmallNet):
        matcher = {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
    elif isinstance(backbone, QuickNet):
        matcher = {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}
    elif hasattr(backbone, "group_matcher"):
        matcher = backbone.group_matcher(coarse=True)  # type: ignore[operator]
    elif name.startswith("reference/") and hasattr(backbone, "layer4"):
        last = len(backbone.layer4) - 1  # type: ignore[arg-type]  # the block that projects
        matcher = {
            "stem": r"^(?:conv1|bn1)",
            "blocks": [(r"^layer([123])", None), (rf"^layer(4)\.[0-{last - 1}]\.", None)],
        }
    elif name.startswith("reference/") and hasattr(backbone, "features"):
        matcher = {"features": r"^features\.(\d+)", "classifier": r"^classifier\.([0-5])\."}
    elif name.startswith("reference/") and hasattr(backbone, "transformer"):
        matcher = {
            "stem": r"^transformer\.embeddings",
            "blocks": [
                (r"^transformer\.(?:encoder\.)?layers?\.(\d+)", None),
                (r"^transformer\.(?:layernorm|pooler)", (99999,)),  # timm's mark for "with the stage before"
            ],
        }
    elif isinstance(backbone, StaticBackbone):
        matcher = {"stem": r"^table"}
    elif isinstance(backbone, SentenceBackbone):
        matcher = {
            "stem": r"^model\.(?:embeddings|embed_tokens|tok_embeddings)",
            "blocks": [
                (r"^model\.(?:(?:encoder|transformer|decoder)\.)?(?:layers?|h)\.(\d+)", None),
                (r"^(?:model|dense)\.", (99999,)),
            ],
        }
    else:
        raise ConfigError(f"model.backbone: the stages of {name!r} are not known; leave out freeze and layer_decay")
    numbered: dict[str, int] = group_parameters(backbone, matcher, reverse=True)
    return numbered


def freeze(backbone: nn.Module, what: str, name: str) -> int:
    """Stop the parameters of some stages from learning; returns how many parameters stay frozen.

    Args:
        backbone: its parameters are marked.
        what: `backbone`, all but the output layer; or `stages<n`, the stages numbered below n.
        name: of the backbone, for messages.

    Raises:
        ConfigError: if nothing of the backbone would be left to learn, or its stages are not known.
    """
    stage = stages(backbone, name)
    last = max(stage.values())
    below = last if what == "backbone" else int(re.sub(r"\D", "", what))
    if below > last:
        raise ConfigError(
            f"key 'freeze': {what!r}: the output layer of {name!r} is stage {last}, so at most stages<{last} can freeze"
        )
    frozen = 0
    for parameter_name, parameter in backbone.named_parameters():
        if stage[parameter_name] < below:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen


def rest_frozen(network: nn.Module) -> None:
    """Keep frozen batch norms in evaluation mode: else their running statistics would go on changing."""
    for module in network.modules():
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if norm and module.weight is not None and not module.weight.requires_grad:
            module.eval()
