"""Bias, variance and cost of gradient rules, measured on the user's own objective."""

from softdraw.diagnosis.candidates import RULES
from softdraw.diagnosis.measure import diagnose
from softdraw.diagnosis.report import Interval, Measured, Report

__all__ = ["RULES", "Interval", "Measured", "Report", "diagnose"]
