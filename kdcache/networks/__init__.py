"""Building networks, weights, taps, the teacher, its pre-flight checks, extracting a block.

`--teacher` and `--student` take networks of this room by name: `kdcache.networks:convnet`, `kdcache.networks:simkd`.
"""

from kdcache.networks.simkd import simkd
from kdcache.networks.small import convnet

__all__ = ["convnet", "simkd"]
