"""What the doctor must find and what it must leave alone: data for test_doctor*.py."""

from __future__ import annotations

from doctor_case import IMPORTS, Case, function
from doctor_draws import DRAWS
from doctor_good import GOOD
from doctor_losses import LOSSES

__all__ = ["BAD", "GOOD", "IMPORTS", "Case", "function"]

BAD = [*LOSSES, *DRAWS]
