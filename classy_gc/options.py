"""Options in configs: what is allowed, and one clear error for anything else.

A :data:`Table` of options is called ``OPTIONS`` everywhere.
"""

import difflib
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

#: marks an option without a default
REQUIRED = inspect.Parameter.empty


class OptionError(ValueError):
    """A refused option; ``keys`` lead to it, so that its file can be named."""

    def __init__(self, message: str, *keys: Any) -> None:
        super().__init__(message)
        self.keys = keys


class Rule(NamedTuple):
    """What an option accepts."""

    allowed: str  # completes "must be …"
    accepts: Callable[[Any], bool]
    schedulable: bool = True


#: of each option: its default and its rule
Table = Mapping[str, tuple[Any, Rule]]


def is_integer(value: Any) -> bool:
    """Whether a value is an integer; unlike in Python, true is not one.

    Example:
        >>> is_integer(1), is_integer(True)
        (True, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are not.

    Example:
        >>> is_number(0.5), is_number(math.nan)
        (True, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


NUMBER = Rule("a number", is_number)
POSITIVE = Rule("a number > 0", lambda v: is_number(v) and v > 0)
NON_NEGATIVE = Rule("a number >= 0", lambda v: is_number(v) and v >= 0)
SHARE = Rule("a number in [0, 1]", lambda v: is_number(v) and 0 <= v <= 1)
FRACTION = Rule("a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
BETAS = Rule(
    "a list of two numbers in [0, 1)",
    lambda v: isinstance(v, (list, tuple)) and len(v) == 2 and all(map(FRACTION.accepts, v)),
    schedulable=False,
)
BOOL = Rule("true or false", lambda v: isinstance(v, bool), schedulable=False)
SWITCH = Rule("true, false or null", lambda v: v is None or isinstance(v, bool), schedulable=False)
GC_FLAG = Rule("true or false, or a number (0 is false)", lambda v: BOOL.accepts(v) or is_number(v))
COUNT = Rule("an integer > 0", lambda v: is_integer(v) and v > 0)
COUNT_OR_ZERO = Rule("an integer >= 0", lambda v: is_integer(v) and v >= 0)
TEXT = Rule("a string", lambda v: isinstance(v, str), schedulable=False)
MAPPING = Rule("an object", lambda v: isinstance(v, Mapping), schedulable=False)
ANYTHING = Rule("anything", lambda v: True, schedulable=False)


def or_null(rule: Rule) -> Rule:
    """The rule of an option that may also be null.

    Example:
        >>> or_null(BOOL).allowed
        'true or false or null'
    """
    return rule._replace(
        allowed=f"{rule.allowed} or null", accepts=lambda v: v is None or rule.accepts(v)
    )


# Options with the same meaning in every optimizer.
_BY_NAME = {
    **dict.fromkeys(("lr", "weight_decay", "eps", "lr_decay", "momentum_decay"), NON_NEGATIVE),
    **dict.fromkeys(("momentum", "alpha"), FRACTION),
    "trust_coefficient": NON_NEGATIVE,
    "larc_config": or_null(MAPPING),
    **dict.fromkeys(("use_gc", "gc_conv_only", "gc_loc"), GC_FLAG),
    **dict.fromkeys(("fused", "foreach"), SWITCH),
    "betas": BETAS,
    "initial_square_avg": NON_NEGATIVE._replace(schedulable=False),  # read only once, at the start
    "initial_accumulator_value": NON_NEGATIVE._replace(schedulable=False),
}


def rule_of(name: str, default: Any) -> Rule:
    """The rule of an optimizer's option, as far as its name and default tell.

    Args:
        name: of the option.
        default: of the option; for a list, the rule requires as many numbers.

    Example:
        >>> [rule_of(*option).allowed for option in (("lr", 0.1), ("d0", 1), ("etas", (0.5, 1.2)))]
        ['a number >= 0', 'a number', 'a list of 2 numbers']
    """
    if name in _BY_NAME and _BY_NAME[name].accepts(default):
        return _BY_NAME[name]
    if is_number(default):
        return NUMBER
    if not isinstance(default, (list, tuple)):
        return {bool: BOOL, str: TEXT}.get(type(default), ANYTHING)

    def accepts(value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) != len(default):
            return False
        return all(is_number(v) or v is d is None for v, d in zip(value, default, strict=True))

    null = ", the first may be null" if None in default else ""
    return Rule(f"a list of {len(default)} numbers{null}", accepts, schedulable=False)


def without_comments(config: Any, are_names: bool = False) -> Any:
    """A config without the keys that begin with ``_``, at every level.

    The keys of ``custom_keys`` are parts of parameter names, such as ``_heads``; there, only a key
    whose value is not an object is a comment.

    Args:
        config: an object, a list, or a value, which is returned unchanged.
        are_names: whether the keys of ``config`` are those of ``custom_keys`` (default: False)

    Raises:
        ValueError: ``_base_`` or ``_delete_``, which only ``classy-gc`` resolves.

    Example:
        >>> without_comments({"lr": 0.1, "_lr": "0.2 diverges", "hooks": [{"_": 1, "a": 2}]})
        {'lr': 0.1, 'hooks': [{'a': 2}]}
    """
    if isinstance(config, list):
        return [without_comments(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    result = {}
    for key, value in config.items():
        if key in ("_base_", "_delete_") and not are_names:
            text = f"{key} is resolved only at the top of a file that classy-gc reads"
            raise OptionError(f"{text}; classy-gc configs --flatten FILE prints it merged", key)
        if not str(key).startswith("_") or (are_names and isinstance(value, Mapping)):
            result[key] = without_comments(value, are_names=key == "custom_keys")
    return result


def dotted(path: tuple[Any, ...]) -> str:
    """Joins keys as a person would write them.

    Example:
        >>> dotted(("model", "heads", 0, "num_classes"))
        'model.heads[0].num_classes'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]


