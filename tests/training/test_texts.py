"""Text models through the same loop as everything else: labels and pairs, exact resume, micro-batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import tiny_config
from tests.models.texts import WORDS, write_sentence, write_static

import nobackfill
from nobackfill.cli.app import run as cli
from nobackfill.config import RunConfig, dump_config, parse_config
from nobackfill.errors import NobackfillError
from nobackfill.files import atomic_folder
from nobackfill.interop.import_text import import_text
from nobackfill.methods import PAIR_METHODS
from nobackfill.models import Network, runfolder
from nobackfill.models.text import TextEncoder
from nobackfill.training import loop, train
from nobackfill.training.check import check_config
from nobackfill.training.checkpointer import Checkpointer
from nobackfill.training.pair_step import pair_gradients
from nobackfill.training.plan import make_plan
from nobackfill.training.processes import start_processes
from nobackfill.training.setup import Setup, prepare
from nobackfill.training.stopping import StoppedError

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, an old run, labelled texts and pairs."""
    place = tmp_path_factory.mktemp("texts")
    write_sentence(place / "bert")
    write_static(place / "static")
    with atomic_folder(place / "old") as working:
        runfolder.save(import_text(f"static:{place / 'static'}"), working)
    random = np.random.default_rng(0)

    def sentence(topic: int) -> str:
        own = [WORDS[4 * topic + int(random.integers(4))] for _ in range(int(random.integers(1, 20)))]
        return " ".join([*own, WORDS[random.integers(len(WORDS))]])

    texts = [{"text": sentence(n % 4), "label": f"topic {n % 4}"} for n in range(160)]
    documents = [sentence(n % 4) for n in range(80)]
    pairs = [
        {"query": sentence(n % 4), "positive": documents[n % 80], "negatives": [documents[(n + 1) % 80]]}
        for n in range(160)
    ]
    for name, rows in (("texts", texts), ("pairs", pairs)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def config(root: Path, method: str, backbone: str = "sentence", **changes: Any) -> RunConfig:
    name = (
        f"{backbone}:{root / {'sentence': 'bert', 'static': 'static'}[backbone]}" if backbone != "fresh" else "static"
    )
    kind = changes.pop("kind", "texts")
    more = {"negatives": ["negatives"]} if kind == "pairs" else {}
    tree: dict[str, Any] = {
        "method": method,
        "data": {"name": kind, "train": str(root / f"{kind}.jsonl"), "test_fraction": 0.2, **more},
        "model": {"backbone": name, "embedding_dim": 10},
        "epochs": 2,
        "batch_size": 32,
        "precision": "fp32",
        "optimizer": {"lr": 0.01},
    }
    if method != "independent":
        tree["old"] = str(root / "old")
    for dotted, value in changes.items():
        section, _, key = dotted.rpartition("__")
        (tree.setdefault(section, {}) if section else tree)[key] = value
    return parse_config(tree)


def metrics(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize("backbone", ["sentence", "static", "fresh"])
def test_labels_train_every_backbone(root: Path, tmp_path: Path, backbone: str) -> None:
    run = train(config(root, "prefix", backbone, epochs=6), tmp_path / "run")
    encoder = nobackfill.load(run)
    assert isinstance(encoder, TextEncoder)
    assert encoder.spec.prefixes[0].fingerprint == runfolder.load_spec(root / "old").fingerprint
    assert encoder.encode(["the card", "money is lost"]).shape == (2, 10)
    assert str(root) not in (run / "embedding.json").read_text()
    found = metrics(run)
    assert {"self_test", "cross_test", "status_quo"} <= set(found)
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"]
    assert ("texts_cut" in found) == (backbone == "sentence")  # it reads 16 tokens


def test_a_fresh_model_knows_no_word_of_what_it_is_not_trained_on(tmp_path: Path) -> None:
    rows = [f"{word} {number},{word}" for word in ("apple", "pear", "plum") for number in range(20)]
    (tmp_path / "fruit.csv").write_text("\n".join(["text,label", *rows]))
    fruit = config(tmp_path, "independent", "fresh", data__train=str(tmp_path / "fruit.csv"), data__classes=2)
    source = make_plan(fruit).source
    assert source is not None
    words = set(json.loads(source.tokenizer)["model"]["vocab"])
    assert {"apple", "pear"} <= words
    assert "plum" not in words


@pytest.mark.parametrize("method", PAIR_METHODS)
@pytest.mark.parametrize("backbone", ["sentence", "static"])
def test_pairs_train_every_method(root: Path, tmp_path: Path, method: str, backbone: str) -> None:
    changes: dict[str, Any] = {"loss": {"independent": 0}, "model__extra_dim": 2} if method == "bt2" else {}
    run = train(config(root, method, backbone, kind="pairs", epochs=4, **changes), tmp_path / "run")
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[0]["masked"] > 0  # every document comes twice
    found = metrics(run)
    assert 0 < found["self_test"]["mrr"] <= 1
    assert ("cross_test" in found) == (method != "independent")
    assert check_config(config(root, method, backbone, kind="pairs", **changes)).dim == nobackfill.load(run).spec.dim


def test_an_independent_teacher_of_pairs(root: Path, tmp_path: Path) -> None:
    new = train(config(root, "independent", kind="pairs"), tmp_path / "new")
    settings = config(root, "bt2", kind="pairs", independent=str(new), model__extra_dim=2)
    history = (train(settings, tmp_path / "run") / "history.jsonl").read_text()
    assert {"pairs", "independent", "cross", "old", "loss", "masked"} <= set(json.loads(history.splitlines()[0]))


def ready(config: RunConfig) -> tuple[Setup, Network]:
    plan = make_plan(config)
    torch.manual_seed(0)
    setup = prepare(plan, start_processes(plan.config))
    return setup, setup.network


def gradients(setup: Setup, network: Network, sizes: list[int]) -> tuple[dict[str, torch.Tensor], float, int]:
    network.zero_grad()
    assert setup.pairs is not None
    positions = [part.contiguous() for part in torch.split(torch.arange(sum(sizes)), sizes)]
    parts, masked = pair_gradients(
        network,
        setup.plan.method,
        setup.pairs,
        positions,
        accelerator=start_processes(setup.plan.config),
        precision="fp32",
    )
    found = {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
    return found, float(sum(part.detach() for part in parts.values())), masked


@pytest.mark.parametrize("method", ["prefix", "bt2"])
def test_micro_batches_give_the_gradient_of_one_large_batch(root: Path, method: str) -> None:
    changes: dict[str, Any] = {"loss": {"independent": 0}, "model__extra_dim": 2} if method == "bt2" else {}
    setup, network = ready(config(root, method, kind="pairs", **changes))
    network.eval()  # dropout draws anew for each shape
    whole, loss, masked = gradients(setup, network, [24])
    cut, loss_of_cut, masked_of_cut = gradients(setup, network, [8, 8, 8])
    assert loss_of_cut == pytest.approx(loss, rel=1e-5)
    assert masked_of_cut == masked
    assert set(cut) == set(whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=2e-5, rtol=1e-3)


def test_both_passes_of_a_micro_batch_see_the_same_dropout(root: Path) -> None:
    setup, network = ready(config(root, "prefix", kind="pairs"))
    network.train()
    torch.manual_seed(3)
    found, _, _ = gradients(setup, network, [16, 16])
    after = torch.rand(3)
    torch.manual_seed(3)
    again, _, _ = gradients(setup, network, [16, 16])
    assert torch.equal(after, torch.rand(3))
    assert all(torch.equal(found[name], again[name]) for name in found)
    # The gradient along itself is that of the loss with the very same draws.
    step = 1e-3 / sum(float((each**2).sum()) for each in found.values()) ** 0.5
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, each in network.named_parameters():
                if name in found:
                    each.add_(found[name], alpha=step if sign == 1 else -2 * step)
        torch.manual_seed(3)
        losses.append(gradients(setup, network, [16, 16])[1])
    expected = 2 * step * sum(float((each**2).sum()) for each in found.values())
    assert losses[0] - losses[1] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_a_stopped_run_resumes_to_the_same_weights(
    root: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(root, "prefix", kind=kind, accumulate=2)
    whole = train(settings, tmp_path / "whole")

    class Stopping(Checkpointer):
        def after_step(self, record: Any) -> None:
            if (record.epoch, record.steps) == (1, 2):
                self.stop.number = 15
            super().after_step(record)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Checkpointer", Stopping)
        with pytest.raises(StoppedError):
            train(settings, tmp_path / "run")
    run = train(settings, tmp_path / "run", resume=True)
    first, second = (load_file(each / "model.safetensors") for each in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frozen_stages_and_rates_by_depth(root: Path, tmp_path: Path) -> None:
    base = import_text(f"sentence:{root / 'bert'}").network.state_dict()
    run = train(config(root, "prefix", freeze="stages<2", optimizer={"lr": 0.01, "layer_decay": 0.5}), tmp_path / "run")
    trained = nobackfill.load(run).network.state_dict()
    moved = {name for name, value in base.items() if not torch.equal(value, trained[name])}
    assert moved
    assert all("layer.1." in name for name in moved)  # neither the embeddings nor the first layer


def test_texts_without_labels_are_distilled(root: Path, tmp_path: Path) -> None:
    settings = config(root, "prefix", data__label=None, loss={"prototypes": 0})
    history = (train(settings, tmp_path / "run") / "history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["old"] < json.loads(history[0])["old"]


@pytest.mark.parametrize("kind", ["texts", "pairs"])
def test_the_command_line_trains_and_evaluates(
    root: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["import-text", f"sentence:{root / 'bert'}", "--out", "bert"]) == 0
    settings = config(root, "prefix", kind=kind)
    Path("run.yaml").write_text(dump_config(settings))
    assert cli(["train", "run.yaml", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert ("recall@10" in printed) == (kind == "pairs")
    found = cli(["evaluate", "--query", "run", "--gallery", str(root / "old"), "--data", "run.yaml", "--out", "r.json"])
    printed = capsys.readouterr().out
    assert found == 0
    assert ("MRR" in printed) == (kind == "pairs")
    cross = json.loads(Path("r.json").read_text())["searches"][1]["scores"]["top1"]
    assert cross == pytest.approx(metrics(Path("run"))["cross_test"]["top1"])
    assert cli(["report", "r.json", "--out", "page.html"]) == 0
    assert cli(["import-text", "sentence:nowhere", "--out", "x"]) == 2


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a method of images alone": (
        {"method": "concat", "kind": "pairs", "model__extra_dim": None},
        "'concat' does not train on pairs; expected bct, bt2, independent or prefix",
    ),
    "a backbone of images": ({"model__backbone": "smallnet8"}, "'smallnet8' does not work with data 'texts'"),
    "a tower": ({"model__backbone": "clip/text"}, "'clip/text' does not train on texts; expected sentence:FOLDER"),
    "a folder that is none": ({"model__backbone": "sentence:none"}, "expected sentence:FOLDER, a folder on this mach"),
    "no labels": ({"method": "independent", "old": None, "data__label": None}, "has nothing to learn from texts"),
    "prototypes of no labels": ({"data__label": None}, "prototypes need data.label; set data.label"),
    "views": ({"teacher_view": "same"}, "texts have only one view"),
    "a smaller embedding": ({"model__embedding_dim": 3}, "3 is smaller than the old embedding of 6"),
    "a column that is missing": ({"data__text": "txt"}, "no column 'txt'; did you mean 'text'"),
    "no temperature": ({"kind": "pairs", "loss": {"temperature": 0}}, "loss.temperature': expected a value above 0"),
    "keys of labels": ({"kind": "pairs", "loss": {"prototypes": 1}}, "unknown key 'loss.prototypes'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_go_together_is_named(root: Path, tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(NobackfillError, match=message) as caught:
        train(config(root, **{"method": "prefix", **changes}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_old_model_of_another_modality_is_refused(root: Path, tmp_path: Path, runs: dict[str, Path]) -> None:
    for kind in ("texts", "pairs"):
        with pytest.raises(NobackfillError, match=f"embeds images, but data '{kind}' are texts"):
            train(config(root, "prefix", kind=kind, old=str(runs["old"])), tmp_path / "run")
    with pytest.raises(NobackfillError, match="a text model needs a caption for each image"):
        train(tiny_config("bct", old=str(root / "old"), model__embedding_dim=6), tmp_path / "run")
