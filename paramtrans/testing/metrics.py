"""Checks of metrics, on outputs and labels of classes."""

from __future__ import annotations

import torch

from paramtrans.testing.check import Subject, check, drawing, expect

HOSTS, EXAMPLES, CLASSES = 3, 5, 4


@check("metric")
def gives_one_number_for_each_host_and_example(subject: Subject) -> None:
    """`[hosts, examples]`, whatever the outputs; each host's numbers are those that it has alone."""
    with drawing(0):
        outputs, labels = torch.randn(HOSTS, EXAMPLES, CLASSES), torch.randint(CLASSES, (EXAMPLES,))
    metric = subject.create()
    numbers = metric.measure(outputs.clone(), labels)
    expect(list(numbers.shape) == [HOSTS, EXAMPLES], f"numbers of shape {[HOSTS, EXAMPLES]}", list(numbers.shape))
    alone = metric.measure(outputs[1:2].clone(), labels)[0]
    same = torch.allclose(numbers[1].double(), alone.double())
    expect(same, "the same numbers for a host alone", "others")
