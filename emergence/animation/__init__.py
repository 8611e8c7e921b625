"""A trajectory to look at, its collisions marked: a GIF, an MP4, or a page to play with."""

from .film import Film, make_film
from .write import animate, check_path

__all__ = ["Film", "animate", "check_path", "make_film"]
