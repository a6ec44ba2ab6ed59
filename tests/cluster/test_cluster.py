"""A short one of ``failovers.py``, for every day."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cluster import Cluster, missing
from .load import Load


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_what_was_acknowledged_survives_the_postgresql_of_the_primary(tmp_path: Path) -> None:
    """And nothing of the cluster is left."""
    with Cluster() as cluster, Load(cluster.url, tmp_path, size=2) as load:
        cluster.kill_postgres(cluster.primary())
        load.wait_until_all_commit()
        cluster.wait_healthy()
        assert [] == load.finish()
    assert not cluster.folder.exists()
