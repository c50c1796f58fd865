"""Fitting and applying closed-form maps, compared with the bare matrix products they need, in one run.

    python benchmarks/arrays.py                  # 200,000 pairs of 768 values
    python benchmarks/arrays.py --rows 1000000   # 6 GB of files

The floor of a fit is the Gram products xᵀx and yᵀx of the same number of rows, from memory; that of applying a map is
the product x·Wᵀ in blocks of the same size. Memory is the peak of the process's own memory, without and with the
pages of the mapped files.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from nobackfill.maps.folders import map_encoder
from nobackfill.maps.linear import procrustes, ridge
from nobackfill.maps.moments import ROWS, moments
from nobackfill.models.spec import named_prefix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, dim = arguments.rows, arguments.dim
    with tempfile.TemporaryDirectory() as folder:
        x, y = (written(Path(folder, f"{name}.npy"), rows, dim, seed) for seed, name in enumerate("xy"))
        block_x, block_y = np.array(x[:ROWS]), np.array(y[:ROWS])
        figures = {"rows": rows, "dim": dim}
        floor, fit = [], []
        for _ in range(arguments.repeats):
            floor.append(timed(lambda: gram(block_x, block_y, rows)))
            fit.append(timed(lambda: moments(x, y)))
        found = moments(x, y)
        figures |= {"gram_s": min(floor), "moments_s": min(fit)}
        figures["ridge_13_penalties_s"] = timed(lambda: ridge(found, np.logspace(-4, 2, 13)))
        figures["procrustes_s"] = timed(lambda: procrustes(found, centred=True))
        figures["fit_to_floor"] = min(floor) / (min(fit) + figures["ridge_13_penalties_s"])
        figures |= memory("fit")
        one = ridge(found, [0.1])[0]
        encoder, weight = map_encoder("ridge", one, named_prefix("y", dim)), one.weight.astype(np.float32)
        some = np.array(x[: min(rows, 100_000)])
        # Not in turns: the threads of numpy's and of torch's products wait actively for a while, in each other's way.
        repeats = range(3 * arguments.repeats)
        products = [timed(lambda: [some[s : s + 4096] @ weight.T for s in range(0, len(some), 4096)]) for _ in repeats]
        applied = [timed(lambda: encoder.encode(some)) for _ in repeats]
        figures |= {"product_s": min(products), "applied_s": min(applied), "applied_rows": len(some)}
        figures["apply_to_floor"] = min(products) / min(applied)
    for name, value in figures.items():
        print(f"{name:24} {value:,.3f}" if isinstance(value, float) else f"{name:24} {value:,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def written(path: Path, rows: int, dim: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    with path.open("wb") as file:  # not mapped: its pages would count as this process's
        shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, shape)
        for start in range(0, rows, ROWS):
            file.write(random.standard_normal((min(ROWS, rows - start), dim), np.float32).tobytes())
    return np.load(path, mmap_mode="c")


def gram(x: np.ndarray, y: np.ndarray, rows: int) -> None:
    for _ in range(0, rows, ROWS):
        x.T @ x
        y.T @ x


def timed(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def memory(name: str) -> dict[str, int]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        f"{name}_own_mib": int(lines["RssAnon"].split()[0]) // 1024,
        f"{name}_peak_with_file_pages_mib": int(lines["VmHWM"].split()[0]) // 1024,
    }


if __name__ == "__main__":
    main()
