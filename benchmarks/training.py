"""Training speed, compared with the research code, bare steps and plain training.

    python benchmarks/training.py                    # all parts; minutes on two cores
    python benchmarks/training.py --parts small      # only the 32-pixel net

Images are random (the time does not depend on them): 32 × 32 pixels in memory for our engine, the same as PNG files for
the research code. Ours is `nobackfill.training.train` itself, its speed read from `history.jsonl` (the last
epoch: the first one warms up). The loss is BT²'s, with briefly trained teachers.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nobackfill.config import RunConfig, parse_config
from nobackfill.data import ImageSamples
from nobackfill.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from nobackfill.errors import DataError
from nobackfill.methods import Batch, method_class
from nobackfill.models import Network, build_backbone, convolution
from nobackfill.training import setup as training_setup
from nobackfill.training import summary as training_summary
from nobackfill.training import train
from nobackfill.training.memory import keep_freed_memory
from nobackfill.training.precision import Precision, choose_precision
from nobackfill.training.resolving import resolve
from nobackfill.training.start import make_optimizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES = 100


def random_images(count: int) -> ImageSamples:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageSamples(pixels, np.arange(count) % CLASSES, tuple(map(str, range(CLASSES))), "random images")


def serve(images: ImageSamples) -> None:
    """Let the engine read these images; there is no test split, so nothing is evaluated."""

    def no_test(*_: Any) -> ImageSamples:
        raise DataError("the benchmark has no test split")

    training_setup.load_split = lambda *_: images  # type: ignore[attr-defined]
    training_summary.load_split = no_test  # type: ignore[attr-defined]


def run_config(method: str, backbone: str, side: int, batch: int, teachers: Path, **more: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "method": method,
        "data": {"name": "cifar100", "root": ".", "image_size": side, "augment": {"flip": True}},
        "model": {"backbone": backbone, "embedding_dim": 128},
        "epochs": 2,
        "batch_size": batch,
        **more,
    }
    if method == "bt2":
        tree["model"]["extra_dim"] = 32
        tree |= {"old": str(teachers / "old"), "independent": str(teachers / "new")}
    return parse_config(tree)


def engine_step(config: RunConfig, folder: Path) -> float:
    """Seconds a step of the engine, all included, in the last epoch."""
    run = train(config, Path(tempfile.mkdtemp(dir=folder)) / "run")
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return config.batch_size / float(lines[-1]["images_per_second"])


def network_of(config: RunConfig) -> tuple[Any, Network]:
    method = method_class(config.method)(config.loss)
    head = method.head(config.model, 128, CLASSES)
    network = Network(build_backbone(config.model.backbone, head.in_features), head, config.model.backbone)
    return method, network.to(DEVICE)


def random_batch(count: int) -> Batch:
    unit = nn.functional.normalize(torch.randn(count, 128, device=DEVICE))
    prototypes = 0.5 * nn.functional.normalize(torch.randn(CLASSES, 128, device=DEVICE))
    return Batch(torch.arange(count, device=DEVICE) % CLASSES, unit, unit, prototypes)


def bare_step(config: RunConfig, steps: int, side: int = 0, number_format: Precision | None = None) -> float:
    """Seconds a forward, backward and optimiser step on one batch that is there already: the floor.

    `side`: of the images, instead of the config's; `number_format`: of Muon's matrices, instead of the processor's.
    """
    config = resolve(config)
    method, network = network_of(config)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    precision = choose_precision(config.precision, DEVICE)[0]
    optimizer = make_optimizer(config, network, number_format or precision)
    side = side or config.data.image_size
    images = torch.randn(config.batch_size, 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)
    batch = random_batch(config.batch_size)
    times = []
    for _ in range(steps):
        started = now()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
            output = network(images)
        torch.stack(list(method.loss(output, batch).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(now() - started)
    return float(np.mean(times[2:]))  # the mean, as the engine's speed is one


def research_step(config: RunConfig, images: ImageSamples, folder: Path, steps: int) -> float:
    """Seconds a step as the research code makes it: float32 in NCHW, PNG files through PIL, a dict of teacher vectors
    looked up image by image, orthogonal layers by the matrix exponential, the loss read at every step."""
    from PIL import Image
    from torch.nn.utils.parametrizations import orthogonal
    from torchvision import transforms

    config = resolve(config)
    method, network = network_of(config)
    network.train()
    for name, size in (("P", 128), ("B", 128)):
        setattr(network.head.basis, name, orthogonal(nn.Linear(size, size, bias=False).to(DEVICE)))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=2**-15)
    assert isinstance(images.images, np.ndarray)
    paths = [str(folder / f"{number}.png") for number in range(len(images))]
    for path, pixels in zip(paths, images.images, strict=True):
        Image.fromarray(pixels).save(path)
    side = config.data.image_size
    view = transforms.Compose(
        [
            transforms.Resize((side, side)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    kept = {path: torch.nn.functional.normalize(torch.randn(128), dim=0) for path in paths}
    prototypes = random_batch(2).prototypes

    class Files(torch.utils.data.Dataset[tuple[Tensor, int, str]]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[Tensor, int, str]:
            with Image.open(paths[index]) as image:
                return view(image.convert("RGB")), int(images.labels[index]), paths[index]

    def endless() -> Iterator[Any]:
        while True:
            yield from torch.utils.data.DataLoader(
                Files(), config.batch_size, shuffle=True, drop_last=True, num_workers=min(16, os.cpu_count() or 1)
            )

    times, batches = [], endless()
    for _ in range(steps):
        started = now()
        pixels, labels, names = next(batches)
        pixels, labels = pixels.to(DEVICE), labels.to(DEVICE)
        vectors = torch.stack([kept[name] for name in names]).to(DEVICE)
        parts = method.loss(network(pixels), Batch(labels, vectors, vectors, prototypes))
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(now() - started)
    return float(np.mean(times[2:]))  # the mean: the workers fetch several batches at once


def peak_flops() -> float:
    """Multiply-adds × 2 a second of a large matrix product in bf16, or fp32: what the device gives in practice."""
    n = 8192 if DEVICE.type == "cuda" else 2048
    bf16 = choose_precision("auto", DEVICE)[0] == "bf16"
    a = torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16 if bf16 else torch.float32)
    times = []
    for _ in range(5):
        started = now()
        a @ a
        times.append(now() - started)
    return float(2 * n**3 / min(times))


def step_flops(config: RunConfig) -> float:
    """Of the backbone, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    network = build_backbone(config.model.backbone, 256).eval()
    side = config.data.image_size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 3, side, side))
    return 3.0 * counter.get_total_flops() * config.batch_size


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def large(folder: Path, teachers: Path, rows: dict[str, Any]) -> None:
    batch, steps = (128, 40) if DEVICE.type == "cuda" else (32, 4)
    images = random_images(batch * steps)
    serve(images)
    config = run_config("bt2", "reference/resnet50", 224, batch, teachers)
    ours = engine_step(config, folder)
    plain = engine_step(run_config("independent", "reference/resnet50", 224, batch, teachers), folder)
    theirs = research_step(config, images, folder, steps + 2)
    rows["resnet50_224"] = {
        "ours_images_per_second": batch / ours,
        "research_images_per_second": batch / theirs,
        "speedup": theirs / ours,
        "share_of_matrix_product": step_flops(config) / ours / peak_flops(),
        "bt2_over_plain": ours / plain,
    }


