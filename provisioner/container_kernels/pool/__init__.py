"""Warm containers: made before a kernel asks for one, shared by all processes of one person."""
