"""Data sets, ground truth readers and the input pipeline."""
