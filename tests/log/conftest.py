"""One cluster a module of tests, and clients that are closed after each test."""

from collections.abc import Iterator

import pytest

from tests.log.servers import Cluster


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("nats"))
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(module_cluster: Cluster) -> Iterator[Cluster]:
    module_cluster.heal()
    try:
        yield module_cluster
    finally:
        module_cluster.close_streams()
