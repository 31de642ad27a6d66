"""Finds loss and sampling code that gives wrong numbers, and rewrites it where that is certain.

The parts, lowest first: ``errors``, ``finding`` (what a check yields), ``glance`` (which files need no analysis),
``source``, ``classes``, ``values`` and
``operations`` (a parsed file whose torch calls are known), ``rewrite`` and ``imports`` (edits),
``checks`` (one per file), ``engine`` (one text), ``notebook``, ``files``, ``cache``, ``runner`` (many files),
``report``, ``explain``, ``command``. It reads code with LibCST and never loads torch.
"""

__version__ = "0.1.0"
