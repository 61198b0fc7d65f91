"""The tags of DCASE 2019 Task 5 (SONYC-UST): facts, no file needed.

Eight coarse categories; 23 complete fine tags; six incomplete ("X") fine tags
that say "this category, but of unknown or unlisted kind". A tag is named as in
the submission format (``1-2_medium-sounding-engine``); an annotation column
adds ``_presence`` or ``_proximity``.

Source: SONYC-UST taxonomy (Cartwright et al., DCASE 2019), CC BY 4.0.

Authors
 * The iusp_plugin authors 2026

Example
-------
>>> len(COARSE_TAGS), len(FINE_TAGS), len(COMPLETE_FINE_TAGS)
(8, 29, 23)
>>> fine_tags_of(3)
('3-1_non-machinery-impact',)
"""

_FINE: dict[int, tuple[str, tuple[str, ...], str | None]] = {
    1: (
        "engine",
        (
            "small-sounding-engine",
            "medium-sounding-engine",
            "large-sounding-engine",
        ),
        "engine-of-uncertain-size",
    ),
    2: (
        "machinery-impact",
        ("rock-drill", "jackhammer", "hoe-ram", "pile-driver"),
        "other-unknown-impact-machinery",
    ),
    3: ("non-machinery-impact", ("non-machinery-impact",), None),
    4: (
        "powered-saw",
        ("chainsaw", "small-medium-rotating-saw", "large-rotating-saw"),
        "other-unknown-powered-saw",
    ),
    5: (
        "alert-signal",
        ("car-horn", "car-alarm", "siren", "reverse-beeper"),
        "other-unknown-alert-signal",
    ),
    6: (
        "music",
        ("stationary-music", "mobile-music", "ice-cream-truck"),
        "music-from-uncertain-source",
    ),
    7: (
        "human-voice",
        (
            "person-or-small-group-talking",
            "person-or-small-group-shouting",
            "large-crowd",
            "amplified-speech",
        ),
        "other-unknown-human-voice",
    ),
    8: ("dog", ("dog-barking-whining",), None),
}

COARSE_IDS: tuple[int, ...] = tuple(_FINE)

COARSE_TAGS: tuple[str, ...] = tuple(
    f"{c}_{name}" for c, (name, _, _) in _FINE.items()
)


def fine_tags_of(coarse_id: int) -> tuple[str, ...]:
    """The complete fine tags of one coarse category, in taxonomy order."""
    names = _FINE[coarse_id][1]
    return tuple(f"{coarse_id}-{k}_{n}" for k, n in enumerate(names, 1))


def incomplete_tag_of(coarse_id: int) -> str | None:
    """The incomplete ("X") tag of one coarse category, None for 3 and 8."""
    name = _FINE[coarse_id][2]
    return None if name is None else f"{coarse_id}-X_{name}"


COMPLETE_FINE_TAGS: tuple[str, ...] = tuple(
    tag for c in COARSE_IDS for tag in fine_tags_of(c)
)

INCOMPLETE_FINE_TAGS: tuple[str, ...] = tuple(
    tag for c in COARSE_IDS if (tag := incomplete_tag_of(c)) is not None
)

# Taxonomy order: complete tags of a category, then its incomplete tag.
FINE_TAGS: tuple[str, ...] = tuple(
    tag
    for c in COARSE_IDS
    for tag in (*fine_tags_of(c), incomplete_tag_of(c))
    if tag is not None
)

# Columns of the submission format after ``audio_filename``.
ALL_TAGS: tuple[str, ...] = FINE_TAGS + COARSE_TAGS


def coarse_id_of(tag: str) -> int:
    """The coarse category (1..8) that a fine or coarse tag belongs to."""
    return int(tag[0])


def presence_column(tag: str) -> str:
    """Name of the annotation column that holds a tag's presence."""
    return f"{tag}_presence"


def proximity_column(tag: str) -> str:
    """Name of the annotation column that holds a fine tag's proximity."""
    return f"{tag}_proximity"
