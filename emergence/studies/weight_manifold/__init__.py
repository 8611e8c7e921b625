"""Weights that follow a context, on digits that are turned or drowned in noise, against other ways to tell it."""
