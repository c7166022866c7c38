"""A cluster that a test starts with flags of its own."""
import pytest
from cluster import Cluster


@pytest.fixture
def started(tmp_path):
    made = []

    def start(*flags):
        made.append(Cluster(tmp_path, flags))
        made[0].start()
        return made[0]

    yield start
    for cluster in made:
        cluster.end()
