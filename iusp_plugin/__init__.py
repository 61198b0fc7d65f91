"""Similarity-preserving knowledge distillation for SpeechBrain taggers.

Importing the package imports nothing heavy; import the part you need, e.g.
``from iusp_plugin.losses import IUSPLoss``.

Authors
 * The iusp_plugin authors 2026
"""

__version__ = "0.1.0"
