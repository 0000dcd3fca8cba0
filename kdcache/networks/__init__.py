"""Building networks, weights, the teacher, its pre-flight checks, extracting a block.

`--teacher` and `--student` take networks of this room by name: `kdcache.networks:convnet`.
"""

from kdcache.networks.small import convnet

__all__ = ["convnet"]
