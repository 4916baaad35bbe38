"""What runs inside the container: standard library only, Python 3.9 and newer, imports nothing else of the project.

The directory is mounted read-only at `/opt/container-kernels/container_kernels_guest`. Only `wire` is imported on the host.
"""
