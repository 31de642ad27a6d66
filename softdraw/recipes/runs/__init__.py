"""Runs of any recipe: their folder, their ranks, how they resume, and how several are compared.

``recipe`` is the contract: what a recipe gives, and all that is known of it here. An error names an argument or a
setting in backticks, as in "`epochs` must be at least 1"; a command line shows its own word for it instead.
"""
