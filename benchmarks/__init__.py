"""Benchmarks: ratios to a named baseline within one run, accuracy checked in the same run.

python -m benchmarks run [--only NAME] [--size small|normal] [-o results.json]
"""