def small(folder: Path, teachers: Path, rows: dict[str, Any]) -> None:
    batch = 128
    serve(random_images(batch * 60))
    settings = {"data": {"name": "cifar100", "root": ".", "augment": {"crop": "padded", "flip": True}}, "epochs": 3}
    config = run_config("bt2", "smallnet32", 32, batch, teachers, **settings)
    plain_config = run_config("independent", "smallnet32", 32, batch, teachers, **settings)
    ours, plain, bare = [], [], []
    for _ in range(3):  # in turn, so that a slow moment of the machine hits all of them
        ours.append(engine_step(config, folder))
        bare.append(bare_step(config, 60))
        plain.append(engine_step(plain_config, folder))
    rows["smallnet32_32"] = {
        "ours_images_per_second": batch / min(ours),
        "bare_images_per_second": batch / min(bare),
        "data_and_teachers_over_bare": min(ours) / min(bare) - 1,
        "bt2_over_plain": min(ours) / min(plain),
    }


def recipe(folder: Path, teachers: Path, rows: dict[str, Any]) -> None:
    """The CIFAR-100 recipe: what Muon, smaller views and (in bf16) images side by side change."""
    settings = {"optimizer": {"name": "muon", "lr": 0.01, "nesterov": True}, "precision": "auto"}
    config = run_config("independent", "quicknet64", 32, 512, teachers, **settings)
    plain = run_config("independent", "quicknet64", 32, 512, teachers, optimizer={"name": "sgd", "nesterov": True})
    names = ("sgd", "muon", "muon_in_bf16", "muon_20_pixels", "muon_apart", "muon_20_pixels_apart")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    wide_enough = convolution.WIDE_ENOUGH
    for _ in range(3):  # in turn
        seconds["sgd"].append(bare_step(plain, 5))
        seconds["muon"].append(bare_step(config, 5))
        seconds["muon_in_bf16"].append(bare_step(config, 5, number_format="bf16"))
        seconds["muon_20_pixels"].append(bare_step(config, 5, side=20))
        convolution.WIDE_ENOUGH = 0  # the library's own gradients
        seconds["muon_apart"].append(bare_step(config, 5))
        seconds["muon_20_pixels_apart"].append(bare_step(config, 5, side=20))
        convolution.WIDE_ENOUGH = wide_enough
    best = {name: min(each) for name, each in seconds.items()}
    rows["quicknet64"] = {
        **{f"{name}_images_per_second": config.batch_size / each for name, each in best.items()},
        "muon_over_sgd": best["muon"] / best["sgd"],
        "share_of_matrix_product": step_flops(config) / best["muon"] / peak_flops(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=("all", "small", "large", "recipe"), default="all")
    parser.add_argument("--json", help="write the figures here as well")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "precision": choose_precision("auto", DEVICE)[0],
    }
    if DEVICE.type == "cpu":
        keep_freed_memory()  # as the engine does, so that bare steps have it too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NOBACKFILL_CACHE"] = str(folder / "cache")
        serve(random_images(256))
        for teacher in ("old", "new"):
            config = run_config("independent", "smallnet8", 32, 64, folder, epochs=1)
            train(config, folder / teacher)
        for part, measure in (("small", small), ("large", large), ("recipe", recipe)):
            if arguments.parts in ("all", part):
                measure(folder, folder, rows)
    print(json.dumps(rows, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
