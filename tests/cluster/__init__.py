"""PostgreSQL as people run it who may lose no node: three, under Patroni, with etcd."""

from .cluster import LOOP_WAIT_S, TTL_S, Cluster, missing

__all__ = ["LOOP_WAIT_S", "TTL_S", "Cluster", "missing"]
