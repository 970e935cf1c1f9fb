"""Workflows: one verb, one file; settings in, record out."""
