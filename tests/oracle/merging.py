"""Merging, slow and obvious: plain numpy in float64 on dense matrices, one line per definition.

Nothing here imports koinize. Every function takes lists of matrices, in the order of the languages.
"""

import numpy as np


def trim(matrix, density):
    """The int(density n) entries of largest magnitude, the rest 0 (TIES, arXiv 2306.01708)."""
    count = int(density * matrix.size)
    kept = np.zeros(matrix.size)
    largest = np.argsort(-np.abs(matrix).ravel(), kind="stable")[:count]
    kept[largest] = matrix.ravel()[largest]
    return kept.reshape(matrix.shape)


def drop(matrix, mask, density):
    """The entries of a given mask, divided by the density (DARE, arXiv 2311.03099)."""
    return np.where(mask, matrix / density, 0.0)


def elect(matrices, weights):
    """Entry by entry: the weighted mean of those whose weighted value has the sign of the sum."""
    result = np.zeros(matrices[0].shape)
    for place in np.ndindex(result.shape):
        values = [w * m[place] for w, m in zip(weights, matrices, strict=True)]
        sign = 1.0 if sum(values) >= 0.0 else -1.0
        agree = [(v, abs(w)) for v, w in zip(values, weights, strict=True) if v * sign > 0.0]
        if agree:
            result[place] = sum(v for v, _ in agree) / sum(w for _, w in agree)
    return result


def weighted_sum(matrices, weights):
    return sum(w * m for w, m in zip(weights, matrices, strict=True))


def mean(matrices, weights):
    return weighted_sum(matrices, weights) / sum(weights)


def knots(deltas):
    """U and the S V_i' of the SVD of all deltas side by side (KnOTS, arXiv 2410.19735)."""
    U, S, Vt = np.linalg.svd(np.concatenate(deltas, axis=1), full_matrices=False)
    strong = S / S[0] > 1e-6
    return U[:, strong], np.split(S[strong, None] * Vt[strong], len(deltas), axis=1)


def core(deltas, ranks):
    """U_B, V_A and the U_B' D_i V_A, of each delta's balanced factors (arXiv 2509.17786)."""
    left, right = [], []
    for delta, rank in zip(deltas, ranks, strict=True):
        U, S, Vt = np.linalg.svd(delta, full_matrices=False)
        left.append(U[:, :rank] * np.sqrt(S[:rank]))
        right.append(Vt[:rank].T * np.sqrt(S[:rank]))
    U, S, _ = np.linalg.svd(np.concatenate(left, axis=1), full_matrices=False)
    V, T, _ = np.linalg.svd(np.concatenate(right, axis=1), full_matrices=False)
    U, V = U[:, S / S[0] > 1e-6], V[:, T / T[0] > 1e-6]
    return U, V, [U.T @ delta @ V for delta in deltas]


def truncate(matrix, rank):
    """The best approximation of that rank, and its relative Frobenius error."""
    U, S, Vt = np.linalg.svd(matrix, full_matrices=False)
    error = np.sqrt((S[rank:] ** 2).sum() / (S**2).sum())
    return (U[:, :rank] * S[:rank]) @ Vt[:rank], error


def della_probability(matrix, density, epsilon):
    """density - epsilon for the smallest of a row, + epsilon for the largest (arXiv 2406.11617)."""
    ranks = np.argsort(np.argsort(np.abs(matrix), axis=1, kind="stable"), axis=1)
    return density - epsilon + 2 * epsilon * ranks / (matrix.shape[1] - 1)


def breadcrumbs(matrix, density, outliers):
    """Without the int(outliers n) largest, the int(density n) next (arXiv 2312.06795)."""
    if density >= 1.0:
        return matrix
    order = np.argsort(-np.abs(matrix).ravel(), kind="stable")
    kept, removed = int(density * matrix.size), int(outliers * matrix.size)
    result = np.zeros(matrix.size)
    chosen = order[removed : removed + kept]
    result[chosen] = matrix.ravel()[chosen]
    return result.reshape(matrix.shape)


def sce(matrices, weights, density):
    """Most varying entries, energy weights, minority signs erased (arXiv 2408.07990)."""
    stack = np.stack(matrices)
    variance = stack.var(axis=0)
    selected = trim(variance, density * np.count_nonzero(variance) / variance.size) != 0
    stack = stack * (selected if density < 1.0 else 1.0)
    shares = np.array(weights) * (stack**2).sum(axis=(1, 2)) / (stack**2).sum()
    agree = np.sign(stack) == np.where(stack.sum(axis=0) >= 0, 1.0, -1.0)
    shares = shares[:, None, None] * agree
    return (stack * shares).sum(axis=0) / np.maximum(shares.sum(axis=0), 1e-6)


def tsv(matrices, weights, density, ranks):
    """Strongest singular directions of each, decorrelated by Procrustes (arXiv 2412.00081)."""
    left, values, right = [], [], []
    for matrix, weight, rank in zip(matrices, weights, ranks, strict=True):
        U, S, Vt = np.linalg.svd(matrix, full_matrices=False)
        kept = max(1, int(density * rank))
        left.append(U[:, :kept])
        values.append(weight * S[:kept])
        right.append(Vt[:kept].T)
    nearest = []
    for stacked in (np.concatenate(left, axis=1), np.concatenate(right, axis=1)):
        P, s, Qt = np.linalg.svd(stacked, full_matrices=False)
        there = s / s[0] > 1e-6  # what cancels has no nearest direction
        nearest.append(P[:, there] @ Qt[there])
    return (nearest[0] * np.concatenate(values)) @ nearest[1].T


def isotropic(matrices, weights, rank):
    """The sum with its `rank` singular values all set to their mean (arXiv 2502.04959)."""
    U, S, Vt = np.linalg.svd(weighted_sum(matrices, weights), full_matrices=False)
    return (U[:, :rank] * S[:rank].mean()) @ Vt[:rank]
