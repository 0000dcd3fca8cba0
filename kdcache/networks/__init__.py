"""Building networks, weights, taps, the teacher, its pre-flight checks, extracting a block.

`--teacher` and `--student` take networks of this room by name: `kdcache.networks:convnet`,
`kdcache.networks:mlp`, `kdcache.networks:simkd`, and for texts `kdcache.networks:gpt`, `kdcache.networks:gru`.
"""

from kdcache.networks.language import gpt, gru
from kdcache.networks.simkd import simkd
from kdcache.networks.small import convnet, mlp

__all__ = ["convnet", "gpt", "gru", "mlp", "simkd"]
