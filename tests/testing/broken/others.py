"""Augmenters, objectives, rivals, probes, tasks and executors that each break one promise, and a sound one of each.

`breaks` names the check that a class must fail, and no other.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from paramtrans import Augmenter, Component, Executor, Objective, Probes, Rival, Split, Task, hookimpl
from paramtrans.api.modules import initial
from paramtrans.testing.samples import Slot
from paramtrans.zoo import do_job


class SoundAugmenter(Augmenter):
    """A little noise."""

    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in params.items()}


class TensorForgotten(SoundAugmenter):
    breaks = "keeps_names_shapes_and_types"

    def __call__(self, params: Any, generator: Any) -> Any:
        return dict(list(super().__call__(params, generator).items())[:-1])


class Doubled(SoundAugmenter):
    breaks = "keeps_names_shapes_and_types"

    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: tensor.double() for name, tensor in super().__call__(params, generator).items()}


class Unseeded(Augmenter):
    breaks = "draws_from_its_generator"

    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: t + 0.1 * torch.randn(t.shape) for name, t in params.items()}


class NotRandom(Augmenter):
    breaks = "draws_from_its_generator"

    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: 0.9 * t for name, t in params.items()}


class InPlaceAugmenter(SoundAugmenter):
    breaks = "leaves_its_input_alone"

    def __call__(self, params: Any, generator: Any) -> Any:
        for tensor in params.values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
        return params


class Idle(Augmenter):
    breaks = "changes_something"

    def __call__(self, params: Any, generator: Any) -> Any:
        return dict(params)


class SoundObjective(Objective):
    """Squares of the prediction."""

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return torch.stack([t.square().mean() for t in predicted.values()]).mean()


class OnePerModel(SoundObjective):
    breaks = "is_a_finite_scalar"

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return torch.stack([t.flatten(1).square().mean(1) for t in predicted.values()]).mean(0)


class DetachedGradient(SoundObjective):
    breaks = "gradients_reach_every_prediction"

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return super().__call__({name: t.detach() for name, t in predicted.items()}, batch)


class FirstModelAlone(SoundObjective):
    breaks = "gradients_reach_every_prediction"

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return super().__call__({name: t[:1] for name, t in predicted.items()}, batch)


class ChangesHosts(SoundObjective):
    breaks = "comparing_leaves_no_trace"

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        next(iter(batch.hosts.source.values())).zero_()
        return super().__call__(predicted, batch)


class RandomLoss(SoundObjective):
    breaks = "same_input_same_loss"

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return super().__call__(predicted, batch) * (1 + torch.rand(()))


class UsesTargetsSilently(SoundObjective):
    breaks = "asks_for_what_it_uses"

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return torch.stack([(t - batch.target[name]).square().mean() for name, t in predicted.items()]).mean()


class SoundRival(Rival):
    """A default initialisation from the host's seed."""

    def fill(self, case: Any) -> Any:
        return initial(case.target.module, case.hosts.seeds)


class OneTooFew(SoundRival):
    breaks = "fills_every_slot"
    needs_pairs: ClassVar[bool] = True  # so that the check without pairs, which counts too, is not made

    def fill(self, case: Any) -> Any:
        return initial(case.target.module, case.hosts.seeds[1:])


class UnseededRival(SoundRival):
    breaks = "same_case_same_blocks"

    def fill(self, case: Any) -> Any:
        return {name: t * (1 + torch.rand(())) for name, t in super().fill(case).items()}


class ChangesPairs(SoundRival):
    breaks = "filling_leaves_no_trace"

    def fill(self, case: Any) -> Any:
        next(iter(case.hosts.latter.values())).zero_()
        return super().fill(case)


class PairsSilently(SoundRival):
    breaks = "does_without_pairs"

    def fill(self, case: Any) -> Any:
        return {name: t[: len(case.hosts)] for name, t in case.pairs.target.items()}


class SoundProbes(Probes):
    """Noise."""

    def draw(self, case: Any) -> Tensor:
        return torch.rand(self.options.count, *case.shape, generator=case.generator)


