"""Metrics for multi-label audio tagging (numpy only, but for ``stats``).

Authors
 * The iusp_plugin authors 2026
"""
