"""The command line: one short file a command. It parses, calls one function, and prints."""
