"""``paramwise``: multipliers by the name and kind of a parameter."""

import difflib
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from torchvision.ops import DeformConv2d

from classy_gc.core import ineligible_reason
from classy_gc.options import BOOL, NON_NEGATIVE, Rule, or_null
from classy_gc.param_groups import builder
from classy_gc.param_groups.builder import NamedParameter, OptimizerOptions, ParamGroupBuilder
from classy_gc.param_groups.kinds import is_depthwise, is_norm, no_layer_weight_reason

_OF_LR = ("bias_lr_mult", "dcn_offset_lr_mult")
_OF_DECAY = ("bias_decay_mult", "norm_decay_mult", "flat_decay_mult", "dwconv_decay_mult")
_KEYS = Rule(
    "an object whose values are objects of options",
    lambda v: isinstance(v, Mapping) and all(isinstance(x, Mapping) for x in v.values()),
)


@builder.register_param_group_builder("paramwise")
class Paramwise(ParamGroupBuilder):
    """``paramwise``: MMEngine's ``DefaultOptimWrapperConstructor``, and an option for GC.

    Multipliers are numbers >= 0; null, the default of each, means no rule. The first decay rule
    that applies decides, in this order: norm, depthwise, bias, flat.

    Args:
        custom_keys (dict): options of parameters, by a substring of their full names. The longest
            key that matches decides, the first by alphabet if several are equally long, and no
            other rule counts. Options are ``lr_mult`` and ``decay_mult``, any option that the
            optimizer can have per group (numbers, GC options, or a ParamScheduler config), and
            ``bn_weight_decay`` (default: {})
        bias_lr_mult (float): of ``lr`` for ``bias``, but not in norm layers or in offset layers of
            deformable convolutions (default: None)
        bias_decay_mult (float): of ``weight_decay`` for ``bias``, but not in norm layers, depthwise
            convolutions or offset layers (default: None)
        norm_decay_mult (float): of ``weight_decay`` for weight and bias of norm layers; for
            BatchNorm, whatever the task's ``bn_weight_decay`` says (default: None)
        flat_decay_mult (float): of ``weight_decay`` for one-dimensional parameters, but not in
            offset layers (default: None)
        dwconv_decay_mult (float): of ``weight_decay`` for weight and bias of depthwise
            ``Conv2d`` (default: None)
        dcn_offset_lr_mult (float): of ``lr`` for weight and bias of a ``Conv2d`` named
            ``conv_offset`` inside a ``torchvision.ops.DeformConv2d`` (default: None)
        gc_layer_weights_only (bool): turn ``use_gc`` off for everything but the weights of linear,
            convolution, embedding, recurrent and attention layers (see
            :func:`no_layer_weight_reason`): off for norm layers over several dimensions, class
            tokens, position embeddings, bias tables. A key of ``custom_keys`` that sets ``use_gc``
            decides for its parameters (default: False)
        bypass_duplicate (bool): leave out the second occurrence of a shared parameter, with a
            warning, instead of raising an error (default: False)

    Raises:
        ValueError: an unknown field, a value that is not allowed, a key that matches nothing.

    Source: https://mmengine.readthedocs.io/en/latest/api/generated/\
mmengine.optim.DefaultOptimWrapperConstructor.html

    Example:
        >>> Paramwise(norm_decay_mult=0.0, custom_keys={"blocks": {"lr_mult": 0.1}}).custom_keys
        {'blocks': {'lr_mult': 0.1}}
        >>> Paramwise(norm_decay_mul=0.0)
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown key 'norm_decay_mul' in param_groups 'paramwise', \
did you mean 'norm_decay_mult'? known: bypass_duplicate, custom_keys, bias_lr_mult, ...
    """

    OPTIONS: ClassVar = {
        **ParamGroupBuilder.OPTIONS,
        "custom_keys": ({}, _KEYS),
        **dict.fromkeys((*_OF_LR, *_OF_DECAY), (None, or_null(NON_NEGATIVE))),
        "gc_layer_weights_only": (False, BOOL),
    }

    def _check(self, parameters: list[NamedParameter], optimizer: OptimizerOptions) -> None:
        for option in (*_OF_LR, *_OF_DECAY):
            if getattr(self, option) is not None:
                needed = "lr" if option in _OF_LR else "weight_decay"
                optimizer.require(needed, f"{option} of {self.label()}")
        if self.gc_layer_weights_only:
            optimizer.require("use_gc", f"gc_layer_weights_only of {self.label()}")
        names = [f"{p.prefix}.{p.name}" for p in parameters]
        used = {self._key(p) for p in parameters if p.parameter.requires_grad}
        for key in self.custom_keys:
            label = f"custom_keys {key!r} of {self.label()}"
            if not any(key in name for name in names):
                known = {x for p in parameters for x in (p.full_name, *p.full_name.split("."))}
                nearest = difflib.get_close_matches(key, sorted(known), 3, 0.0)
                raise ValueError(f"{label} matches no parameter; nearest names: {nearest}")
            if key not in used:
                logging.warning(
                    f"{label} decides nothing: all its matches are frozen or match a longer key"
                )

    def _key(self, parameter: NamedParameter) -> str | None:
        # A parameter of the model itself keeps the dot before its name, as in MMEngine.
        name = f"{parameter.prefix}.{parameter.name}"
        keys = [key for key in self.custom_keys if key in name]
        return min(keys, key=lambda key: (-len(key), key), default=None)

    def _multipliers(self, parameter: NamedParameter) -> dict[str, Any]:
        key = self._key(parameter)
        if key is not None:
            options = dict(self.custom_keys[key])
            # A key without decay options leaves BatchNorm to the task; but it overrides a rule for
            # norm layers, as it overrides all rules.
            if self.norm_decay_mult is not None or {"decay_mult", "weight_decay"} & {*options}:
                options.setdefault("bn_weight_decay", True)
            return options
        module, is_bias = parameter.module, parameter.name == "bias"
        of_norm, of_dwconv = is_norm(module), is_depthwise(module)
        in_dcn = any(isinstance(parent, DeformConv2d) for parent in parameter.parents)
        is_offset = in_dcn and isinstance(module, nn.Conv2d) and "conv_offset" in parameter.prefix
        # (whether the rule applies, its multiplier): the first rule of each list that applies
        # decides.
        lr = (
            (is_offset, self.dcn_offset_lr_mult),
            (is_bias and not of_norm and not is_offset, self.bias_lr_mult),
        )
        decay = (
            (of_norm, self.norm_decay_mult),
            (of_dwconv, self.dwconv_decay_mult),
            (is_bias and not (of_norm or of_dwconv or is_offset), self.bias_decay_mult),
            (parameter.parameter.ndim == 1 and not is_offset, self.flat_decay_mult),
        )
        options: dict[str, Any] = {}
        for name, rules in (("lr_mult", lr), ("decay_mult", decay)):
            factor = next((m for applies, m in rules if applies and m is not None), None)
            if factor is not None:
                options[name] = factor
        if of_norm and self.norm_decay_mult is not None:
            options["bn_weight_decay"] = True
        return options

    def options(
        self, model: nn.Module, parameters: list[NamedParameter], optimizer: OptimizerOptions
    ) -> list[dict[str, Any]]:
        self._check(parameters, optimizer)
        result = [self._multipliers(parameter) for parameter in parameters]
        if self.gc_layer_weights_only:
            for parameter, options in zip(parameters, result, strict=True):
                # What has no rows needs no separate group.
                has_rows = ineligible_reason(parameter.parameter) is None
                if has_rows and no_layer_weight_reason(parameter) is not None:
                    options.setdefault("use_gc", False)
        return result
