"""Finds loss and sampling code that gives wrong numbers, and rewrites it where that is certain.

The parts, lowest first: ``finding`` (what a check yields), ``glance`` (which files need no analysis), ``source`` and
``operations`` (a parsed file whose torch calls are known), ``rewrite`` and ``imports`` (edits), ``checks`` (one per
file), ``engine`` (one text), ``files``, ``runner`` (many files), ``report``, ``explain``. Needs
``pip install 'softdraw[doctor]'``.
"""

try:
    import libcst as _  # noqa: F401
except ImportError as error:
    raise ImportError("softdraw.doctor reads code with LibCST: pip install 'softdraw[doctor]'") from error
