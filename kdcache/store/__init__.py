"""Store format 1: plan, manifest, layout, shards, commits, segments, seals, reading and read-ahead, the Store."""
