"""Sweeps: many configurations trained and evaluated, here, in parallel or by Slurm."""
