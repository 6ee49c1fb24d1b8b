"""The numbers that the paper prints, and the runs and columns they are measured by. The only numbers typed here."""

from __future__ import annotations

ILLEGIBLE, UNPUBLISHED = "not legible", "not published"
RIVALS = (("random_init", "27.38"), ("random_replacement", "23.67"), ("greedy_replacement", "26.53"))

Line = tuple[str, str, str, str]
"""What it is, the paper's number, and the run and the column it is measured by."""


def rates(size: str, *values: str) -> list[Line]:
    """A Mixer with dropout 0, 0.1, 0.2 and 0.3."""
    rows = zip(("0.0", "0.1", "0.2", "0.3"), values, strict=True)
    return [(f"{size}, dropout {rate}", value, f"{size}-{rate}", "translated") for rate, value in rows]


FAMILIES = (
    ("low-rank factorisation", "low_rank", "translated", "low_rank"),
    ("pruning", "pruning", "translated", "prune"),
    ("quantisation, 8 bits", "quantisation_8", "translated", "quantise"),
    ("quantisation, 4 bits", "quantisation_4", "translated", "quantise"),
    ("distillation", "pruning", "distillation", "matching"),
    ("translation", "translation", "translated", "mixer"),
)
"""Of Table 1: what it is, the run and the method by which it is measured, and its translator."""

PAPER: dict[str, tuple[str, list[Line]]] = {
    "fig4": (
        "Fig. 4: three kinds of translators at about equal FLOPs (last training loss)",
        [(kind, UNPUBLISHED, kind, "loss") for kind in ("mixer", "attention", "convolution")],
    ),
    "table2": (
        "Table 2: sizes (parameters)",
        [
            (size, f"{m} M", size, "parameters")
            for size, m in zip(("small", "base", "large", "wide"), ("1.32", "2.61", "3.90", "4.11"), strict=True)
        ],
    ),
    "table3": (
        "Table 3: rivals, and four Mixers with dropout, 300 epochs (mean accuracy, %)",
        [
            *((name.replace("_", " "), value, "small-0.0", name) for name, value in RIVALS),
            *rates("small", "45.54", "31.08", "30.23", "30.63"),
            *rates("base", "47.33", "32.49", "31.20", "31.19"),
            *rates("large", "44.99", f"about 39 ({ILLEGIBLE})", f"about 34 ({ILLEGIBLE})", "31.14"),
            *rates("wide", "30.31", "30.98", ILLEGIBLE, "29.08"),
        ],
    ),
    "fig6": (
        "Fig. 6: training loss and accuracy (mean accuracy, %)",
        [("small", "45.54", "small", "translated"), ("wide", "30.31", "wide", "translated")],
    ),
    "table4": (
        "Table 4: longer training, 1,000 epochs (mean accuracy, %)",
        [
            *rates("small", "46.56", "39.85", "31.87", "31.66"),
            *rates("base", "46.16", "49.41", "47.11", "32.77"),
            *rates("large", "51.21", "52.07", "50.00", "49.31"),
        ],
    ),
    "table5": (
        "Table 5: fewer pairs, with augmentation (mean accuracy, %)",
        [
            ("all pairs", "44.99", "all_pairs", "translated"),
            ("a sixth of them", "30.93", "none", "translated"),
            ("a sixth, masking", "48.76", "masking", "translated"),
            ("a sixth, noise", "49.52", "noise", "translated"),
        ],
    ),
    "table6": (
        "Table 6: to another architecture (mean accuracy, %)",
        [
            ("MLP, random initialisation", "26.60", "mlp", "random_init"),
            ("MLP, translated", "37.33", "mlp", "translated"),
            ("attention, random initialisation", "26.72", "attention", "random_init"),
            ("attention, translated", "33.55", "attention", "translated"),
        ],
    ),
    "fig5": (
        "Fig. 5: feature maps (in the run's report; mean accuracy, %)",
        [("translated", "51.21", "", "translated")],
    ),
    "fig7": (
        "Fig. 7: histogram of accuracies (in the run's report; mean accuracy, %)",
        [("random initialisation", "27.38", "", "random_init"), ("translated", "52.07", "", "translated")],
    ),
    "fig8": (
        "Fig. 8: source networks trained on a share of the data (gain over random initialisation, points)",
        [
            (f"{share:.0%} of the training images", ILLEGIBLE, str(share), "gain")
            for share in (0.01, 0.03, 0.1, 0.3, 1.0)
        ],
    ),
    "transfer": (
        "Section 5.5: hosts of another data set around frozen source blocks (gain over random initialisation, points)",
        [
            ("MNIST's own report hosts", UNPUBLISHED, "mnist", "gain"),
            ("USPS", "+11.11", "usps", "gain"),
            ("the small digits of scikit-learn", UNPUBLISHED, "digits", "gain"),
        ],
    ),
    "tasks": (
        "Section 5.5: one translator for two data sets (mean accuracy, %)",
        [
            (f"{data}, {how}", UNPUBLISHED, f"{name}_{run}", "translated")
            for data, name in (("MNIST", "mnist"), ("small digits", "digits"))
            for how, run in (("a translator of its own", "own"), ("the common translator", "common"))
        ],
    ),
    "update": (
        "The enterprise: source networks trained further, translated again",
        [
            (f"{when}: {what}", UNPUBLISHED, run, column)
            for when, run in (("before", "before"), ("updated", "updated"))
            for what, column in (
                ("translated, %", "translated"),
                ("trained target (step 2 again), %", "trained_target"),
                ("translation, seconds a host", "translated_seconds"),
                ("step 2, seconds a host", "trained_target_seconds"),
            )
        ],
    ),
}

BEST = (
    ("Table 3: Base, no dropout", "table3", "base-0.0"),
    ("Table 4: Large, dropout 0.1", "table4", "large-0.1"),
    ("Table 5: a sixth of the pairs, noise", "table5", "noise"),
    ("Table 6: to an MLP", "table6", "mlp"),
    ("Table 6: to attention", "table6", "attention"),
    ("Fig. 5: feature maps", "fig5", ""),
    ("Fig. 6: Small", "fig6", "small"),
    ("Fig. 7: histogram", "fig7", ""),
)
"""Of every table and figure with accuracies the line that is best in the paper, of Table 6 both, with its run."""
