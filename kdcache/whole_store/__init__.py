"""What is computed over all blocks of a store, on an engine: checks, comparison, statistics, another encoding."""
