"""Parameters of a folder of transformers by the names that the model's class gives them today."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


def own_names(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Parameters of a file as transformers itself reads them: renamed, joined or split where its files differ.

    Args:
        network: What the config of the folder names.
        state: Parameters by the names of the file.

    Returns:
        Parameters by the network's names; `state` itself where these are its names already, or where transformers
        finds a parameter missing or of another shape.
    """
    import transformers

    if state.keys() <= network.state_dict().keys() or not isinstance(network, transformers.PreTrainedModel):
        return state
    precisions = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    precision = precisions.pop() if len(precisions) == 1 else torch.float32
    with quietly():
        try:
            # Without a path nothing is read from disk or fetched, and no code beside the class is run.
            answer: Any = type(network).from_pretrained(
                None, config=network.config, state_dict=dict(state), dtype=precision, output_loading_info=True
            )
        except Exception as error:  # whatever the class makes of names that it does not know
            log.debug("transformers does not take these parameters: %s", error)
            return state
    loaded, report = answer
    if report["missing_keys"] or report["mismatched_keys"] or report["error_msgs"]:
        return state
    if unused := sorted(report["unexpected_keys"]):
        log.warning("left out, as %s has no such parameters: %s", type(network).__name__, ", ".join(unused))
    parameters: Mapping[str, Tensor] = loaded.state_dict()
    return parameters


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bars and reports of transformers itself: its answers are told in our words."""
    from transformers.utils import logging as words

    bars, level = words.is_progress_bar_enabled(), words.get_verbosity()
    words.disable_progress_bar()
    words.set_verbosity_error()
    try:
        yield
    finally:
        words.set_verbosity(level)
        if bars:
            words.enable_progress_bar()
