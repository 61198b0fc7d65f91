"""Data: taxonomy, annotations, manifests, embedded soundscapes.

Authors
 * The iusp_plugin authors 2026
"""
