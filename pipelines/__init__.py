"""The two stages as flat functions, and what is composed of them."""
