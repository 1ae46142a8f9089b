"""``polynomial_floor``: polynomial decay that ends at a value other than zero."""

from dataclasses import dataclass

from classy_vision.optim.param_scheduler import UpdateInterval, register_param_scheduler

from classy_gc.optim.param_scheduler.checks import CheckedParamScheduler


@register_param_scheduler("polynomial_floor")
@dataclass(eq=False)
class PolynomialFloorParamScheduler(CheckedParamScheduler):
    """``end_value + (start_value − end_value) · (1 − where)^power``.

    Here ``where`` is 1 after the last step, as in torch's ``PolynomialLR``; MMEngine's ``PolyLR``
    reaches the end at the last step, one step earlier.

    Args:
        start_value (float): at the beginning
        end_value (float): at the end, such as a minimum learning rate
        power (float): > 0; 1 is linear
        update_interval: ``step`` or ``epoch`` (default: ``step``)

    Raises:
        ValueError: from a config, an unknown or missing key, or a value that is not allowed.

    Source: MMEngine's ``PolyLR`` (``eta_min``); Chen et al., *DeepLab*,
    https://arxiv.org/abs/1606.00915, section 4.1.

    Example:
        >>> schedule = PolynomialFloorParamScheduler(start_value=1.0, end_value=0.5, power=2)
        >>> [schedule(where) for where in (0, 0.5, 1)]
        [1.0, 0.625, 0.5]
    """

    start_value: float
    end_value: float
    power: float
    update_interval: UpdateInterval = UpdateInterval.STEP

    def __call__(self, where: float) -> float:
        return self.end_value + (self.start_value - self.end_value) * (1 - where) ** self.power
