"""What `paramtrans new plugin` can write a beginning of: one file for each kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of component, as a new plugin begins with it."""

    kind: str
    """As the registry calls it; its hook is `paramtrans_<kind>s`."""
    file: str
    """The template, and the file in the package."""
    attribute: str
    """What the file defines."""
    noun: str
    """With its article, for a sentence."""
    summary: str
    """Of the component."""
    config: str = ""
    """How a config names it; `{}` is the component's name."""


LIFECYCLE = "lifecycle"
"""Not a kind of component: hooks that are told how a run goes."""
KINDS = (
    Kind(
        "block_adapter",
        "block",
        "Block",
        "a block adapter",
        "channels mixed at each position",
        '[target]\nname = "{}"\nchannels = 6\nhidden = 12',
    ),
    Kind("translator", "translator", "Linear", "a translator", "two linear layers", '[translator]\nname = "{}"'),
    Kind(
        "augmenter",
        "augmenter",
        "Scale",
        "an augmenter",
        "whole models scaled",
        '[[augmenters]]\nname = "{}"\nscale = 0.01',
    ),
    Kind("objective", "objective", "Huber", "an objective", "Huber loss of parameters", '[[objectives]]\nname = "{}"'),
    Kind("task", "task", "Rhythm", "a task", "rhythms of short sequences", '[task]\nname = "{}"'),
    Kind("rival", "rival", "MeanTarget", "a rival", "mean of all trained targets", '[evaluation]\nrivals = ["{}"]'),
    Kind(
        "probe",
        "probes",
        "Flat",
        "probes",
        "inputs that are the same everywhere",
        '[[evaluation.methods]]\nlabel = "refit"\ntranslator = "refit"\nprobes = "{}"',
    ),
    Kind(
        "executor",
        "executor",
        "Aside",
        "an executor",
        "one shard after the other, in a thread",
        '[executor]\nname = "{}"',
    ),
    Kind("architecture", "architecture", "Perceptron", "an architecture source", "layers of given widths"),
    Kind("width_rule", "width_rule", "AtMost", "a rule for widths", "no more units than so many"),
    Kind(
        "metric",
        "metric",
        "Confidence",
        "a metric",
        "largest probability of a class",
        '[[evaluation.metrics]]\nname = "{}"',
    ),
    Kind(
        "report_section",
        "report_section",
        "Machine",
        "a section of the report",
        "what the run was computed on",
        '[[evaluation.sections]]\nname = "{}"',
    ),
    Kind("pretrained_translator", "pretrained", "FOLDER", "a pretrained translator", "trained on digits"),
    Kind("command", "command", "size", "a command", "how many bytes a run takes"),
)
NAMES = (*(kind.kind for kind in KINDS), LIFECYCLE)
"""What `--kind` takes."""
DEFAULT = ("block_adapter", "translator", "augmenter")
