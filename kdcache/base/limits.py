"""Limits of a store's records and files, so that a stranger's few bytes take neither much time nor much memory.

They are far above what kdcache writes. A writer refuses to exceed them, so that every store that is made can be opened
again.
"""

KIB, MIB = 2**10, 2**20

# Bytes of each kind of file, looked at before it is read.
METADATA_LIMIT = 64 * MIB  # any record
COMMITS_LIMIT = 256 * MIB  # all commits of a segment in one file: some 300,000 blocks, 2.5 billion samples
MANIFEST_LIMIT = 16 * MIB
SEAL_LIMIT = 256 * KIB  # some 1,300 segments, each of which takes 0.2 ms to check
PARTIAL_LIMIT = MIB  # a seal's segments, each with the names of 64 arrays
COMMIT_LIMIT = 64 * KIB
ZARR_LIMIT = 64 * KIB
CARD_LIMIT = MIB
LATEST_LIMIT = KIB

# Limits within a record: an empty list in a list costs 2 bytes in a file and 64 in memory.
NESTING_LIMIT = 64
COMMIT_LEAST = 64  # bytes of the shortest line that could be a commit
VALUES_LIMIT = 2**20  # commas and opening brackets

# Numbers of the manifest.
ROWS_MAX = 2**40
CLASSES_MAX = 2**24
SUBCLASSES_MAX = 1000  # of a class
ROW_BYTES_MAX = MIB  # one position of one array: a chunk has 64 rows or more, so 64 MiB are decoded at once
HEAD_BYTES_MAX = 256 * MIB
VIEWS_MAX = 100_000  # a segment's name has five digits for a view
SEQUENCE_MAX = 8192  # tokens of a sequence: the rows of the largest block
STRUCK_MAX = 1000  # positions without an answer that a commit lists
DEPTH_MAX = 8  # folders within folders that are listed

# A store in one file: looked at before the central directory is read, and before an entry of it is.
ZIP_DIRECTORY_LIMIT = 64 * MIB
ZIP_ENTRIES_MAX = 2**19  # a store of 50,000 blocks has some 350,000 files
