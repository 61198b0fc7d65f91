"""CKA, RKD and DIST in plain float64 loops, from the papers' formulas.

Slow, one element at a time: oracles for the vectorised implementations, and
by other ways where there are any (CKA by HSIC, RKD by ``math.dist``).

Authors
 * The iusp_plugin authors 2026
"""

import math

from tests.reference.loss_loops import (
    EPS,
    count_frames,
    dot,
    pool_loop,
    sigmoid,
)


def valid_rows(student, teacher, lengths):
    """Valid rows of both sides, clip by clip; the longer side is pooled."""
    common = min(len(student[0]), len(teacher[0]))
    for clip in range(len(student)):
        length = 1.0 if lengths is None else lengths[clip]
        sides = []
        for feats in (student, teacher):
            total = len(feats[clip])
            rows = feats[clip][: count_frames(length, total)]
            if total != common:
                rows = pool_loop(rows, count_frames(length, common))
            sides.append(rows)
        yield sides


def mean_of(values):
    """Arithmetic mean."""
    values = list(values)
    return math.fsum(values) / len(values)


def columns(rows):
    """The columns of nested rows."""
    return list(zip(*rows, strict=True))


def norm_of(values):
    """Euclidean norm."""
    return math.sqrt(math.fsum(v * v for v in values))


def varies(rows, eps):
    """Whether centring leaves more than ``eps`` of the rows' norm."""
    means = [mean_of(column) for column in columns(rows)]
    rest = [x - m for row in rows for x, m in zip(row, means, strict=True)]
    return norm_of(rest) > eps * norm_of(x for row in rows for x in row)


def centred_kernel(rows):
    """H K H of the linear kernel K, with H = I - 1/t."""
    kernel = [[dot(a, b) for b in rows] for a in rows]
    across = [mean_of(row) for row in kernel]
    total = mean_of(across)
    n = range(len(rows))
    return [
        [kernel[i][j] - across[i] - across[j] + total for j in n] for i in n
    ]


def hsic(a, b):
    """tr(A B) of two symmetric matrices."""
    return math.fsum(dot(x, y) for x, y in zip(a, b, strict=True))


def cka_loops(student, teacher, lengths=None, eps=EPS):
    """One loss a clip: 1 - HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))."""
    losses = []
    for rows_s, rows_t in valid_rows(student, teacher, lengths):
        if not varies(rows_t, eps):
            losses.append(0.0)
        elif not varies(rows_s, eps):
            losses.append(1.0)
        else:
            k, m = centred_kernel(rows_s), centred_kernel(rows_t)
            losses.append(1 - hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)))
    return losses


def relative_distances(rows, eps):
    """Distances of ordered pairs i != j over their mean, or all zero."""
    floor = eps * max(norm_of(row) for row in rows)
    n = range(len(rows))
    found = [math.dist(rows[i], rows[j]) for i in n for j in n if i != j]
    found = [d if d > floor else 0.0 for d in found]
    mu = mean_of(found) if found else 0.0
    return [d / mu for d in found] if mu > 0 else [0.0] * len(found)


def huber(x):
    """Quadratic up to 1, linear beyond."""
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def rkd_distance_loops(student, teacher, lengths=None, eps=EPS):
    """One loss a clip: mean over ordered pairs of different frames."""
    losses = []
    for rows_s, rows_t in valid_rows(student, teacher, lengths):
        psi_s = relative_distances(rows_s, eps)
        psi_t = relative_distances(rows_t, eps)
        pairs = list(zip(psi_s, psi_t, strict=True))
        any_ = sum(psi_t) > 0
        losses.append(mean_of(huber(a - b) for a, b in pairs) if any_ else 0.0)
    return losses


def unit_outputs(logits, temperature, eps):
    """One tag's centred probabilities of unit norm; None if it is constant."""
    p = [sigmoid(x / temperature) for x in logits]
    mean = mean_of(p)
    size = norm_of(x - mean for x in p)
    return [(x - mean) / size for x in p] if size > eps * norm_of(p) else None


def tag_shares(student, teacher, temperature, eps):
    """What each of n outputs of one tag adds to n (1 - rho)."""
    n = len(student)
    z_s = unit_outputs(student, temperature, eps)
    z_t = unit_outputs(teacher, temperature, eps)
    if z_t is None:
        return [0.0] * n
    if z_s is None:
        return [1.0] * n
    return [n * (a - b) ** 2 / 2 for a, b in zip(z_s, z_t, strict=True)]


def dist_intra_loops(student, teacher, temperature, lengths=None, eps=EPS):
    """One share a clip; frame-wise outputs are nested one deeper."""
    if not hasattr(student[0][0], "__len__"):
        tags = [
            tag_shares(s, t, temperature, eps)
            for s, t in zip(columns(student), columns(teacher), strict=True)
        ]
        shares = [mean_of(each) for each in columns(tags)]
        return [temperature**2 * share for share in shares]
    losses = []
    for rows_s, rows_t in valid_rows(student, teacher, lengths):
        tags = [
            mean_of(tag_shares(s, t, temperature, eps))
            for s, t in zip(columns(rows_s), columns(rows_t), strict=True)
        ]
        losses.append(temperature**2 * mean_of(tags))
    return losses
