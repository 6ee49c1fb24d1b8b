"""Checks of metrics, on outputs and labels of classes."""

from __future__ import annotations

import torch

from paramtrans.testing.check import Subject, check, drawing, expect

HOSTS, EXAMPLES, CLASSES = 3, 5, 4


@check("metric")
def gives_one_number_for_each_host(subject: Subject) -> None:
    """`measure` gives something for each host and example, `combine` a number for each host, as if it were alone."""
    with drawing(0):
        outputs, labels = torch.randn(HOSTS, EXAMPLES, CLASSES), torch.randint(CLASSES, (EXAMPLES,))
    metric = subject.create()
    numbers = metric.measure(outputs.clone(), labels)
    shape = [HOSTS, EXAMPLES]
    expect(list(numbers.shape[:2]) == shape, f"numbers of shape {shape}, or more of each", list(numbers.shape))
    values = metric.combine(numbers.double())
    expect(list(values.shape) == [HOSTS], f"a number for each host: {[HOSTS]}", list(values.shape))
    alone = metric.measure(outputs[1:2].clone(), labels)
    same = torch.allclose(numbers[1].double(), alone[0].double(), equal_nan=True)
    same = same and torch.allclose(values[1:2], metric.combine(alone.double()), equal_nan=True)
    expect(same, "the same numbers for a host alone", "others")