class TooMany(SoundProbes):
    breaks = "are_network_inputs"

    def draw(self, case: Any) -> Tensor:
        return torch.rand(self.options.count + 1, *case.shape, generator=case.generator)


class UnseededProbes(SoundProbes):
    breaks = "probes_are_drawn_from_the_generator"

    def draw(self, case: Any) -> Tensor:
        return torch.rand(self.options.count, *case.shape)


class ChangesWhatItSees(SoundProbes):
    breaks = "drawing_leaves_no_trace"

    def draw(self, case: Any) -> Tensor:
        next(iter(case.hosts.source.values())).zero_()
        return super().draw(case)


class SoundTask(Slot):
    """The sample task."""


class LabelsMissing(Slot):
    breaks = "splits_are_whole"

    def split(self, name: str) -> Split:
        whole = super().split(name)
        return Split(whole.inputs, whole.labels[:-1] if name == "test" else whole.labels)


class WrongSlot(Slot):
    breaks = "former_fits_the_slot"

    def former(self) -> Any:
        return torch.nn.Sequential(super().former(), torch.nn.Flatten(2), torch.nn.Unflatten(2, (8, 2)))

    def stream(self) -> dict[str, int]:
        return {}


class SharedLoss(Slot):
    breaks = "losses_are_each_models_own"

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs.flatten(0, 1), labels.flatten()).expand(len(outputs))


class OneScore(Slot):
    breaks = "hosts_are_measured"
    metric = None

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return 100.0 * (outputs.argmax(-1) == labels).double().mean(1)


class Fractions(Slot):
    breaks = "hosts_are_measured"
    metric = None

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return 101.0 + (outputs.argmax(-1) == labels)


class UnseededAugmentation(Slot):
    breaks = "augmentation_draws_from_its_generator"

    def augment(self, raw: Tensor, generator: Any) -> Tensor:
        return torch.randint_like(raw, 256)


class DrawsByBatch(Slot):
    """Draws one number for a whole batch."""

    breaks = "augmentation_can_be_drawn_ahead"

    def draws(self, count: int, generator: Any) -> Tensor:
        return torch.rand(1, generator=generator).expand(count)


class WrongStream(Slot):
    breaks = "stream_is_the_slots_channels"

    def stream(self) -> dict[str, int]:
        return {"former.0.weight": 2}


class SoundExecutor(Executor):
    """One after the other."""

    def run(self, jobs: Any, progress: Any) -> None:
        for job in jobs:
            do_job(job, progress)


class ForgetsAJob(SoundExecutor):
    breaks = "does_every_job"

    def run(self, jobs: Any, progress: Any) -> None:
        super().run(jobs[:1], progress)
        for _ in jobs[1:]:
            progress(2)  # as if it had been done


class Silent(SoundExecutor):
    breaks = "tells_how_far_it_is"

    def run(self, jobs: Any, progress: Any) -> None:
        super().run(jobs, lambda steps: None)


class Swallows(SoundExecutor):
    breaks = "tells_what_fails"

    def run(self, jobs: Any, progress: Any) -> None:
        for job in jobs:
            try:
                do_job(job, progress)
            except Exception:
                continue


KINDS = {
    "augmenter": Augmenter,
    "objective": Objective,
    "rival": Rival,
    "probe": Probes,
    "task": Task,
    "executor": Executor,
}


def announced(base: type) -> list[Component]:
    classes = [value for value in globals().values() if isinstance(value, type) and value.__module__ == __name__]
    return [
        Component(cls.__name__, "for tests", f"{__name__}:{cls.__name__}") for cls in classes if issubclass(cls, base)
    ]


@hookimpl
def paramtrans_augmenters() -> list[Component]:
    return announced(Augmenter)


@hookimpl
def paramtrans_objectives() -> list[Component]:
    return announced(Objective)


@hookimpl
def paramtrans_rivals() -> list[Component]:
    return announced(Rival)


@hookimpl
def paramtrans_probes() -> list[Component]:
    return announced(Probes)


@hookimpl
def paramtrans_tasks() -> list[Component]:
    return announced(Task)


@hookimpl
def paramtrans_executors() -> list[Component]:
    return announced(Executor)
