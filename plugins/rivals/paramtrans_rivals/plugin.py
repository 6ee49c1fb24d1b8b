"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_rivals() -> list[Component]:
    package = "paramtrans_rivals"
    return [
        Component("zero_block", "all parameters zero: the residual path alone", f"{package}.fixed:ZeroBlock"),
        Component("random_init", "PyTorch's default initialisation", f"{package}.fixed:RandomInit"),
        Component("random_replacement", "the target of a random training pair", f"{package}.replacement:Random"),
        Component("greedy_replacement", "the target of the nearest training pair", f"{package}.replacement:Greedy"),
    ]
