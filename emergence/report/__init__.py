"""Pictures and the page a study ends in."""

from .page import write_report

__all__ = ["write_report"]
