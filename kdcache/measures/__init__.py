"""Measures of a student: against hard labels, its teacher's soft labels, its teacher's taps, and by itself."""
