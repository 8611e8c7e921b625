"""Studies of the methods on the tasks of their own papers: arms and seeds, measured alike, on one page."""