def check_known(names: Iterable[Any], known: Iterable[str], label: str, kind: str = "key") -> None:
    """Refuses unknown names.

    Args:
        names: the given names.
        known: the names that are read.
        label: completes "unknown key 'x' in …".
        kind: what the names are (default: "key").

    Raises:
        ValueError: with the first unknown name, the nearest known one, and all known ones.

    Example:
        >>> check_known(["momentun"], ["lr", "momentum"], "optimizer 'sgd_gc'")
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown key 'momentun' in optimizer 'sgd_gc', did \
you mean 'momentum'? known: lr, momentum
    """
    known = list(dict.fromkeys(known))
    for name in names:
        if name not in known:
            by_case = {k.lower(): k for k in known}
            nearest = difflib.get_close_matches(str(name).lower(), by_case, n=1)
            hint = f", did you mean {by_case[nearest[0]]!r}?" if nearest else ";"
            text = f"unknown {kind} {name!r} in {label}{hint} known: {', '.join(known)}"
            raise OptionError(text, name)


def check_installed(package: str, label: str, extra: str = "examples", module: str = "") -> None:
    """Refuses what needs a package that is not installed.

    Args:
        package: its name for pip.
        label: what needs it.
        extra: of this package, which installs it (default: "examples")
        module: its name in Python (default: that of the package)

    Raises:
        ValueError: with the command that installs it.

    Example:
        >>> check_installed("no-such-package", "hook 'x'", module="no_such_package")
        Traceback (most recent call last):
        ValueError: hook 'x' needs no-such-package: pip install 'classy-gc[examples]'
    """
    if importlib.util.find_spec(module or package) is None:
        raise ValueError(f"{label} needs {package}: pip install 'classy-gc[{extra}]'")


def registered_name(cls: type, registry: Mapping[str, type]) -> str:
    """The name under which a class is registered, or its own name.

    Example:
        >>> registered_name(int, {"integer": int}), registered_name(str, {"integer": int})
        ('integer', 'str')
    """
    return next((name for name, c in registry.items() if c is cls), cls.__name__)


def check_options(options: Mapping[str, Any], table: Table, label: str) -> dict[str, Any]:
    """Checks the given options, and returns the values of all options in ``table``.

    Args:
        options: the given ones.
        table: option: (default, rule).
        label: names their owner in messages.

    Raises:
        ValueError: an unknown or a missing option, or a value that its rule does not accept.

    Example:
        >>> check_options({"lr": 1}, {"lr": (0.1, NON_NEGATIVE), "nesterov": (False, BOOL)}, "sgd")
        {'lr': 1, 'nesterov': False}
        >>> check_options({"lr": "1"}, {"lr": (0.1, NON_NEGATIVE)}, "optimizer 'sgd_gc'")
        Traceback (most recent call last):
        classy_gc.options.OptionError: optimizer 'sgd_gc': lr must be a number >= 0, not '1'
    """
    check_known(options, table, label)
    values = {}
    for name, (default, rule) in table.items():
        values[name] = value = options.get(name, default)
        if value is REQUIRED:
            raise ValueError(f"missing key {name!r} in {label}")
        if name in options and not rule.accepts(value):
            raise OptionError(f"{label}: {name} must be {rule.allowed}, not {value!r}", name)
    return values
