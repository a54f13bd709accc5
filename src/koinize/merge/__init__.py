"""Merging as mathematics: align . sparsify . combine, then a change of rank.

Pure functions on tensors; they know no files and no models. This package and the recipes import
no torch, so that listing and validating recipes stays cheap; the slots themselves do.
"""
