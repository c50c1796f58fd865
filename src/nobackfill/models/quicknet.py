"""A plain convolutional net for images of about 32 pixels, made after the speed records on CIFAR."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from nobackfill.models.convolution import Convolution3

PATCH = 2
EPSILON = 1e-2  # added to the eigenvalues of the patches: the weakest directions are mostly noise


class QuickNet(nn.Module):
    """A frozen whitening convolution, three blocks of two convolutions, a global maximum, a linear layer.

    The stem is a 2×2 convolution of 24 filters that `fit_stem` sets to the principal directions of the training images'
    patches and their negatives. A block is {3×3 convolution, 2×2 max-pool, batch norm, GELU, 3×3 convolution, batch
    norm, GELU}; the blocks have W, 4W and 4W channels. 2.0 M parameters at W = 64, sides of at least 9 pixels.
    """

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.stem: nn.Conv2d = nn.Conv2d(3, 6 * PATCH**2, PATCH, bias=False).requires_grad_(False)
        self.blocks: nn.Sequential = nn.Sequential(
            _Block(self.stem.out_channels, width), _Block(width, 4 * width), _Block(4 * width, 4 * width)
        )
        self.project: nn.Linear = nn.Linear(4 * width, out_features)

    @torch.no_grad()
    def fit_stem(self, images: Tensor) -> None:
        """Set the stem's filters so that their responses to these images are uncorrelated and of equal power.

        Args:
            images: preprocessed, float32 [n, 3, s, s].
        """
        patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(torch.cov(patches.double().T))
        filters = (vectors / (values + EPSILON).sqrt()).T.reshape(12, 3, PATCH, PATCH)
        self.stem.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """[n, 3, s, s] to [n, out_features]."""
        maps: Tensor = self.blocks(gelu(self.stem(images)))
        features: Tensor = self.project(maps.amax((2, 3)))
        return features


class _Block(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.convolution1 = Convolution3(width_in, width_out)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.convolution2 = Convolution3(width_out, width_out)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.pool = nn.MaxPool2d(2)

    def forward(self, maps: Tensor) -> Tensor:
        maps = gelu(self.norm1(self.pool(self.convolution1(maps))))
        return gelu(self.norm2(self.convolution2(maps)))
