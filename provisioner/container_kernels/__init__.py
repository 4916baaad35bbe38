"""Jupyter kernels, each inside a container of its own."""

__version__ = "0.1.0"
