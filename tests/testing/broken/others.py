"""Augmenters, objectives, rivals, probes, tasks and executors that each break one promise, and a sound one of each."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from paramtrans import Augmenter, Component, Executor, Objective, Probes, Rival, Split, Task, hookimpl
from paramtrans.api.modules import initial
from paramtrans.testing.samples import Slot
from paramtrans.zoo import do_job

BROKEN: dict[str, str] = {}
"""Names of classes, each with the check that must fail, and no other."""


def breaks(check: str) -> Any:
    """Registers a class as one that fails `check` alone."""

    def named(cls: type) -> type:
        BROKEN[cls.__name__] = check
        return cls

    return named


class SoundAugmenter(Augmenter):
    """A little noise."""

    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in params.items()}


@breaks("keeps_names_shapes_and_types")
class TensorForgotten(SoundAugmenter):
    def __call__(self, params: Any, generator: Any) -> Any:
        return dict(list(super().__call__(params, generator).items())[:-1])


@breaks("keeps_names_shapes_and_types")
class Doubled(SoundAugmenter):
    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: tensor.double() for name, tensor in super().__call__(params, generator).items()}


@breaks("draws_from_its_generator")
class Unseeded(Augmenter):
    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: t + 0.1 * torch.randn(t.shape) for name, t in params.items()}


@breaks("draws_from_its_generator")
class NotRandom(Augmenter):
    def __call__(self, params: Any, generator: Any) -> Any:
        return {name: 0.9 * t for name, t in params.items()}


@breaks("leaves_its_input_alone")
class InPlaceAugmenter(SoundAugmenter):
    def __call__(self, params: Any, generator: Any) -> Any:
        for tensor in params.values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
        return params


@breaks("changes_something")
class Idle(Augmenter):
    def __call__(self, params: Any, generator: Any) -> Any:
        return dict(params)


class SoundObjective(Objective):
    """Squares of the prediction."""

    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return torch.stack([t.square().mean() for t in predicted.values()]).mean()


@breaks("is_a_finite_scalar")
class OnePerModel(SoundObjective):
    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return torch.stack([t.flatten(1).square().mean(1) for t in predicted.values()]).mean(0)


@breaks("gradients_reach_every_prediction")
class DetachedGradient(SoundObjective):
    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return super().__call__({name: t.detach() for name, t in predicted.items()}, batch)


@breaks("gradients_reach_every_prediction")
class FirstModelAlone(SoundObjective):
    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return super().__call__({name: t[:1] for name, t in predicted.items()}, batch)


@breaks("comparing_leaves_no_trace")
class ChangesHosts(SoundObjective):
    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        next(iter(batch.hosts.source.values())).zero_()
        return super().__call__(predicted, batch)


@breaks("same_input_same_loss")
class RandomLoss(SoundObjective):
    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return super().__call__(predicted, batch) * (1 + torch.rand(()))


@breaks("asks_for_what_it_uses")
class UsesTargetsSilently(SoundObjective):
    def __call__(self, predicted: Any, batch: Any) -> Tensor:
        return torch.stack([(t - batch.target[name]).square().mean() for name, t in predicted.items()]).mean()


class SoundRival(Rival):
    """A default initialisation from the host's seed."""

    def fill(self, case: Any) -> Any:
        return initial(case.target.module, case.hosts.seeds)


@breaks("fills_every_slot")
class OneTooFew(SoundRival):
    needs_pairs: ClassVar[bool] = True  # so that the check without pairs, which counts too, is not made

    def fill(self, case: Any) -> Any:
        return initial(case.target.module, case.hosts.seeds[1:])


@breaks("same_case_same_blocks")
class UnseededRival(SoundRival):
    def fill(self, case: Any) -> Any:
        return {name: t * (1 + torch.rand(())) for name, t in super().fill(case).items()}


@breaks("filling_leaves_no_trace")
class ChangesPairs(SoundRival):
    def fill(self, case: Any) -> Any:
        next(iter(case.hosts.latter.values())).zero_()
        return super().fill(case)


