"""What a training run is made of, as one checked YAML file.

`load_config` reads a file and dotted overrides; an unknown key, a wrong type or a value out of range ends in a
`ConfigError` that names the key. Relative paths are relative to the working directory.
"""

from nobackfill.config.data import (
    AugmentConfig,
    Cifar100Data,
    DataConfig,
    DataSection,
    DigitsData,
    FolderData,
    ImageData,
    Kind,
    Modality,
    PairData,
    TextData,
    VectorData,
)
from nobackfill.config.evaluation import INDEPENDENT, EvaluationConfig, Name
from nobackfill.config.reading import (
    dump_config,
    explain,
    load_config,
    parse_as,
    parse_config,
    parse_data,
    read_tree,
)
from nobackfill.config.run import (
    PER_EPOCH,
    ClassifierOptions,
    MineConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)
from nobackfill.config.section import Positive, Section

__all__ = [
    "INDEPENDENT",
    "PER_EPOCH",
    "AugmentConfig",
    "Cifar100Data",
    "ClassifierOptions",
    "DataConfig",
    "DataSection",
    "DigitsData",
    "EvaluationConfig",
    "FolderData",
    "ImageData",
    "Kind",
    "MineConfig",
    "Modality",
    "ModelConfig",
    "Name",
    "OptimizerConfig",
    "PairData",
    "Positive",
    "RunConfig",
    "ScheduleConfig",
    "Section",
    "TextData",
    "VectorData",
    "dump_config",
    "explain",
    "load_config",
    "parse_as",
    "parse_config",
    "parse_data",
    "read_tree",
]
