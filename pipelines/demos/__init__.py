"""The demos: the main job on real data in half a minute, and on a text."""
