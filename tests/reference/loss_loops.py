"""The distillation losses in plain float64 loops, from the formulas.

Slow, one element at a time: an oracle for the vectorised implementation.
Features are nested sequences or arrays; lengths are float32 as a batch's are.

Authors
 * The iusp_plugin authors 2026
"""

import math

import numpy as np

EPS = 1e-4


def count_frames(length, total):
    """round(length * T), at least 1, at most T."""
    product = float(np.float32(length) * np.float32(total))
    return min(max(round(product), 1), total)


def dot(a, b):
    """Inner product of two rows."""
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def unit_rows(matrix, eps):
    """Each row over its L2 norm; a row not above the floor becomes zero."""
    norms = [math.sqrt(dot(row, row)) for row in matrix]
    floor = eps * max(norms)
    return [
        [float(x) / n for x in row] if n > floor else [0.0] * len(row)
        for row, n in zip(matrix, norms, strict=True)
    ]


def similarity_loop(rows, similarity="row_l2", eps=EPS):
    """The similarity matrix of one set of rows, as nested lists."""
    if similarity == "cosine":
        rows = unit_rows(rows, eps)
        return [[dot(a, b) for b in rows] for a in rows]
    return unit_rows([[dot(a, b) for b in rows] for a in rows], eps)


def squared_distance(a, b):
    """Squared Frobenius norm of the difference of two matrices."""
    return sum(
        (x - y) ** 2
        for row_a, row_b in zip(a, b, strict=True)
        for x, y in zip(row_a, row_b, strict=True)
    )


def pool_loop(frames, n_out):
    """Average all frames given into ``n_out`` windows."""
    n_in, width = len(frames), len(frames[0])
    pooled = []
    for k in range(n_out):
        first = math.floor(k * n_in / n_out)
        last = math.ceil((k + 1) * n_in / n_out)
        pooled.append(
            [
                sum(float(frames[i][d]) for i in range(first, last))
                / (last - first)
                for d in range(width)
            ]
        )
    return pooled


def iusp_loops(
    student,
    teacher,
    lengths=None,
    similarity="row_l2",
    scaled=False,
    eps=EPS,
    frame_weights="equal",
):
    """One loss a clip; the longer side is averaged down to the shorter."""
    losses = []
    common = min(len(student[0]), len(teacher[0]))
    for clip in range(len(student)):
        length = 1.0 if lengths is None else lengths[clip]
        t = count_frames(length, common)
        matrices, norms = [], []
        for feats in (student, teacher):
            total = len(feats[clip])
            rows = feats[clip][: count_frames(length, total)]
            if total != common:
                rows = pool_loop(rows, t)
            matrices.append(similarity_loop(rows, similarity, eps))
            norms = [math.sqrt(dot(row, row)) for row in rows]
        # The last ones are the teacher's.
        mean = sum(norms) / t
        loss = 0.0
        for i, norm in enumerate(norms):
            rows = ([matrix[i]] for matrix in matrices)
            weight = norm / mean if mean > 0 else 1.0
            equal = frame_weights == "equal"
            loss += squared_distance(*rows) * (1.0 if equal else weight)
        loss /= t**2
        losses.append(loss * t if scaled else loss)
    return losses


def sp_loops(student, teacher, similarity="row_l2", scaled=False, eps=EPS):
    """The loss of a batch; features are one flat row a clip."""
    g_student = similarity_loop(student, similarity, eps)
    g_teacher = similarity_loop(teacher, similarity, eps)
    b = len(student)
    loss = squared_distance(g_student, g_teacher) / b**2
    return loss * b if scaled else loss


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + math.exp(-float(x)))


def cross_entropy(logit, target):
    """Binary cross-entropy of one output with one soft target."""
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def soft_target_loops(student, teacher, temperature, lengths=None):
    """One loss a clip; frame-wise outputs are nested one deeper."""
    losses = []
    for clip in range(len(student)):
        pairs = [(student[clip], teacher[clip])]
        if np.ndim(student) == 3:
            total = len(student[clip])
            length = 1.0 if lengths is None else lengths[clip]
            t = count_frames(length, total)
            pairs = list(zip(student[clip][:t], teacher[clip][:t], strict=True))
        values = [
            cross_entropy(s / temperature, sigmoid(u / temperature))
            for frame_s, frame_u in pairs
            for s, u in zip(frame_s, frame_u, strict=True)
        ]
        losses.append(temperature**2 * sum(values) / len(values))
    return losses


def masked_bce_loops(logits, targets, mask):
    """One loss a clip: masked elements stay in the divisor."""
    return [
        sum(
            m * cross_entropy(x, float(y))
            for x, y, m in zip(*rows, strict=True)
        )
        / len(rows[0])
        for rows in zip(logits, targets, mask, strict=True)
    ]
