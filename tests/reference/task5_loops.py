"""The Task 5 metrics in plain loops, from the rules and not from the code.

Slow, list based, no numpy: an oracle for the vectorised implementation.

Authors
 * The iusp_plugin authors 2026
"""

# Columns of each category: complete tags, incomplete tag (None: has none).
FINE_COLUMNS = {
    1: ([0, 1, 2], 3),
    2: ([4, 5, 6, 7], 8),
    3: ([9], None),
    4: ([10, 11, 12], 13),
    5: ([14, 15, 16, 17], 18),
    6: ([19, 20, 21], 22),
    7: ([23, 24, 25, 26], 27),
    8: ([28], None),
}


def file_counts(t, t_x, y, y_x):
    """TP, FP, FN of one file and category, everything 0 or 1."""
    pairs = list(zip(t, y, strict=True))
    matches = sum(1 for a, b in pairs if a and b)
    tp = matches
    if t_x and (any(y) or y_x) and matches == 0:
        tp += 1
    fp = 0
    if not t_x:
        fp += sum(1 for a, b in pairs if not a and b)
        if not any(t) and y_x and not all(y):
            fp += 1
    fn = sum(1 for a, b in pairs if a and not b)
    if t_x and not any(t) and not any(y) and not y_x:
        fn += 1
    return tp, fp, fn


def curve(truth, predictions, columns, x):
    """[(threshold, TP, FP, FN)] of one category, thresholds descending."""
    thresholds = {1.0}
    for row in predictions:
        for k in columns:
            if row[k] >= 0.01:
                thresholds.add(row[k])
    points = []
    for h in sorted(thresholds, reverse=True):
        total = [0, 0, 0]
        for t, y in zip(truth, predictions, strict=True):
            one = file_counts(
                [t[k] for k in columns],
                0 if x is None else t[x],
                [int(y[k] >= h) for k in columns],
                0 if x is None else int(y[x] >= h),
            )
            total = [a + b for a, b in zip(total, one, strict=True)]
        points.append((h, *total))
    return points


def curves(truth, predictions, level):
    """Category number to its curve, and "micro", thresholds ascending."""
    result = {}
    for c, (columns, x) in FINE_COLUMNS.items():
        if level == "coarse":
            columns, x = [c - 1], None
        result[c] = curve(truth, predictions, columns, x)
    pooled = []
    for h in sorted({p[0] for points in result.values() for p in points}):
        nearest = [
            min(p for p in points if p[0] >= h) for points in result.values()
        ]
        pooled.append((h, *(sum(p[i] for p in nearest) for i in (1, 2, 3))))
    result["micro"] = pooled
    return result


def official_order(v, part=None):
    """The unstable order, recursively; without the depth limit."""
    part = list(range(len(v))) if part is None else part
    n = len(part)
    if n <= 16:
        for i in range(1, n):
            j = i
            while j > 0 and v[part[j]] < v[part[j - 1]]:
                part[j - 1], part[j] = part[j], part[j - 1]
                j -= 1
        return part
    m, e = (n - 1) // 2, n - 1

    def swap(i, j):
        part[i], part[j] = part[j], part[i]

    if v[part[m]] < v[part[0]]:
        swap(m, 0)
    if v[part[e]] < v[part[m]]:
        swap(e, m)
    if v[part[m]] < v[part[0]]:
        swap(m, 0)
    pivot = v[part[m]]
    swap(m, e - 1)
    i, j = 0, e - 1
    while True:
        i = next(k for k in range(i + 1, n) if not v[part[k]] < pivot)
        j = next(k for k in range(j - 1, -1, -1) if not pivot < v[part[k]])
        if i >= j:
            break
        swap(i, j)
    swap(i, e - 1)
    left = official_order(v, part[:i])
    return left + [part[i]] + official_order(v, part[i + 1 :])


def area(points, ties):
    """Area under the curve of [(threshold, TP, FP, FN)] in list order."""
    recall, precision = [], []
    for _, tp, fp, fn in points:
        recall.append(tp / max(tp + fn, 0.5))
        precision.append(tp / max(tp + fp, 0.5))
    order = sorted(range(len(recall)), key=lambda i: recall[i])
    if ties == "official":
        order = official_order(recall)
    line = [(0.0, 1.0), *((recall[i], precision[i]) for i in order), (1.0, 0)]
    total = 0.0
    for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False):
        total += (x1 - x0) * (y0 + y1) / 2
    return total


def scores(truth, predictions, level, ties="official"):
    """All metrics of one level."""
    found = curves(truth, predictions, level)
    classwise = {str(c): area(found[c], ties) for c in FINE_COLUMNS}
    _, tp, fp, fn = next(p for p in found["micro"] if p[0] >= 0.5)
    f1 = 0.0
    if tp:
        f1 = 2 / ((tp + fp) / tp + (tp + fn) / tp)
    return {
        "micro_auprc": area(found["micro"], ties),
        "micro_f1": f1,
        "macro_auprc": sum(classwise.values()) / 8,
        "classwise_auprc": classwise,
    }
