"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_translators() -> list[Component]:
    package = "paramtrans_translators"
    return [
        Component("mixer", "MLP-Mixer over parameter tokens, the paper's translator", f"{package}.mixer:Mixer"),
        Component("mlp", "MLP over all parameters at once", f"{package}.mlp:MLP"),
        Component("attention", "transformer over parameter tokens", f"{package}.attention:Attention"),
        Component("trained", "one that another run has trained, from its folder", f"{package}.trained:Trained"),
        Component("conv", "1-d convolutions along the parameter tokens", f"{package}.conv:Conv"),
    ]
