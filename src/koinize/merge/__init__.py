"""Merging as mathematics: align . sparsify . combine, then a change of rank.

Pure functions on tensors; they know no files and no models. This package and the recipes import
no torch, so that listing and validating recipes stays cheap; the slots themselves do.

What is in here: `recipe`, the named compositions (one file each in `recipes/`) and the settings
that a user may give them, with `option`, how one is declared, and `dialect`, how other tools read
what the papers leave open. `trunk` says what a merge relative to one is of. The slots, with an
entry each in `slots`, one file each: `spaces/` gives the coordinates in which a merge happens,
`sparsify/` says which entries take part, `combine/` makes one of many. `compose` puts them together
for one module, and `groups` does so twice, as `division` has it; `stack` holds the updates of all
languages as row tiles that are computed when asked for. Below these the numerics: `approximation`
(low rank), `linalg` (bases and Gram matrices), `decompose` (libraries' decompositions, each result
checked), `select` and `scope` (exact thresholds, of a module and of a whole adapter), `masks`
(random numbers by key), `place` (core or GPU).

Two worked paths.

One module under `ties`: `merge_settings(recipe="ties", density=0.5)` checks names and ranges and
knows the composition (dense, trim, elect). `compose.merge_module(name, updates, settings)` takes
the factors of all languages, asks `spaces.dense` for a `Stack`, lets `sparsify.trim` find each
language's threshold and `combine.elect` go through the tiles, and returns an `Approximation`: the
factors of the rank that was asked for, and what that lost.

A recipe of your own: a file in `recipes/` with one `Recipe(title, paper, space, combine, sparsify,
options)`. The catalogue finds it by its name, the command line, koinize.yaml and its JSON Schema
offer it, and `tests/contract/test_merge.py` tests it. So is a new slot in its own folder, with its
entry in `slots`.
"""
