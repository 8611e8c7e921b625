"""Structured layers against three controls, over depth and width, on regression and on real data."""
