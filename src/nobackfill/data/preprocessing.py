"""From an image file to what the network sees. Part of the encoder: the run folder keeps these settings.

One path for every source: decode to uint8 RGB, resize and crop as uint8 (torchvision, antialiased), then scale to
float on the device. On a CPU the same image gives the same values whether it comes as a file, an array or a data set;
on a GPU arrays are resized there, which may round a pixel by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from nobackfill.config import Modality
from nobackfill.errors import DataError
from nobackfill.files import require_regular

if TYPE_CHECKING:
    from torch import Tensor

# Pillow knows more, and hands some of them (EPS) to other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Role = Literal["query", "document"]
"""What a text is in a search, where that is known."""


class TextPreprocessing(BaseModel):
    """How text becomes token numbers.

    Attributes:
        tokenizer: SHA-256 of the run folder's `tokenizer.json`.
        max_tokens: longer texts are cut to this many tokens, marks of beginning and end included.
        padding: the token that fills a batch up, where the network needs no mask.
        masked: fill up with −1 instead, which the network leaves out.
        marks: add the tokenizer's marks of beginning and end.
        left_out: a token that is removed from every text, such as the one of unknown words.
        prompt: text before each text.
        query_prompt: instead of `prompt`, before texts that are known to be queries; null: `prompt`.
        document_prompt: the same for documents.
    """

    modality: ClassVar[Modality] = "text"
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    tokenizer: str
    max_tokens: int = Field(gt=2, le=65536)
    padding: int = Field(ge=0)
    masked: bool = False
    marks: bool = True
    left_out: int | None = None
    prompt: str = ""
    query_prompt: str | None = None
    document_prompt: str | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample: any number of tokens."""
        return (1,)

    @property
    def backbone_options(self) -> dict[str, int]:
        """Nothing: what a text backbone is built from comes with its tokenizer."""
        return {}

    @property
    def description(self) -> str:
        """What the network takes, in words."""
        return f"texts of up to {self.max_tokens} tokens"

    def normalize(self, tokens: Tensor) -> Tensor:
        """Tokens as they are."""
        return tokens

    def prompt_of(self, role: Role | None) -> str:
        """The text before each text of this role."""
        own = {"query": self.query_prompt, "document": self.document_prompt}.get(role or "")
        return self.prompt if own is None else own

    def random_inputs(self, count: int) -> Tensor:
        """int64 [count, 16] on which a network can be tried: the tokenizer's first token."""
        import torch

        return torch.zeros(count, 16, dtype=torch.int64)


class VectorPreprocessing(BaseModel):
    """How the vectors of another model are seen: at unit norm.

    Attributes:
        input_dim: number of values.
    """

    modality: ClassVar[Modality] = "vector"
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    input_dim: int = Field(gt=0, le=65536)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the network takes it."""
        return (self.input_dim,)

    @property
    def backbone_options(self) -> dict[str, int]:
        """What a backbone has to know of the samples to be built."""
        return {"in_features": self.input_dim}

    @property
    def description(self) -> str:
        """What the network takes, in words."""
        return f"vectors of {self.input_dim} values"

    def normalize(self, vectors: Tensor) -> Tensor:
        """Floats [n, input_dim] of any width to unit vectors float32."""
        from torch.nn.functional import normalize

        return normalize(vectors.float())

    def random_inputs(self, count: int) -> Tensor:
        """float32 [count, input_dim] on which a network can be tried."""
        import torch

        return torch.randn(count, self.input_dim)


class Preprocessing(BaseModel):
    """Evaluation view of an image: to size, then to float with ImageNet's mean and deviation.

    Attributes:
        image_size: side of the square the network sees, in pixels.
        resize: shorter side before the centre crop; None stretches the whole image to the square.
        interpolation: of the resizing, antialiased.
        mirror: whether a vector is the sum of those of the image and of its mirror image.
    """

    modality: ClassVar[Modality] = "image"
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    image_size: int = Field(gt=0, le=4096)
    resize: int | None = Field(default=None, gt=0, le=8192)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mirror: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the network takes it."""
        return (3, self.image_size, self.image_size)

    @property
    def backbone_options(self) -> dict[str, int]:
        """Nothing: a backbone for images takes any size, or refuses it when it is tried."""
        return {}

    @property
    def description(self) -> str:
        """What the network takes, in words."""
        return f"images of {self.image_size}×{self.image_size}"

    def resized(self, images: Tensor) -> Tensor:
        """uint8 [..., 3, height, width] to uint8 [..., 3, image_size, image_size]."""
        size = [self.image_size, self.image_size]
        if self.resize is not None:
            from torchvision.transforms.v2 import InterpolationMode, functional

            mode = InterpolationMode(self.interpolation)
            cut: Tensor = functional.center_crop(functional.resize(images, [self.resize], mode), size)
            return cut
        return images if list(images.shape[-2:]) == size else stretched(images, size, self.interpolation)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, s, s] to float32 of the same shape, channels last in memory."""
        import torch

        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        scaled = images.to(torch.float32).div_(255).sub_(mean).div_(std)
        return scaled.contiguous(memory_format=torch.channels_last)

    def random_inputs(self, count: int) -> Tensor:
        """float32 [count, 3, s, s] on which a network can be tried."""
        import torch

        return torch.randn(count, *self.input_shape)


def stretched(images: Tensor, size: list[int], mode: str) -> Tensor:
    """uint8 [..., 3, height, width] to uint8 [..., 3, *size], antialiased.

    Equal to torchvision's `resize`, without its import, which takes two seconds.
    """
    import torch

    batch = images.reshape(-1, *images.shape[-3:])
    if batch.device.type == "cpu":
        resized = torch.nn.functional.interpolate(batch, size, mode=mode, antialias=True)
    else:  # where integers cannot be resized
        values = torch.nn.functional.interpolate(batch.float(), size, mode=mode, antialias=True)
        resized = values.round_().clamp_(0, 255).to(torch.uint8)
    return resized.reshape(*images.shape[:-2], *size)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An opened image as uint8 [height, width, 3], upright by its EXIF tag, 16-bit grey scaled to 8, alpha dropped."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        return (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)[..., None].repeat(3, axis=-1)
    if image.mode == "P":  # its transparency may be a byte string, which only RGBA takes
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """Open an image in one of the formats admitted; raises `ValueError` for one of too many pixels.

    Raises `OSError` for a pipe or device, which might never end.
    """
    if isinstance(source, str | Path):
        require_regular(Path(source))
    image = Image.open(source, formats=FORMATS)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        image.close()
        raise ValueError(f"{image.width}×{image.height} pixels exceed the limit of {limit}: a decompression bomb?")
    return image


def read_image(source: str | Path | Image.Image) -> NDArray[np.uint8]:
    """An image file (or opened image) as uint8 [height, width, 3].

    Raises:
        DataError: naming the file, if it does not decode.
    """
    try:
        if isinstance(source, Image.Image):
            return to_rgb(source)
        with open_image(source) as image:
            return to_rgb(image)
    except Exception as error:  # a decoder fed with a stranger's bytes may raise anything
        raise DataError(f"{source}: does not decode as an image: {error}") from error
