"""What real NVML clients see of a pretended machine, and whether it is so; one file per client.

Each file has `cases(fake, scenes)`: pairs of a name and a function of a `Machine` that raises AssertionError, or Skipped.
"""
