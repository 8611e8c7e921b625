"""Continual learning: arms learn old tasks, then new ones alone, and lose some of the old."""
