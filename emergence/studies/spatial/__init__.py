"""Neurons placed in space on the tasks of the method's papers, and what learning more tasks costs them."""