@breaks("does_without_pairs")
class PairsSilently(SoundRival):
    def fill(self, case: Any) -> Any:
        return {name: t[: len(case.hosts)] for name, t in case.pairs.target.items()}


class SoundProbes(Probes):
    """Noise."""

    def draw(self, case: Any) -> Tensor:
        return torch.rand(self.options.count, *case.shape, generator=case.generator)


@breaks("are_network_inputs")
class TooMany(SoundProbes):
    def draw(self, case: Any) -> Tensor:
        return torch.rand(self.options.count + 1, *case.shape, generator=case.generator)


@breaks("probes_are_drawn_from_the_generator")
class UnseededProbes(SoundProbes):
    def draw(self, case: Any) -> Tensor:
        return torch.rand(self.options.count, *case.shape)


@breaks("drawing_leaves_no_trace")
class ChangesWhatItSees(SoundProbes):
    def draw(self, case: Any) -> Tensor:
        next(iter(case.hosts.source.values())).zero_()
        return super().draw(case)


class SoundTask(Slot):
    """The sample task."""


@breaks("splits_are_whole")
class LabelsMissing(Slot):
    def split(self, name: str) -> Split:
        whole = super().split(name)
        return Split(whole.inputs, whole.labels[:-1] if name == "test" else whole.labels)


@breaks("former_fits_the_slot")
class WrongSlot(Slot):
    def former(self) -> Any:
        return torch.nn.Sequential(super().former(), torch.nn.Flatten(2), torch.nn.Unflatten(2, (8, 2)))

    def stream(self) -> dict[str, int]:
        return {}


@breaks("losses_are_each_models_own")
class SharedLoss(Slot):
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs.flatten(0, 1), labels.flatten()).expand(len(outputs))


@breaks("scores_are_percent")
class Fractions(Slot):
    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return super().score(outputs, labels).mean(1)


@breaks("augmentation_draws_from_its_generator")
class UnseededAugmentation(Slot):
    def augment(self, raw: Tensor, generator: Any) -> Tensor:
        return torch.randint_like(raw, 256)


@breaks("augmentation_can_be_drawn_ahead")
class DrawsByBatch(Slot):
    """Draws one number for a whole batch."""

    def draws(self, count: int, generator: Any) -> Tensor:
        return torch.rand(1, generator=generator).expand(count)


@breaks("stream_is_the_slots_channels")
class WrongStream(Slot):
    def stream(self) -> dict[str, int]:
        return {"former.0.weight": 2}


class SoundExecutor(Executor):
    """One after the other."""

    def run(self, jobs: Any, progress: Any) -> None:
        for job in jobs:
            do_job(job, progress)


@breaks("does_every_job")
class ForgetsAJob(SoundExecutor):
    def run(self, jobs: Any, progress: Any) -> None:
        super().run(jobs[:1], progress)
        for _ in jobs[1:]:
            progress(2)  # as if it had been done


@breaks("tells_how_far_it_is")
class Silent(SoundExecutor):
    def run(self, jobs: Any, progress: Any) -> None:
        super().run(jobs, lambda steps: None)


@breaks("tells_what_fails")
class Swallows(SoundExecutor):
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


def _of(base: type) -> list[Component]:
    own = [cls for cls in globals().values() if isinstance(cls, type) and issubclass(cls, base)]
    mine = [cls for cls in own if cls.__module__ == __name__]
    return [Component(cls.__name__, "for tests", f"{__name__}:{cls.__name__}") for cls in mine]


@hookimpl
def paramtrans_augmenters() -> list[Component]:
    return _of(Augmenter)


@hookimpl
def paramtrans_objectives() -> list[Component]:
    return _of(Objective)


@hookimpl
def paramtrans_rivals() -> list[Component]:
    return _of(Rival)


@hookimpl
def paramtrans_probes() -> list[Component]:
    return _of(Probes)


@hookimpl
def paramtrans_tasks() -> list[Component]:
    return _of(Task)


@hookimpl
def paramtrans_executors() -> list[Component]:
    return _of(Executor)
