"""An adopted collection of Qdrant: its named vectors come and go one request a time; killed between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gallery.galleries import COUNT
from tests.gallery.test_adopt_qdrant import NAME, NEWER, Application, backfilled, check

from nobackfill.gallery.adopting import abandon


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path)
    yield made
    made.client.close()


def test_a_rollback_killed_between_taking_away_and_making_anew_is_repaired_by_the_same_command(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerError(Exception): ...

    def fail(*_: Any) -> None:
        raise PowerError

    gallery = application.adopt()
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    backfilled(gallery, application, 20)
    with monkeypatch.context() as patch, pytest.raises(PowerError):
        patch.setattr(gallery.store, "add_generation", fail)
        gallery.rollback(NAME)
    gallery.rollback(NAME)
    check(gallery, application, set())
    backfilled(gallery, application)
    check(gallery, application, set(range(COUNT)))


@pytest.mark.parametrize("verb", ["rollback", "forget", "abandon", "leave_new"])
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_what_is_killed_between_two_requests_is_finished_by_the_same_command(
    application: Application, monkeypatch: pytest.MonkeyPatch, verb: str, step: int
) -> None:
    gallery = application.adopt()
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    backfilled(gallery, application, 20)
    client, left = application.client, [step]

    def once() -> None:
        if verb in ("rollback", "forget"):
            gallery.rollback(NAME, forget=verb == "forget")
        else:
            abandon(gallery.store, leave_new=verb == "leave_new")

    def limited(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("delete_vector_name", "create_vector_name", "delete_collection"):
            patch.setattr(client, name, limited(getattr(client, name)))
        try:
            once()
        except KeyboardInterrupt:
            if step and verb in ("rollback", "forget"):
                check(gallery, application, set())  # and meanwhile it answers
        else:
            return  # there are no more requests than that
    once()
    if verb in ("rollback", "forget"):
        if verb == "forget":
            gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
        check(gallery, application, set())
        backfilled(gallery, application)
        check(gallery, application, set(range(COUNT)))
    else:
        vectors = set(client.get_collection("items").config.params.vectors)
        assert vectors == ({"text", "nobackfill_2"} if verb == "leave_new" else {"text"})


@pytest.mark.parametrize("half", ["nobackfill_3", "nobackfill_2_of"])
def test_abandon_leaves_the_newest_whole_generation(application: Application, half: str) -> None:
    """An upgrade that was killed between its two requests has a vector and no sketch; a rollback, a sketch alone."""
    from qdrant_client import models

    gallery, client = application.adopt(), application.client
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    backfilled(gallery, application, 20)
    if half == "nobackfill_3":
        dense = models.DenseVectorConfig(size=9, distance=models.Distance.DOT)
        client.create_vector_name("items", half, models.DenseVectorNameConfig(dense=dense))
    else:
        client.delete_vector_name("items", "nobackfill_2")
    abandon(gallery.store, leave_new=True)
    assert set(client.get_collection("items").config.params.vectors) == {"text", "nobackfill_2"} - (
        set() if half == "nobackfill_3" else {"nobackfill_2"}
    )
