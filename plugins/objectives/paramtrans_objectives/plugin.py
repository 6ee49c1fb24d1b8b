"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_objectives() -> list[Component]:
    package = "paramtrans_objectives"
    return [
        Component("mse", "squared error to the trained target's parameters (Eq. 1)", f"{package}.mse:MSE"),
        Component(
            "matching_mse",
            "squared error to the trained target's parameters, its hidden units in the best order",
            f"{package}.mse:MatchingMSE",
        ),
        Component("functional", "what the host computes with the predicted block", f"{package}.functional:Functional"),
    ]
