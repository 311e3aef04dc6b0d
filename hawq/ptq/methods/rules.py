"""Find ranges of weights and activations by a rule: every range rule that needs no training is a method."""

from hawq.ptq.registry import Stage, register_method
from hawq.ptq.workbench import Ranges, Workbench
from hawq.quantizers import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS

__all__: list[str] = []

_RULES = {
    "minmax": "Let ranges hold everything that was seen",
    "running": "Let ranges be the mean of the batches' ranges",
    "mse": "Choose ranges with the least squared error",
    "laplace": "Clip where values with a Laplace density err least (ACIQ)",
    "gauss": "Clip where normal values err least (ACIQ)",
    "std": "Clip at --clip-std standard deviations from the mean",
    "mix": "Clip as laplace, gauss or minmax do, whichever errs least",
    "kl": "Clip where the distribution of the codes diverges least from that of the values",
    "kmeans": "Let levels be the centroids of each channel's weights",
}


def _register(rule: str, summary: str) -> None:
    """Register a rule for all that it can serve, and, if that is both, for weights and for activations alone."""
    known = {"weights": WEIGHT_QUANTIZERS, "acts": ACTIVATION_QUANTIZERS}
    roles = {role: f"{role.removesuffix('s')}_quantizer" for role, quantizers in known.items() if rule in quantizers}
    choices = {rule: tuple(roles)} | ({f"{rule}-{role}": (role,) for role in roles} if len(roles) > 1 else {})
    for name, served in choices.items():

        def choose(bench: Workbench, served: tuple[str, ...] = served) -> None:
            bench.use(**{roles[role]: rule for role in served})

        what = {"weights": "weights", "acts": "activations"}
        choose.__doc__ = f"{summary}: {' and '.join(what[role] for role in served)}."
        register_method(name, Stage.RULES)(choose)


for _name, _summary in _RULES.items():
    _register(_name, _summary)


@register_method("percentile", Stage.RULES)
def _percentile(bench: Workbench) -> None:
    """Leave outliers out of the ranges of activations; weights keep theirs."""
    bench.use(act_quantizer="percentile")


@register_method("per-tensor", Stage.RULES)
def _per_tensor(bench: Workbench) -> None:
    """Give the weights of a layer one scale instead of one a channel."""
    bench.use(weight_group=0)


@register_method("statistics", Stage.RULES)
def _statistics(bench: Workbench) -> None:
    """Take ranges of activations from batch norms' moments, six deviations wide, though there are images."""
    bench.use(act_quantizer="minmax")
    bench.ranges = Ranges.MOMENTS


@register_method("zero-points", Stage.RULES)
def _zero_points(bench: Workbench) -> None:
    """Give activations that go negative unsigned codes with a zero point."""
    bench.use(asymmetric=True)
