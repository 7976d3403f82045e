"""Browser: the examples of one run or of two in, a folder out that a web browser opens from the disk."""

from unbraid.browser.folder import write_browser

__all__ = ["write_browser"]
