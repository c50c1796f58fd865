"""A config checked against its method, and filled in with its defaults; nothing but the config is looked at."""

from __future__ import annotations

from nobackfill.config import RunConfig
from nobackfill.errors import ConfigError
from nobackfill.methods import Method, method_class
from nobackfill.models.backbones import backbone_modality, check_weights
from nobackfill.models.text_source import SENTENCE, STATIC


def resolve(config: RunConfig, method: Method | None = None) -> RunConfig:
    """The config with its method's defaults filled in (`method_of`, if left out); refuses keys it has no use for.

    Raises:
        ConfigError: unknown method, superfluous or missing key, warm-up as long as the run.
    """
    method = method or method_of(config)
    _check_data(config, method)
    _check_teachers(config, method)
    _check_model(config, method)
    _check_init(config)
    if config.mine is not None and (config.data.kind != "pair" or config.old is None):
        lack = f"data {config.data.name!r} are no pairs" if config.data.kind != "pair" else "there is no old model"
        raise ConfigError(f"key 'mine': {lack}, but the old model mines negatives of pairs; leave it out")
    if config.schedule.milestones and config.schedule.milestones[-1] >= config.epochs:
        raise ConfigError(
            f"key 'schedule.milestones': {config.schedule.milestones[-1]} must be less than epochs ({config.epochs})"
        )
    if config.schedule.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"key 'schedule.warmup_epochs': {config.schedule.warmup_epochs} must be less than epochs ({config.epochs})"
        )
    if config.batch_size % config.accumulate or config.batch_size // config.accumulate < 2:
        raise ConfigError(
            f"key 'batch_size': {config.batch_size} does not divide into {config.accumulate} micro-batches "
            "(accumulate) of at least two samples"
        )
    if config.average and config.freeze:
        raise ConfigError("keys 'average', 'freeze': frozen weights cannot be averaged; leave one of the two out")
    _check_freeze(config)
    if config.optimizer.nesterov and config.optimizer.name not in ("sgd", "muon"):
        raise ConfigError(f"key 'optimizer.nesterov': {config.optimizer.name!r} does not use it; leave it out")
    model = {key: value for key, value in config.model.model_dump().items() if value is not None}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={**method.model_defaults, **model}),
            "loss": {**method.loss_defaults, **config.loss},
        }
    )


def method_of(config: RunConfig) -> Method:
    """The method that a config names, with its weights. Raises `ConfigError` as `method_class` does."""
    return method_class(config.method, config.data.kind)(config.loss)


def teacher_keys(method: Method) -> dict[str, bool]:
    """Which of a config's teacher keys its method needs; the prototypes come from the old model.

    An independent model whose weight is 0 need not exist; the old one is what the new one is compatible with in any
    case.
    """
    return {
        "old": bool(method.teachers & {"old", "prototypes", "statistics"}),
        "independent": "independent" in method.needed,
    }


def _check_data(config: RunConfig, method: Method) -> None:
    """Raise `ConfigError` where method, backbone and data do not go together."""
    data, backbone = config.data, config.model.backbone
    if backbone_modality(backbone) != data.modality:
        raise ConfigError(f"key 'model.backbone': {backbone!r} does not work with data {data.name!r}")
    check_weights(backbone, config.model.pretrained, config.model.weights)
    if method.needs_labels and not data.labelled:
        raise ConfigError(
            f"key 'method': {config.method!r} needs class labels; give data.labels, or choose another method"
        )
    label_key = "data.label" if data.kind == "text" else "data.labels"
    if "prototypes" in method.needed and not data.labelled:
        raise ConfigError(f"key 'loss.prototypes': prototypes need {label_key}; set {label_key}, or this to 0")
    if data.kind != "pair" and not data.labelled and "old" not in method.needed:
        raise ConfigError(
            f"key {label_key!r}: method {config.method!r} has nothing to learn from {data.kind}s without labels; set it"
        )
    if config.teacher_view == "same":
        if not data.random_views:
            raise ConfigError(f"key 'teacher_view': {data.kind}s have only one view; leave it out")
        if not method.needed & {"old", "independent"}:
            why = " with these weights in loss" if method.teachers & {"old", "independent"} else ""
            raise ConfigError(
                f"key 'teacher_view': method {config.method!r} does not use teachers' vectors{why}; leave it out"
            )


def _check_model(config: RunConfig, method: Method) -> None:
    """Raise `ConfigError` for a key of `model` that nothing looks at; the defaults stand in configs of older runs."""
    model, defaults = config.model, method.model_defaults
    for key in ("extra_dim", "scale", "rectify"):
        if getattr(model, key) is not None and key not in defaults:
            raise ConfigError(f"key 'model.{key}': method {config.method!r} does not use it; leave it out")
    for key in ("classifier_scale", "classifier_bias"):
        if getattr(model, key) not in (None, False) and not method.classifies:
            raise ConfigError(
                f"key 'model.{key}': method {config.method!r} trains no classifier on {config.data.kind}s; leave it out"
            )
    extra_dim = defaults.get("extra_dim") if model.extra_dim is None else model.extra_dim
    if extra_dim == 0 and model.rectify not in (None, defaults.get("rectify")):
        raise ConfigError("key 'model.rectify': with model.extra_dim: 0 there is nothing to rectify; leave it out")


def _check_init(config: RunConfig) -> None:
    """Raise `ConfigError` where the output layer has nothing to be fitted to."""
    if config.init is None:
        return
    if config.data.modality != "text":
        raise ConfigError(f"key 'init': only text models have it, data {config.data.name!r} are none; leave it out")
    if config.init_from is not None:
        raise ConfigError("keys 'init', 'init_from': both set the output layer; leave one of the two out")
    if config.old is None:
        raise ConfigError(f"key 'init': method {config.method!r} has no old model to fit to; leave it out")


def _check_freeze(config: RunConfig) -> None:
    """Raise `ConfigError` where what is frozen has learnt nothing; whether a backbone has stages is seen later."""
    model = config.model
    own = model.pretrained or model.weights is not None or model.backbone.startswith((f"{SENTENCE}:", f"{STATIC}:"))
    if config.freeze is not None and config.init_from is None and not own and config.data.modality != "vector":
        raise ConfigError(
            f"key 'freeze': {config.freeze!r}, but {model.backbone!r} starts from random weights, which would never "
            "learn; leave it out, or set init_from or published weights"
        )


def _check_teachers(config: RunConfig, method: Method) -> None:
    """Raise `ConfigError` for a teacher that is missing or superfluous."""
    needs = teacher_keys(method)
    for key, needed in needs.items():
        named = getattr(config, key) is not None
        if key in config.data.brings and needed:
            continue  # its vectors come with the data; the run folder only says which model it was
        if needed and not named:
            raise ConfigError(f"missing key {key!r}: method {config.method!r} needs the run folder of that model")
        if named and not needed:
            why = f" with loss.{key}: 0" if key in method.teachers else ""
            raise ConfigError(f"key {key!r}: method {config.method!r} does not use it{why}; leave it out")
    if config.model.old_dim is not None and not needs["old"]:
        raise ConfigError(f"key 'model.old_dim': method {config.method!r} does not use it; leave it out")
