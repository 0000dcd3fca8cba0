"""The stages as flat functions, and pipelines that are composed of them."""
